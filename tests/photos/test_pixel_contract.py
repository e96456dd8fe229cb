"""The pixel contract."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.photos.boxes import Box, box_from_cells, box_from_numbers
from edgecsd.photos.contract import Interpolation, Preprocess, Resize, preprocess_from_json


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
@pytest.mark.parametrize("resize", [Resize.SQUASH, Resize.SHORTER_SIDE])
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


# ---------------------------------------------------------------------------------------------- longer side

LONGER = Preprocess(size=200, resize=Resize.LONGER_SIDE)


def test_longer_side_keeps_the_aspect_ratio(photo: Image.Image) -> None:
    pixels = LONGER.pixels(photo)  # 512 x 600: 200 / 600 of both
    assert pixels.shape == (200, 171, 3)
    assert np.array_equal(pixels, np.asarray(photo.resize((171, 200), Image.Resampling.BILINEAR)))


def test_its_sizes_are_those_of_pillows_thumbnail() -> None:
    """The resizing that the authors of the protocol use."""
    random = np.random.default_rng(1)
    shapes = [(1, 1), (1, 900), (900, 1), (400, 400), (201, 200), (200, 201), (1200, 3)]
    shapes += [(int(w), int(h)) for w, h in random.integers(1, 900, (25, 2))]
    for width, height in shapes:
        for scale in (1.0, 0.731, 1 / 3):
            image = Image.new("RGB", (width, height))
            shape = LONGER.pixels(image, scale).shape
            image.thumbnail((200 * scale, 200 * scale))
            assert shape == (image.height, image.width, 3), (width, height, scale)


def test_longer_side_never_enlarges(photo: Image.Image) -> None:
    assert np.array_equal(LONGER.at_size(1024).pixels(photo), np.asarray(photo))
    assert LONGER.pixels(photo.resize((50, 20))).shape == (20, 50, 3)


def test_a_crop_is_shown_at_the_scale_of_the_whole_image(photo: Image.Image) -> None:
    """Longer side of the crop = size * longer side of the crop / longer side of the image, rounded down."""
    crop = photo.crop((0, 0, 256, 300))
    assert LONGER.pixels(crop, 300 / 600).shape == (100, 85, 3)
    assert LONGER.pixels(crop, 300 / 600).shape != LONGER.pixels(crop).shape
    whole = LONGER.pixels(photo).astype(int)[:90, :80]
    assert np.abs(LONGER.pixels(crop, 300 / 600)[:90, :80] - whole).mean() < 6  # the same thing at the same size
    assert LONGER.pixels(crop, 1e-9).shape == (1, 1, 3)


@pytest.mark.parametrize("resize", [Resize.SQUASH, Resize.SHORTER_SIDE])
def test_squares_do_not_heed_the_scale(photo: Image.Image, resize: Resize) -> None:
    contract = Preprocess(size=64, resize=resize)
    assert np.array_equal(contract.pixels(photo, 0.25), contract.pixels(photo))
    contract.require_square("export")


def test_where_a_square_is_needed_longer_side_is_refused() -> None:
    with pytest.raises(
        IncompatibleError, match=r"export needs .* one square size.*longer-side.*squash or shorter-side"
    ):
        LONGER.require_square("export")


def test_fingerprints_made_before_there_was_longer_side_hold() -> None:
    """SHA-256 of the canonical JSON, written out: no field has come to the contract."""
    space = EmbeddingSpace(gallery_model="m", preprocess=Preprocess(size=64), dim=2)
    canonical = (
        '{"dim":2,"gallery_model":"m","metric":"cosine","preprocess":{"crop_pct":1.0,"interpolation":"bilinear",'
        '"mean":[0.5,0.5,0.5],"resize":"squash","size":64,"std":[0.5,0.5,0.5]},"weights_digest":null,"whitening":null}'
    )
    assert space.fingerprint == "es1-" + hashlib.sha256(canonical.encode()).hexdigest()[:32]


# ---------------------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize("box", [(136.5, 34.1, 400.5, 555.7), (0.5, 1.5, 2.5, 3.5), (-0.5, -0.4, 512.4, 600.5)])
def test_boxes_crop_as_pillow_crops_by_floats(photo: Image.Image, box: tuple[float, float, float, float]) -> None:
    ours, pillows = Box(*box).crop(photo), photo.crop(box)
    assert ours.size == pillows.size and ours.tobytes() == pillows.tobytes()
    assert Box(*box).problem(512, 600) == ""


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((10, 10, 10, 20), "empty"),
        ((10, 10, 20, 5), "empty"),
        ((10.1, 10, 10.4, 20), "empty"),
        ((512, 0, 600, 50), "outside the image of 512 x 600"),
        ((-9, -9, -1, -1), "outside"),
        ((0, 0, 1024, 1200), "outside"),
        ((0, 0, 524, 600), "outside"),
        ((-1e300, 0, 5, 5), "outside"),
    ],
)
def test_boxes_that_cannot_be_cut_out(box: tuple[float, float, float, float], words: str) -> None:
    assert words in Box(*box).problem(512, 600)


def test_a_little_overhang_is_black(photo: Image.Image) -> None:
    box = Box(-5, 0, 100, 612)  # 2 % of 512 and of 600 are 10 and 12
    assert box.problem(512, 600) == ""
    pixels = np.asarray(box.crop(photo))
    assert pixels.shape == (612, 105, 3) and not pixels[:, :5].any() and not pixels[600:].any()


def test_boxes_from_files() -> None:
    assert box_from_numbers(None, "x") is None
    assert box_from_numbers([1, 2.5, 3, 4], "x") == Box(1, 2.5, 3, 4)
    assert box_from_cells(["", " ", "", ""], "x") is None
    assert box_from_cells([" 1", "2.5", "3e0", "4"], "x") == Box(1, 2.5, 3, 4)
    for values in ([1, 2, 3], "1234", 5, [1, 2, 3, "4"], [True, 1, 2, 3], [1, 2, 3, 10**400], {}):
        with pytest.raises(BadInputError, match=r"^here: "):
            box_from_numbers(values, "here")
    for cells in (["1", "", "", ""], ["a", "1", "2", "3"], ["1", "2", "3", "inf"]):
        with pytest.raises(BadInputError, match=r"^here: "):
            box_from_cells(cells, "here")
