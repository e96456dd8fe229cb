"""Reading images: decoding in order and in threads, and cropping to boxes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from encoded_images import encoded
from PIL import Image, ImageOps

from edgecsd.photos.boxes import Box
from edgecsd.photos.decoding import photo_digest, read_image, read_photo
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import load_in_order, load_photos

# --------------------------------------------------------------------------------------------------- decoding


def as_arrays(_: int, image: Image.Image) -> tuple[np.ndarray, ...]:
    return (np.asarray(ImageOps.fit(image, (8, 8))),)


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (4, 3), (8, 64)])
def test_results_come_in_the_order_asked_for(photos: Path, workers: int, ahead: int) -> None:
    found = find_images(photos)
    positions = [5, 3, 3, 23, 0, *range(24)]
    items = list(load_in_order(found, positions, as_arrays, workers=workers, ahead=ahead))
    assert [item.position for item in items] == positions
    for item in items:
        image, digest = read_image(found.path(item.position))
        assert item.digest == digest
        assert np.array_equal(item.arrays[0], as_arrays(0, image)[0])


def test_bad_files_are_named_among_the_good(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "p")
    (tmp_path / "p" / "empty.jpg").touch()
    (tmp_path / "p" / "cut.jpg").write_bytes((photos / "photo-00.jpg").read_bytes()[:900])
    found = find_images(tmp_path / "p")
    items = list(load_in_order(found, range(len(found)), as_arrays))
    assert sorted(found.ids[i.position] for i in items if i.problem) == ["cut.jpg", "empty.jpg"]
    assert all(not i.arrays and not i.digest for i in items if i.problem)


def test_decoding_in_threads_changes_no_global_state(photos: Path) -> None:
    found, before = find_images(photos), list(warnings.filters)
    list(load_in_order(found, list(range(24)) * 4, as_arrays, workers=8))
    assert list(warnings.filters) == before


def test_a_programming_error_is_not_taken_for_a_bad_file(photos: Path) -> None:
    def broken(position: int, image: Image.Image) -> tuple[np.ndarray, ...]:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        list(load_in_order(find_images(photos), range(24), broken))


def test_stopping_early_ends_the_threads(photos: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from edgecsd.photos.finding import find_images\n"
        "from edgecsd.photos.images import load_in_order\n"
        "items = load_in_order(find_images(Path(sys.argv[1])), range(24), lambda p, image: ())\n"
        "next(items); print('stopped')"
    )
    done = subprocess.run([sys.executable, "-c", program, photos], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("stopped\n", "", 0)


# ------------------------------------------------------------------------------------------------------ boxes


def test_a_box_counts_in_pixels_of_the_upright_image(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # row 0 is the right side: upright it is 50 wide and 90 high
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(raw), "PNG", exif=exif))
    upright = raw.transpose(1, 0, 2)[:, ::-1]
    photo = read_photo(tmp_path / "a.png", Box(10, 60.5, 40.5, 90))  # halves to even: 60 and 40
    assert np.array_equal(np.asarray(photo.image), upright[60:90, 10:40])
    assert photo.scale == 30 / 90


def test_the_digest_of_a_crop_is_its_own_and_names_the_photo(tmp_path: Path, small: Image.Image) -> None:
    small.save(tmp_path / "a.png")
    file = tmp_path / "a.png"
    own = hashlib.sha256(file.read_bytes()).hexdigest()
    digests = [read_photo(file, box).digest for box in (None, Box(0, 0, 9, 9), Box(0, 0, 64, 75), Box(0.2, 0, 9, 9))]
    assert digests[0] == own
    assert len(set(digests[:3])) == 3
    assert digests[3] == digests[1]  # the same pixels
    assert {photo_digest(digest) for digest in digests} == {own}
    assert photo_digest("") == ""


def test_photos_with_a_bad_box_are_named_and_not_fatal(tmp_path: Path, small: Image.Image) -> None:
    for name in ("a.png", "b.png", "c.png"):
        small.save(tmp_path / name)
    boxes = {"a.png": Box(100, 0, 120, 50), "b.png": Box(5, 5, 5, 9), "c.png": Box(5, 5, 20, 30)}
    images = find_images(tmp_path).with_boxes(boxes)
    first, second, third = load_photos(images, range(3), lambda p, photo: (np.array(photo.image),))
    assert first.problem.startswith(
        f"{tmp_path / 'a.png'}: its box (100, 0, 120, 50) lies outside the image of 64 x 75"
    )
    assert second.problem.startswith(f"{tmp_path / 'b.png'}: its box (5, 5, 5, 9) is empty")
    assert not third.problem and np.array_equal(third.arrays[0], np.asarray(small)[5:30, 5:20])
    assert next(load_in_order(images, [2], as_arrays)).digest == third.digest
