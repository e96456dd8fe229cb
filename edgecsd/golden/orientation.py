"""A JPEG's EXIF orientation: read, and rewritten with not one bit of its compressed pixels changed."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from PIL import ExifTags, Image

from edgecsd.errors import BadInputError

SOI, APP0, APP1, SOS = 0xD8, 0xE0, 0xE1, 0xDA
EXIF = b"Exif\0\0"
UPRIGHT = 1
# What puts an upright photo the way a camera stores it that writes this orientation: the inverse of applying it.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def orientation_of(data: bytes) -> int:
    """1 to 8; 1 where there is none that can be read."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            found = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception:  # broken EXIF, of which Pillow raises almost anything; read_photo takes it as upright too
        return UPRIGHT
    return found if isinstance(found, int) and 1 <= found <= 8 else UPRIGHT


def with_orientation(data: bytes, orientation: int) -> bytes:
    """The same JPEG with this orientation and no other EXIF; all of its other segments stay as they are."""
    if not 1 <= orientation <= 8:
        raise BadInputError(f"EXIF orientation {orientation}: 1 to 8 are known")
    tag = struct.pack(">HHIHH", ExifTags.Base.Orientation, 3, 1, orientation, 0)  # type 3: one 16-bit number
    exif = EXIF + b"MM\0*" + struct.pack(">IH", 8, 1) + tag + struct.pack(">I", 0)
    segment = bytes([0xFF, APP1]) + struct.pack(">H", len(exif) + 2) + exif
    head, placed = data[:2], False
    for marker, part in _segments(data):
        if marker != APP0 and not placed:  # JFIF wants to come first
            head, placed = head + segment, True
        if not (marker == APP1 and part[4:].startswith(EXIF)):
            head += part
    return head


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and bytes of each segment after the start; the last is all from the first scan on."""
    if data[:2] != bytes([0xFF, SOI]):
        raise BadInputError("not a JPEG: an EXIF orientation can be written into JPEGs only")
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise BadInputError(f"not a whole JPEG: no marker at byte {at}")
        if data[at + 1] == SOS:
            yield SOS, data[at:]
            return
        if data[at + 1] == 0xFF:  # markers may be padded
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], data[at:end]
        at = end
    raise BadInputError("not a whole JPEG: it has no scan")
