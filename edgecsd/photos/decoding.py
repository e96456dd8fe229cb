"""Encoded bytes -> the upright RGB image that the pixel contract begins with, and the digest of the bytes.

JPEG is decoded by libjpeg-turbo (simplejpeg) where that gives Pillow's very bits, because it is faster; else by Pillow.
"""

from __future__ import annotations

import hashlib
import io
import stat
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from edgecsd.errors import ImageReadError, first_line
from edgecsd.photos.boxes import Box
from edgecsd.photos.contract import BACKGROUND, CHANNELS, GREY_16

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # whatever the name says; EPS would start Ghostscript
MAX_PIXELS = 100_000_000  # 300 MB as RGB; above it a file is refused before its pixels are decoded


@dataclass(frozen=True)
class Photo:
    """A decoded photo, upright and RGB, cropped to its box if it has one.

    digest  SHA-256 of the file's bytes; of a crop with its box behind it: `photo_digest` gives the file's alone
    scale   longer side of the crop / longer side of the whole image; 1 without a box
    """

    image: Image.Image
    digest: str
    scale: float = 1.0


def photo_digest(digest: str) -> str:
    """The SHA-256 of a photo's own bytes, of its digest or of the digest of a crop of it."""
    return digest.partition("[")[0]


def read_photo(path: Path, box: Box | None = None) -> Photo:
    """The upright RGB image of a file, cropped to the box if there is one, with the digest of what it was made of.

    EXIF orientation is applied; transparency is laid over white; 16-bit grey is scaled to 8 bit; of an animation the
    first frame counts. Raises ImageReadError for what cannot be decoded whole, and for a box that is empty or lies
    outside the image.
    """
    return photo_of(read_file(path), str(path), box)


def read_file(path: Path) -> bytes:
    """What is in a file. Raises ImageReadError for one that cannot be read, or is none."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or a device would never end
            raise ImageReadError(f"{path}: not a file")
        return path.read_bytes()
    except OSError as error:
        raise ImageReadError(f"{path}: {error.strerror or error}") from None


def photo_of(data: bytes, name: str, box: Box | None = None) -> Photo:
    """`read_photo` of encoded bytes; `name` stands in the errors."""
    image, digest = decode_image(data, name), hashlib.sha256(data).hexdigest()
    if box is None:
        return Photo(image, digest)
    if problem := box.problem(*image.size):
        raise ImageReadError(f"{name}: {problem}")
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
        fast = by_simplejpeg(data, image)
        if fast is not None:
            return _to_rgb(_upright(fast))
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
    except Exception:  # Pillow raises almost anything for broken EXIF: as other viewers do, show it as it lies
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    if image.mode.startswith("I"):
        grey = (np.asarray(image, dtype=np.float64) / GREY_16).round().clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert(CHANNELS)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, BACKGROUND), rgba).convert(CHANNELS)
    return image if image.mode == CHANNELS else image.convert(CHANNELS)


SIMPLEJPEG_MODES = {"RGB": "RGB", "L": "GRAY"}  # CMYK and others are Pillow's
TRIED_SIZES = ((64, 64), (61, 47))  # sizes: with and without a rest beside whole blocks


def by_simplejpeg(data: bytes, opened: Image.Image) -> Image.Image | None:
    """The pixels of a JPEG that Pillow has opened, with its header's information.

    Returns None if Pillow should decode it: an unsupported mode, a size mismatch, any error of this decoder.
    """
    if opened.format != "JPEG" or opened.mode not in SIMPLEJPEG_MODES or not simplejpeg_is_exact():
        return None
    try:
        pixels = _simplejpeg_pixels(data, SIMPLEJPEG_MODES[opened.mode])
    except Exception:  # damaged, or of a kind that it does not know
        return None
    image = Image.fromarray(pixels)
    if image.size != opened.size:
        return None
    image.info = opened.info
    return image


@cache
def simplejpeg_is_exact() -> bool:
    """Whether the decoder is there and gives Pillow's bits for every sampling, baseline and progressive, grey too."""
    random = np.random.default_rng(0)
    try:
        for (width, height), sampling, progressive in product(TRIED_SIZES, (0, 1, 2), (False, True)):
            colour = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))
            for image in (colour, colour.convert("L")):
                buffer = io.BytesIO()
                image.save(buffer, "JPEG", quality=85, subsampling=sampling, progressive=progressive)
                ours = _simplejpeg_pixels(buffer.getvalue(), SIMPLEJPEG_MODES[image.mode])
                if not np.array_equal(ours, np.asarray(Image.open(io.BytesIO(buffer.getvalue())))):
                    return False
    except Exception:  # not installed, or not as it was
        return False
    return True


def _simplejpeg_pixels(data: bytes, colours: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(h, w, 3) or, for GRAY, (h, w)."""
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(data, colorspace=colours, fastdct=False, fastupsample=False)
    return np.asarray(pixels[..., 0] if colours == "GRAY" else pixels)
