"""The pixel contract."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from edgecsd.errors import BadInputError
from edgecsd.preprocess import Interpolation, Preprocess, Resize, preprocess_from_json


@pytest.mark.parametrize("interpolation", list(Interpolation))
def test_squash_is_pillows_resize(photo: Image.Image, interpolation: Interpolation) -> None:
    pixels = Preprocess(size=64, interpolation=interpolation).pixels(photo)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.asarray(photo.resize((64, 64), filters[interpolation.value])))


def test_shorter_side_takes_the_centre_square(photo: Image.Image) -> None:
    pixels = Preprocess(size=64, resize=Resize.SHORTER_SIDE).pixels(photo)  # 512 x 600: 44 rows off each end
    cropped = np.asarray(photo.crop((0, 44, 512, 556)).resize((64, 64), Image.Resampling.BILINEAR))
    # Pillow's filter looks past the box into the image, so the rows at the cut differ from those of a real crop.
    assert np.array_equal(pixels[2:-2], cropped[2:-2])


def test_crop_pct_keeps_that_share_of_the_shorter_side(photo: Image.Image) -> None:
    pixels = Preprocess(size=64, resize=Resize.SHORTER_SIDE, crop_pct=0.875).pixels(photo)  # 448 of 512
    cropped = np.asarray(photo.crop((32, 76, 480, 524)).resize((64, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(pixels[2:-2, 2:-2], cropped[2:-2, 2:-2])


def test_resize_then_crop_agrees_with_crop_in_one_step(photo: Image.Image) -> None:
    """The usual two steps, shorter side to round(size / crop_pct) and then the centre, differ by rounding only."""
    pixels = Preprocess(size=224, resize=Resize.SHORTER_SIDE, crop_pct=0.875).pixels(photo).astype(int)
    resized = photo.resize((256, 300), Image.Resampling.BILINEAR)
    usual = np.asarray(resized.crop((16, 38, 240, 262))).astype(int)
    assert np.abs(pixels - usual).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 2)])
@pytest.mark.parametrize("resize", list(Resize))
def test_extreme_shapes_give_squares(size: tuple[int, int], resize: Resize) -> None:
    pixels = Preprocess(size=32, resize=resize, crop_pct=0.875).pixels(Image.new("RGB", size, (10, 20, 30)))
    assert pixels.shape == (32, 32, 3)
    assert np.array_equal(np.unique(pixels.reshape(-1, 3), axis=0), [[10, 20, 30]])


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P"])
def test_only_rgb_enters(mode: str) -> None:
    with pytest.raises(BadInputError, match=f"not mode {mode}"):
        Preprocess(size=32).pixels(Image.new(mode, (40, 40)))


def test_it_is_frozen_and_comes_back_from_json() -> None:
    contract = Preprocess(size=224, resize=Resize.SHORTER_SIDE, crop_pct=0.875, mean=(0.485, 0.456, 0.406))
    assert preprocess_from_json(contract.model_dump(mode="json"), "test") == contract
    assert hash(contract) == hash(contract.at_size(224))
    with pytest.raises(ValidationError):
        contract.size = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "size"),
        ({"size": 8}, "size"),
        ({"size": 5000}, "size"),
        ({"size": 224, "resize": "stretch"}, "resize"),
        ({"size": 224, "crop_pct": 0.0}, "crop_pct"),
        ({"size": 224, "crop_pct": float("nan")}, "crop_pct"),
        ({"size": 224, "interpolation": "nearest"}, "interpolation"),
        ({"size": 224, "std": [0.5, 0.5, 0.0]}, "std"),
        ({"size": 224, "mean": [0.5, 0.5]}, "mean"),
        ({"size": 224, "mean": [0.5, 0.5, float("inf")]}, "mean"),
        ({"size": 224, "colour": "bgr"}, "colour"),
        ([], "value"),
    ],
)
def test_a_bad_contract_names_the_file_and_the_field(data: object, field: str) -> None:
    with pytest.raises(BadInputError, match=rf"contract\.json: not a valid pixel contract: {field}"):
        preprocess_from_json(data, "contract.json")


@pytest.mark.parametrize("size", [0, -1, 15, 2049])
def test_a_bad_size_is_an_input_error(size: int) -> None:
    with pytest.raises(BadInputError, match=f"input size {size}"):
        Preprocess(size=64).at_size(size)
