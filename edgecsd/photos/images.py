"""ImageSet: photos in a fixed order, read and decoded; a bad file is named, and fatal only if asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecsd.errors import BadInputError, ImageReadError
from edgecsd.photos.boxes import Box
from edgecsd.photos.decoding import Photo, photo_of, read_photo
from edgecsd.photos.lists import _boxes_or_none

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


class PhotoSource(Protocol):
    """Where photos are that are no files of a local folder: object stores, tars, Parquet (edgecsd.photos.elsewhere)."""

    @property
    def place(self) -> str:
        """As a user named it."""
        ...

    def read(self, item: str) -> bytes:
        """The encoded photo. Raises ImageReadError, which names it. Several threads call this at once."""
        ...


@dataclass(frozen=True)
class ImageSet:
    """Images in a fixed order: the root folder; of each its id (path below the root, "/" between), maybe label and box.

    A label "" is none. An image that has a box is cropped to it right after decoding. Where there is a `source` the
    images are not files below `root`, which only names it.
    """

    root: Path
    ids: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    boxes: tuple[Box | None, ...] | None = None
    source: PhotoSource | None = field(default=None, compare=False)
    given: str = field(default="", compare=False)  # as find_images was given it
    split: str | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def place(self) -> str:
        """Where the images are, independent of the working folder."""
        return str(self.root.resolve()) if self.source is None else self.source.place

    def path(self, position: int) -> Path:
        """The file of an image. Raises BadInputError where images are no files of this machine."""
        if self.source is not None:
            raise BadInputError(f"{self.source.place}: this step needs photos in a folder, or a list of files")
        return self.root / self.ids[position]

    def name(self, position: int) -> str:
        """An image as messages call it."""
        return f"{self.root if self.source is None else self.source.place}/{self.ids[position]}"

    def read(self, position: int) -> Photo:
        """The photo at `position`, cropped to its box. Raises ImageReadError, which names it."""
        box = None if self.boxes is None else self.boxes[position]
        if self.source is None:
            return read_photo(self.path(position), box)
        return photo_of(self.source.read(self.ids[position]), self.name(position), box)

    def spread(self, limit: int | None) -> ImageSet:
        """`limit` of the images, spread evenly; all where there are no more, or None."""
        if limit is None or limit >= len(self):
            return self
        return self.subset(np.linspace(0, len(self) - 1, limit).round().astype(int).tolist())

    def subset(self, positions: Sequence[int]) -> ImageSet:
        labels = None if self.labels is None else tuple(self.labels[p] for p in positions)
        boxes = None if self.boxes is None else tuple(self.boxes[p] for p in positions)
        return replace(self, ids=tuple(self.ids[p] for p in positions), labels=labels, boxes=boxes)

    def with_boxes(self, boxes: Mapping[str, Box | None]) -> ImageSet:
        """These images, those named in `boxes` (by id) cropped to their box, all others whole."""
        unknown = sorted(set(boxes) - set(self.ids))
        if unknown:
            raise BadInputError(f"{self.root}: {len(unknown)} boxes are of images not in it, the first: {unknown[0]}")
        return replace(self, boxes=_boxes_or_none(boxes.get(item) for item in self.ids))


@dataclass(frozen=True)
class Loaded:
    """One decoded item: its position in the ImageSet and either its arrays and digest, or the reason it has none."""

    position: int
    arrays: tuple[NDArray[np.uint8], ...] = ()
    digest: str = ""
    problem: str = ""


Arrays = tuple[NDArray[np.uint8], ...]
Transform = Callable[[int, Image.Image], Arrays]
PhotoTransform = Callable[[int, Photo], Arrays]


def load_in_order(
    images: ImageSet, positions: Sequence[int], transform: Transform, *, workers: int = 2, ahead: int = 64
) -> Generator[Loaded, None, None]:
    """`load_photos` for a transform that needs the image alone."""
    return load_photos(images, positions, lambda p, photo: transform(p, photo.image), workers=workers, ahead=ahead)


def load_photos(
    images: ImageSet, positions: Sequence[int], transform: PhotoTransform, *, workers: int = 2, ahead: int = 64
) -> Generator[Loaded, None, None]:
    """Decode and transform in `workers` threads, at most `ahead` items early; results come in the order asked for.

    Pillow releases the interpreter lock while it decodes and resizes, so threads run beside a forward pass.
    """

    def load(position: int) -> Loaded:
        try:
            _require_text(images.ids[position])
            photo = images.read(position)
            return Loaded(position, transform(position, photo), photo.digest)
        except ImageReadError as error:
            return Loaded(position, problem=str(error))

    pending: deque[Future[Loaded]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for position in positions:
                pending.append(pool.submit(load, position))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _require_text(item_id: str) -> None:
    """Ids go into Parquet, JSON and terminals, which take no file name that is not UTF-8."""
    try:
        item_id.encode()
    except UnicodeEncodeError:
        readable = item_id.encode("utf-8", "backslashreplace").decode()
        raise ImageReadError(f"{readable}: its name is not valid UTF-8; rename it") from None
