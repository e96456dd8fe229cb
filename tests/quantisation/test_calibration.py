"""Calibration pixels: chosen by the seed alone, read by the pixel contract."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgecsd.errors import BadInputError
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.decoding import read_image
from edgecsd.photos.finding import find_images
from edgecsd.quantisation.calibration import calibration_split, first_pixels, synthetic_pixels
from edgecsd.quantisation.precisions import Precision, parse_precision

PREPROCESS = Preprocess(size=32)


def test_the_choice_depends_on_the_seed_alone(photos: Path) -> None:
    images = find_images(photos)
    pixels, digest, _ = calibration_split(images, PREPROCESS, count=10, seed=4)
    again, same, _ = calibration_split(images, PREPROCESS, count=10, seed=4)
    _, other, _ = calibration_split(images, PREPROCESS, count=10, seed=5)
    assert pixels.shape == (10, 32, 32, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, again)
    assert digest == same != other
    order = np.random.default_rng(4).permutation(len(images))
    np.testing.assert_array_equal(pixels[3], PREPROCESS.pixels(read_image(images.path(int(order[3])))[0]))


def test_unreadable_images_are_replaced_by_the_next(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    images = find_images(folder)
    order = [int(p) for p in np.random.default_rng(0).permutation(len(images))]
    images.path(order[1]).write_bytes(b"no image")
    pixels, _, others = calibration_split(images, PREPROCESS, count=9)
    assert others.ids == tuple(images.ids[position] for position in order[10:])
    for row, position in enumerate([order[0], *order[2:10]]):
        np.testing.assert_array_equal(pixels[row], PREPROCESS.pixels(read_image(images.path(position))[0]))


def test_copies_of_what_calibrates_are_not_compared_on(photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    pixels, _, others = calibration_split(find_images(folder), PREPROCESS, count=9)
    known = set(others.ids)
    shutil.copy(folder / next(item for item in find_images(folder).ids if item not in known), folder / "copy.jpg")
    found = first_pixels(find_images(folder), PREPROCESS, 100, but=pixels)
    np.testing.assert_array_equal(
        found,
        first_pixels(
            find_images(photos).subset(sorted(find_images(photos).ids.index(item) for item in others.ids)),
            PREPROCESS,
            100,
            but=pixels[:0],
        ),
    )


def test_a_small_set_gives_all_it_has(photos: Path) -> None:
    images = find_images(photos)
    assert len(calibration_split(images, PREPROCESS, count=500)[0]) == len(images)


def test_too_few_images_are_refused(photos: Path, tmp_path: Path) -> None:
    images = find_images(photos).subset(range(5))
    with pytest.raises(BadInputError, match="8 or more readable images are needed, it has 5"):
        calibration_split(images, PREPROCESS)
    with pytest.raises(BadInputError, match="3 calibration images are too few"):
        calibration_split(find_images(photos), PREPROCESS, count=3)
    for number in range(9):
        (tmp_path / f"{number}.jpg").write_bytes(b"broken")
    with pytest.raises(BadInputError, match=r"it has 0; the last unreadable one: .*\.jpg"):
        calibration_split(find_images(tmp_path), PREPROCESS)


def test_synthetic_images_are_seeded_and_look_like_photos() -> None:
    images = synthetic_pixels(64, 4, seed=1)
    np.testing.assert_array_equal(images, synthetic_pixels(64, 4, seed=1))
    assert not np.array_equal(images, synthetic_pixels(64, 4, seed=2))
    assert images.shape == (4, 64, 64, 3) and images.dtype == np.uint8
    steps = np.abs(np.diff(images.astype(float), axis=2)).mean()
    assert 20 < images.std() < 80 and steps < 0.7 * images.std()  # white noise: 1.13


def test_precisions_by_name() -> None:
    assert [parse_precision(p) for p in ("fp32", "fp16", "w8a32", "w8a8")] == list(Precision)
    with pytest.raises(BadInputError, match=r"'int8' is not known .*choose one of: fp32, fp16, w8a32, w8a8"):
        parse_precision("int8")
