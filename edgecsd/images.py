"""Find, decode and batch images; a bad file is named, never fatal unless asked."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import os
import posixpath
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from edgecsd.errors import BadInputError, ImageReadError, first_line
from edgecsd.preprocess import Box, box_from_cells

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # whatever the name says; EPS would start Ghostscript
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MAX_PIXELS = 100_000_000  # 300 MB as RGB; above it a file is refused before its pixels are decoded
BOX_COLUMNS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class Photo:
    """A decoded photo, upright and RGB, cropped to its box if it has one.

    digest  SHA-256 of the file's bytes; of a crop with its box behind it: `photo_digest` gives the file's alone
    scale   longer side of the crop / longer side of the whole image; 1 without a box
    """

    image: Image.Image
    digest: str
    scale: float = 1.0


@dataclass(frozen=True)
class ImageSet:
    """Images in a fixed order: the root folder; of each its id (path below the root, "/" between), maybe label and box.

    An image that has a box is cropped to it right after decoding.
    """

    root: Path
    ids: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    boxes: tuple[Box | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, position: int) -> Path:
        return self.root / self.ids[position]

    def read(self, position: int) -> Photo:
        """The photo at `position`, cropped to its box. Raises ImageReadError, which names it."""
        return read_photo(self.path(position), None if self.boxes is None else self.boxes[position])

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


def photo_digest(digest: str) -> str:
    """The SHA-256 of a photo's own bytes, of its digest or of the digest of a crop of it."""
    return digest.partition("[")[0]


def find_images(source: Path, *, split: str | None = None) -> ImageSet:
    """The images of a folder (searched to any depth, sorted by id), or of a CSV list.

    A list has a header with `path` (relative to the list's folder) and optionally `label`, `split` and the box
    x1, y1, x2, y2 (pixels of the upright image; four numbers or four blanks); `split` keeps the rows of that split.
    """
    if source.is_dir():
        if split is not None:
            raise BadInputError(f"--split {split} needs a CSV list with a 'split' column; {source} is a folder")
        return _from_folder(source)
    if not source.exists():
        raise BadInputError(f"{source}: no such folder or list of images")
    if source.suffix.lower() != ".csv":
        raise BadInputError(f"{source}: images are given as a folder or as a .csv list with a 'path' column")
    return _from_list(source, split)


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


def _from_list(file: Path, split: str | None) -> ImageSet:
    columns, rows = read_rows(file)
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
    labels = tuple(row["label"] for row in rows) if "label" in columns else None
    return ImageSet(file.parent, ids, labels, _listed_boxes(file, columns, rows))


def _listed_boxes(file: Path, columns: list[str], rows: list[dict[str, str]]) -> tuple[Box | None, ...] | None:
    found = [name for name in BOX_COLUMNS if name in columns]
    if found and len(found) < len(BOX_COLUMNS):
        raise BadInputError(f"{file}: a box needs all columns {', '.join(BOX_COLUMNS)}; found only {', '.join(found)}")
    return _boxes_or_none(box_from_cells([row[n] for n in found], f"{file}: {row['path']}") for row in rows)


def read_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows of a CSV file with a header; a cell that a short row lacks is ""."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, restval="")
            return list(reader.fieldnames or []), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{file}: not readable as a UTF-8 CSV list: {error}") from None


def _inside(path: str, file: Path) -> str:
    """The normal form of a listed path, which must stay inside the list's folder."""
    if not path.strip() or "\0" in path:
        raise BadInputError(f"{file}: a row has no usable path: {path!r}")
    normal = posixpath.normpath(path)
    if posixpath.isabs(path) or normal == ".." or normal.startswith("../"):
        raise BadInputError(
            f"{file}: {path} lies outside the list's folder; paths are relative to that folder, without '..' out of it"
        )
    return normal


def read_photo(path: Path, box: Box | None = None) -> Photo:
    """The upright RGB image of a file, cropped to the box if there is one, with the digest of what it was made of.

    EXIF orientation is applied; transparency is laid over white; 16-bit grey is scaled to 8 bit; of an animation the
    first frame counts. Raises ImageReadError for what cannot be decoded whole, and for a box that is empty or lies
    outside the image.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or a device would never end
            raise ImageReadError(f"{path}: not a file")
        data = path.read_bytes()
    except OSError as error:
        raise ImageReadError(f"{path}: {error.strerror or error}") from None
    image, digest = decode_image(data, str(path)), hashlib.sha256(data).hexdigest()
    if box is None:
        return Photo(image, digest)
    if problem := box.problem(*image.size):
        raise ImageReadError(f"{path}: {problem}")
    crop = box.crop(image)
    return Photo(crop, f"{digest}[{','.join(map(str, box.pixels))}]", max(crop.size) / max(image.size))


def read_image(path: Path) -> tuple[Image.Image, str]:
    """`read_photo` of the whole image: the upright RGB image and the SHA-256 of the file's bytes."""
    return (photo := read_photo(path)).image, photo.digest


def decode_image(data: bytes, name: str) -> Image.Image:
    """The upright RGB image of encoded bytes; `name` stands in the error."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageReadError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: truncated files would pass for whole ones")
    if not data:
        raise ImageReadError(f"{name}: the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ImageReadError(f"{name}: {image.width} x {image.height} pixels is over the limit of {MAX_PIXELS:,}")
        image.load()
        return _to_rgb(_upright(image))
    except ImageReadError:
        raise
    except UnidentifiedImageError:  # its own text holds a memory address, and reports must not change between runs
        raise ImageReadError(f"{name}: cannot be decoded: not one of {', '.join(FORMATS)}, or damaged") from None
    except Exception as error:  # Pillow's decoders raise almost anything on damaged bytes
        raise ImageReadError(f"{name}: cannot be decoded: {type(error).__name__}: {first_line(error)}") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF, of which Pillow raises almost anything: as other viewers do, show it as it lies
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    if image.mode.startswith("I"):
        grey = (np.asarray(image, dtype=np.float64) / 257.0).round().clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


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
