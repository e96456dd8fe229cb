"""export --bake: what each target can, what is refused, and the photos that a file takes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from edgecsd.errors import BadInputError
from edgecsd.exporting.photos import baked_size, photos_to_compare
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.whole_photo import ANY_SIZE, PhotoSize, WholePhoto
from edgecsd.targets.metadata import Target


def test_what_each_target_can() -> None:
    assert baked_size(Target.ONNX, None, None) is None
    assert baked_size(Target.ONNX, "resize", None) == ANY_SIZE
    assert baked_size(Target.ONNX, "resize", "480x640") == PhotoSize(height=480, width=640)
    assert baked_size(Target.TFLITE, "resize", "1080x1920") == PhotoSize(height=1080, width=1920)


@pytest.mark.parametrize(
    ("target", "bake", "size", "told"),
    [
        (Target.COREML, "resize", None, "target coreml cannot; onnx can for photos of any size, onnx and tflite"),
        (Target.TFLITE, "resize", None, "one input size: add `bake_size` HEIGHTxWIDTH"),
        (Target.ONNX, None, "480x640", "`bake_size` 480x640 goes with `bake` resize"),
        (Target.ONNX, "crop", None, "`bake` crop: only resize"),
        (Target.ONNX, "resize", "480", "`bake_size` 480: HEIGHTxWIDTH"),
        (Target.ONNX, "resize", "0x640", "a side has 1 to 16384"),
    ],
)
def test_what_is_refused(target: Target, bake: str | None, size: str | None, told: str) -> None:
    with pytest.raises(BadInputError, match=told):
        baked_size(target, bake, size)


def test_a_size_has_both_sides_or_neither() -> None:
    with pytest.raises(ValidationError, match="both, or neither"):
        PhotoSize(height=480)
    assert str(ANY_SIZE) == "any size" and str(PhotoSize(height=4, width=3)) == "4 x 3 pixels (height x width)"


def test_a_whole_photo_goes_in_as_it_is() -> None:
    photo = Image.fromarray(np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3))
    anything = WholePhoto(size=32, photo=ANY_SIZE)
    np.testing.assert_array_equal(anything.pixels(photo), np.asarray(photo))
    assert not anything.one_size and WholePhoto(size=32, photo=PhotoSize(height=4, width=5)).one_size
    with pytest.raises(BadInputError, match=r"a photo of 4 x 5 pixels .* takes 5 x 4 pixels"):
        WholePhoto(size=32, photo=PhotoSize(height=5, width=4)).pixels(photo)
    with pytest.raises(BadInputError, match="mode L"):
        anything.pixels(photo.convert("L"))


def test_within_is_the_contract() -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
    inside = Preprocess(size=32, crop_pct=0.9)
    whole = WholePhoto(**inside.model_dump(), photo=ANY_SIZE)
    np.testing.assert_array_equal(whole.within(np.asarray(photo)[None])[0], inside.pixels(photo))


def test_made_up_photos_are_of_the_sizes_that_the_file_takes() -> None:
    shapes = {photo.shape for photo in photos_to_compare(None, WholePhoto(size=32, photo=ANY_SIZE), 0)}
    assert len(shapes) == 8 and any(h > w for h, w, _ in shapes) and any(h < w for h, w, _ in shapes)
    fixed = photos_to_compare(None, WholePhoto(size=32, photo=PhotoSize(height=50, width=30)), 0)
    assert {photo.shape for photo in fixed} == {(50, 30, 3)}
