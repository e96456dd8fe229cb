"""Find, read and batch images; a bad file is named, never fatal unless asked."""

from __future__ import annotations

import csv
import io
import itertools
import os
import posixpath
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecsd.decoding import Photo, decode_image, photo_digest, photo_of, read_image, read_photo
from edgecsd.errors import BadInputError, ImageReadError
from edgecsd.preprocess import Box, box_from_cells

__all__ = [
    "ImageSet", "Loaded", "Photo", "PhotoSource", "decode_image", "find_images", "load_in_order", "load_photos",
    "photo_digest", "read_image", "read_photo", "read_rows",
]  # fmt: skip
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
BOX_COLUMNS = ("x1", "y1", "x2", "y2")


class PhotoSource(Protocol):
    """Where photos are that are no files of a local folder: object stores, tars, Parquet (edgecsd.image_sources)."""

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

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def place(self) -> str:
        """Where the images are: the same for the same ones, wherever one stands."""
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

    def subset(self, positions: Sequence[int]) -> ImageSet:
        labels = None if self.labels is None else tuple(self.labels[p] for p in positions)
        boxes = None if self.boxes is None else tuple(self.boxes[p] for p in positions)
        return replace(self, ids=tuple(self.ids[p] for p in positions), labels=labels, boxes=boxes)

    def with_boxes(self, boxes: Mapping[str, Box | None]) -> ImageSet:
        """The same images, those named in `boxes` (by id) cropped to theirs, all others whole."""
        unknown = sorted(set(boxes) - set(self.ids))
        if unknown:
            raise BadInputError(f"{self.root}: {len(unknown)} boxes are of images not in it, the first: {unknown[0]}")
        return replace(self, boxes=_boxes_or_none(boxes.get(item) for item in self.ids))


def _boxes_or_none(boxes: Iterable[Box | None]) -> tuple[Box | None, ...] | None:
    """None where no image has a box, so that equal sets are equal."""
    return found if any(found := tuple(boxes)) else None


def find_images(source: Path | str, *, split: str | None = None) -> ImageSet:
    """The images of a folder (searched to any depth, sorted by id), of a list, a Parquet file, or tars; maybe by URL.

    A .csv list has a header with `path` (relative to the list's folder) and optionally `label`, `split` and the box
    x1, y1, x2, y2 (pixels of the upright image; four numbers or four blanks); `split` keeps the rows of that split.
    A .txt list has a path a line. Others, and URLs such as s3://bucket/photos: edgecsd.image_sources.
    """
    text, source = _as_given(source), Path(source)
    suffix = source.suffix.lower()
    if "://" in text or suffix in (".tar", ".parquet"):
        from edgecsd.image_sources import find_elsewhere  # it imports this module

        return find_elsewhere(text, split)
    if source.is_dir():
        require_no_split(split, text, "a folder")
        return _from_folder(source)
    if not source.exists():
        raise BadInputError(f"{source}: no such folder or list of images")
    if suffix not in (".csv", ".txt"):
        raise BadInputError(
            f"{source}: images are given as a folder, a .csv list with a 'path' column, a .txt list, a .parquet file, "
            f".tar files or a URL of any of these"
        )
    return ImageSet(source.parent, *listed(source.read_bytes() if source.is_file() else b"", str(source), split))


def _as_given(source: Path | str) -> str:
    """A URL that became a Path has lost a slash."""
    text = str(source)
    return text if Path(text).exists() else re.sub(r"^([a-z][a-z0-9+.-]+):/(?=[^/])", r"\1://", text)


def require_no_split(split: str | None, source: str, what: str) -> None:
    """Raise BadInputError where `split` is asked of what has no column."""
    if split is not None:
        raise BadInputError(f"--split {split} needs a CSV list with a 'split' column; {source} is {what}")


def _from_folder(folder: Path) -> ImageSet:
    found: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=_refuse_folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                found.append((Path(parent) / name).relative_to(folder).as_posix())
    if not found:
        suffixes = ", ".join(sorted(SUFFIXES))
        raise BadInputError(f"{folder}: no image in it ({suffixes} are looked for, in sub-folders too)")
    return ImageSet(folder, tuple(sorted(found)))


def _refuse_folder(error: OSError) -> None:
    raise BadInputError(f"{error.filename}: cannot be listed: {error.strerror}")


Listed = tuple[tuple[str, ...], tuple[str, ...] | None, tuple[Box | None, ...] | None]


def listed(content: bytes, file: str, split: str | None) -> Listed:
    """(ids, labels, boxes) of a list's bytes, sorted by id."""
    if file.lower().endswith(".txt"):
        require_no_split(split, file, "a plain list")
        lines = _decoded(content, file).splitlines()
        return of_rows(["path"], [{"path": line.strip()} for line in lines if line.strip()], file, None)
    return of_rows(*_parsed(content, file), file, split)


def of_rows(columns: list[str], rows: list[dict[str, str]], file: str, split: str | None) -> Listed:
    """The same of rows that were read; `columns` name what they have."""
    if "path" not in columns:
        raise BadInputError(f"{file}: the header has no 'path' column (found: {', '.join(columns) or 'nothing'})")
    if split is not None:
        if "split" not in columns:
            raise BadInputError(f"{file}: --split {split} needs a 'split' column")
        known = sorted({row["split"] for row in rows})
        rows = [row for row in rows if row["split"] == split]
        if not rows:
            raise BadInputError(f"{file}: no row has split {split!r}; there are: {', '.join(known)}")
    if not rows:
        raise BadInputError(f"{file}: the list is empty")
    for row in rows:
        row["path"] = _inside(row["path"], file)
    rows.sort(key=lambda row: row["path"])
    ids = tuple(row["path"] for row in rows)
    if len(set(ids)) != len(ids):
        twice = next(a for a, b in itertools.pairwise(ids) if a == b)
        raise BadInputError(f"{file}: {twice} is listed more than once")
    labels = tuple(row["label"] if row["label"].strip() else "" for row in rows) if "label" in columns else None
    return ids, labels, _listed_boxes(file, columns, rows)


def _listed_boxes(file: str, columns: list[str], rows: list[dict[str, str]]) -> tuple[Box | None, ...] | None:
    found = [name for name in BOX_COLUMNS if name in columns]
    if found and len(found) < len(BOX_COLUMNS):
        raise BadInputError(f"{file}: a box needs all columns {', '.join(BOX_COLUMNS)}; found only {', '.join(found)}")
    return _boxes_or_none(box_from_cells([row[n] for n in found], f"{file}: {row['path']}") for row in rows)


def read_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows of a CSV file with a header; a cell that a short row lacks is ""."""
    try:
        return _parsed(file.read_bytes(), str(file))
    except OSError as error:
        raise BadInputError(f"{file}: not readable as a UTF-8 CSV list: {error}") from None


def _parsed(content: bytes, file: str) -> tuple[list[str], list[dict[str, str]]]:
    try:
        reader = csv.DictReader(io.StringIO(_decoded(content, file), newline=""), restval="")
        return list(reader.fieldnames or []), list(reader)
    except csv.Error as error:
        raise BadInputError(f"{file}: not readable as a UTF-8 CSV list: {error}") from None


def _decoded(content: bytes, file: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{file}: not readable as a UTF-8 CSV list: {error}") from None


def _inside(path: str, file: str) -> str:
    """The normal form of a listed path, which must stay inside the list's folder."""
    if not path.strip() or "\0" in path:
        raise BadInputError(f"{file}: a row has no usable path: {path!r}")
    normal = posixpath.normpath(path)
    if posixpath.isabs(path) or normal == ".." or normal.startswith("../"):
        raise BadInputError(
            f"{file}: {path} lies outside the list's folder; paths are relative to that folder, without '..' out of it"
        )
    return normal


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
