"""The photos of a pack are those on which mistakes show, and an orientation is written without touching the pixels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from edgecsd.errors import BadInputError
from edgecsd.golden.choosing import STORED, choose_photos, orientation_of, with_orientation
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.decoding import decode_image
from edgecsd.photos.finding import find_images

CONTRACT = Preprocess(size=48)


def jpeg(image: Image.Image, **options: object) -> bytes:
    image.save(buffer := io.BytesIO(), "JPEG", quality=90, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("before", ["none", "exif", "profile and comment"])
def test_an_orientation_is_written_and_the_scan_untouched(photo: Image.Image, orientation: int, before: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 3, "a camera"
    options = {"exif": exif} if before == "exif" else {"icc_profile": b"x" * 300, "comment": b"hello"}
    data = jpeg(photo.crop((0, 0, 120, 80)), **({} if before == "none" else options))
    written = with_orientation(data, orientation)
    assert orientation_of(written) == orientation
    with Image.open(io.BytesIO(written)) as image, Image.open(io.BytesIO(data)) as original:
        assert np.array_equal(np.asarray(image), np.asarray(original))
        assert image.info.get("icc_profile") == original.info.get("icc_profile")
        assert image.info.get("comment") == original.info.get("comment")
        assert image.getexif().get(0x010F) is None and image.info["jfif"] == original.info["jfif"]
    scan = data[data.index(b"\xff\xda") :]
    assert written.endswith(scan)


@pytest.mark.parametrize("orientation", STORED)
def test_stored_is_the_inverse_of_what_a_reader_applies(photo: Image.Image, orientation: int) -> None:
    upright = photo.crop((0, 0, 120, 80))
    stored = upright.transpose(STORED[orientation])
    exif = stored.getexif()
    exif[0x0112] = orientation
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(stored)), np.asarray(upright))


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\x04ab", b"\xff\xd8no marker"])
def test_what_is_no_jpeg_takes_no_orientation(data: bytes) -> None:
    with pytest.raises(BadInputError, match="JPEG"):
        with_orientation(data, 6)
    with pytest.raises(BadInputError, match="1 to 8"):
        with_orientation(data, 9)


def test_one_is_made_where_no_photo_has_an_orientation(photos: Path) -> None:
    chosen = choose_photos(find_images(photos), CONTRACT, 8)
    assert [each.orientation for each in chosen] == [1] * 6 + [3, 6]
    for each in chosen:
        assert orientation_of(each.data) == each.orientation
        assert np.array_equal(np.asarray(each.shot.upright), np.asarray(decode_image(each.data, "chosen")))
    assert "written into it, for no photo given had one" in chosen[-1].note
    stored, upright = chosen[-1].shot.stored, chosen[-1].shot.upright
    assert np.array_equal(np.asarray(stored.transpose(Image.Transpose.ROTATE_270)), np.asarray(upright))


def test_the_widest_the_tallest_the_finest_and_the_most_colourful(photo: Image.Image, tmp_path: Path) -> None:
    flat = photo.resize((16, 16)).resize((200, 200)).convert("L").convert("RGB")
    for number in range(5):
        flat.rotate(number).crop((20, 20, 180, 170)).save(tmp_path / f"{number}.jpg")
    photo.crop((0, 100, 500, 200)).save(tmp_path / "wide.jpg")
    photo.crop((100, 0, 180, 600)).save(tmp_path / "tall.jpg")
    noise = np.random.default_rng(0).integers(0, 256, (200, 210, 1), np.uint8).repeat(3, 2)
    Image.fromarray(noise).save(tmp_path / "fine.jpg")
    Image.new("RGB", (200, 210), (250, 20, 10)).save(tmp_path / "red.jpg")
    turned = with_orientation(jpeg(photo.crop((0, 0, 150, 140))), 8)
    (tmp_path / "turned.jpg").write_bytes(turned)
    chosen = choose_photos(find_images(tmp_path), CONTRACT, 5)
    names = [next(path.name for path in tmp_path.iterdir() if path.read_bytes() == each.data) for each in chosen]
    assert names == ["turned.jpg", "wide.jpg", "tall.jpg", "fine.jpg", "red.jpg"]
    assert [each.orientation for each in chosen] == [8, 1, 1, 1, 1]


def test_copies_count_once_and_other_formats_become_jpegs(photo: Image.Image, tmp_path: Path) -> None:
    photo.crop((0, 0, 150, 140)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    photo.crop((0, 0, 150, 140)).convert("CMYK").save(tmp_path / "c.jpg")
    chosen = choose_photos(find_images(tmp_path), CONTRACT, 8)
    assert len(chosen) == 2 and all(each.data.startswith(b"\xff\xd8") for each in chosen)
    assert all("encoded as JPEG" in each.note for each in chosen)
    with Image.open(io.BytesIO(chosen[0].data)) as image:
        assert image.mode == "RGB"
    with pytest.raises(BadInputError, match="1 photo or more"):
        choose_photos(find_images(tmp_path), CONTRACT, 0)
