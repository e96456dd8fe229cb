"""Which photos go into a pack: those on which mistakes show. Rewrites EXIF orientation, not pixels."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import ExifTags, Image

from edgecsd.errors import BadInputError, ImageReadError
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.decoding import decode_image
from edgecsd.photos.images import ImageSet
from edgecsd.photos.pixel_mistakes.mistakes import MISTAKES, Shot, right_pixels

COUNT = 8
CANDIDATES = 60  # photos looked at: each is decoded and resized a few times
MOST_BYTES = 8_000_000  # of one photo: apps carry the pack in their tests
JPEG_QUALITY = 95
MADE_ORIENTATIONS = (6, 3)  # a phone held upright, and upside down; the second only in packs of 6 and more
NOT_ANTIALIASED, SWAPPED = "resized without antialias, bilinear", "channels swapped (BGR for RGB)"


@dataclass(frozen=True)
class Chosen:
    """A photo for the pack: its encoded bytes, upright pixels, and why it is there."""

    data: bytes
    shot: Shot
    orientation: int
    note: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class _Candidate:
    photo: Chosen
    aspect: float  # width / height, upright
    texture: float  # mean levels that a missing antialias changes
    colour: float  # mean levels that swapped channels change


def choose_photos(photos: ImageSet, contract: Preprocess, count: int) -> list[Chosen]:
    """Up to `count` whole photos as JPEGs, at least one of them with an EXIF orientation, made where none has one.

    In turn: one with an orientation, the widest, the tallest, the one with the finest texture, the most colourful;
    then the finest textures of the rest.
    """
    if count < 1:
        raise BadInputError(f"`count` {count}: a pack needs 1 photo or more")
    left = list(_candidates(photos, contract, count))
    if not left:
        raise BadInputError(f"{photos.root}: no photo in it can be read")
    picked: list[Chosen] = []
    wanted: tuple[tuple[str, Callable[[_Candidate], float]], ...] = (
        ("the widest", lambda c: c.aspect),
        ("the tallest", lambda c: -c.aspect),
        ("fine texture: a missing antialias shows", lambda c: c.texture),
        ("colour: swapped channels show", lambda c: c.colour),
    )
    turned = [c for c in left if c.photo.orientation != UPRIGHT]
    for candidate in _of_each_orientation(turned)[: max(1, count // 2)]:
        left.remove(candidate)
        picked.append(replace(candidate.photo, note=f"EXIF orientation {candidate.photo.orientation}"))
    for note, key in wanted:
        if left and len(picked) < count:
            best = max(left, key=key)
            left.remove(best)
            picked.append(_noted(best.photo, note))
    for candidate in sorted(left, key=lambda c: -c.texture)[: count - len(picked)]:
        picked.append(_noted(candidate.photo, "fine texture"))
    return picked if turned else _turned(picked)


def _of_each_orientation(turned: list[_Candidate]) -> list[_Candidate]:
    """The most colourful of each orientation, the commonest on phones first."""
    found = {}
    for candidate in sorted(turned, key=lambda c: c.colour):
        found[candidate.photo.orientation] = candidate
    return [found[orientation] for orientation in (6, 8, 3, 5, 7, 2, 4) if orientation in found]


def _turned(picked: list[Chosen]) -> list[Chosen]:
    """Write an orientation into the last photo, and in packs of 6 and more into the last two."""
    for place, orientation in zip((-1, -2)[: 1 if len(picked) < 6 else 2], MADE_ORIENTATIONS, strict=False):
        photo = picked[place]
        data = with_orientation(photo.data, orientation)
        note = f"{photo.note}; EXIF orientation {orientation} written into it, for no photo given had one"
        picked[place] = Chosen(data, _shot(data, "a pack's photo"), orientation, note)
    return picked


def _candidates(photos: ImageSet, contract: Preprocess, count: int) -> Iterator[_Candidate]:
    """Readable photos, spread evenly over those given, in their order; a digest counts once."""
    aliased, swapped = (next(m for m in MISTAKES if m.name == name) for name in (NOT_ANTIALIASED, SWAPPED))
    seen: set[str] = set()
    for position in _positions(photos, count):
        try:
            photo = _read(photos, position)
        except ImageReadError:
            continue
        if photo is None or photo.sha256 in seen:
            continue
        seen.add(photo.sha256)
        right = right_pixels(photo.shot, contract).astype(np.int16)
        wrong = (mistake.pixels(photo.shot, contract).astype(np.int16) for mistake in (aliased, swapped))
        texture, colour = (float(np.abs(pixels - right).mean()) for pixels in wrong)
        yield _Candidate(photo, photo.shot.upright.width / photo.shot.upright.height, texture, colour)


def _positions(photos: ImageSet, count: int) -> list[int]:
    """Up to CANDIDATES, spread evenly: of JPEGs alone where there are enough of them."""
    named = [p for p, item in enumerate(photos.ids) if item.lower().endswith((".jpg", ".jpeg"))]
    among = named if len(named) >= count else list(range(len(photos)))
    places = np.unique(np.linspace(0, len(among) - 1, min(CANDIDATES, len(among))).round().astype(int))
    return [among[place] for place in places.tolist()]


def _read(photos: ImageSet, position: int) -> Chosen | None:
    """The whole photo, as a JPEG: another format is encoded anew, for not every app's decoder reads it."""
    path = photos.path(position)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageReadError(f"{path}: {error.strerror or error}") from None
    image = decode_image(data, str(path))
    note = ""
    with Image.open(io.BytesIO(data)) as stored:
        as_it_is = stored.format == "JPEG" and stored.mode in ("RGB", "L")  # of CMYK every decoder makes other colours
    if not as_it_is:
        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=JPEG_QUALITY)
        data, note = encoded.getvalue(), f"encoded as JPEG from {path.suffix[1:].upper() or 'another format'}"
    if len(data) > MOST_BYTES:
        return None
    return Chosen(data, _shot(data, str(path)), orientation_of(data), note)


def _shot(data: bytes, name: str) -> Shot:
    with Image.open(io.BytesIO(data)) as image:
        stored = image.convert("RGB")
    return Shot(decode_image(data, name), stored)


def _noted(photo: Chosen, note: str) -> Chosen:
    return replace(photo, note="; ".join(part for part in (note, photo.note) if part))


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
    except Exception:  # Pillow raises almost anything for broken EXIF; read_photo takes it as upright too
        return UPRIGHT
    return found if isinstance(found, int) and 1 <= found <= 8 else UPRIGHT


def with_orientation(data: bytes, orientation: int) -> bytes:
    """A JPEG with this orientation and no other EXIF; all of its other segments stay as they are."""
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
