"""What files state of the pixel contract, against what the code makes of an encoded photo."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from edgecsd.models.backbones import to_input
from edgecsd.photos.contract import PIXEL_STEPS, PixelSteps, Preprocess
from edgecsd.photos.decoding import decode_image

Floats = NDArray[np.float64]
CONTRACT = Preprocess(size=16, resize="shorter-side", crop_pct=0.8, mean=(0.1, 0.2, 0.3), std=(0.2, 0.3, 0.4))
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()  # whatever it means, values stay


def stored() -> NDArray[np.uint8]:
    """(60, 80, 4): a picture with transparency, as it lies in the file."""
    rows, columns = np.mgrid[:60, :80]
    colours = [rows * 4, columns * 3, (rows * columns) % 256, 255 - rows * 2]
    return np.stack(colours, axis=-1).astype(np.uint8)


def encoded() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    buffer = io.BytesIO()
    Image.fromarray(stored()).save(buffer, "PNG", exif=exif, icc_profile=LAB)
    return buffer.getvalue()


def by_the_statement() -> tuple[Floats, Floats]:
    """The pixels and the network's input, from the words alone, without edgecsd and without Pillow."""
    upright = np.rot90(stored(), -1).astype(float)  # orientation: applied; colour_profile: ignored
    opacity = upright[..., 3:] / 255
    colours = upright[..., :3] * opacity + 255 * (1 - opacity)  # transparency: over white; channels: RGB
    height, width = colours.shape[:2]
    side = CONTRACT.crop_pct * min(height, width)  # crop: the centre square of crop_pct x shorter side
    rows, columns = (triangle((length - side) / 2, side, length) for length in (height, width))
    pixels = np.einsum("yi,xj,ijc->yxc", rows, columns, colours).round()  # antialias; resized: uint8
    return pixels, (pixels / 255 - CONTRACT.mean) / CONTRACT.std  # scale, normalised


def triangle(begin: float, side: float, length: int) -> Floats:
    """(size, length): the bilinear filter's weights, as wide as the picture shrinks."""
    factor = side / CONTRACT.size
    centres = begin + (np.arange(CONTRACT.size) + 0.5) * factor
    weights = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centres[:, None]) / factor)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def test_the_code_does_what_files_state() -> None:
    pixels = CONTRACT.pixels(decode_image(encoded(), "a.png"))
    wanted, network = by_the_statement()
    assert pixels.shape == (16, 16, 3) and pixels.dtype == PIXEL_STEPS.resized
    assert np.abs(pixels - wanted).max() <= 1  # Pillow rounds after each direction, and where it lays over white
    given = to_input(pixels[None], CONTRACT)[0].permute(1, 2, 0).numpy()
    assert np.abs(given - network).max() <= 1 / 255 / 0.2 + 1e-6
    np.testing.assert_allclose(
        given, (pixels * PIXEL_STEPS.scale - CONTRACT.mean) / np.asarray(CONTRACT.std), atol=1e-6
    )


def test_16_bit_grey_is_divided_as_stated() -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    decoded = np.asarray(decode_image(buffer.getvalue(), "a.png"))
    np.testing.assert_array_equal(decoded[..., 1], (values / PIXEL_STEPS.grey_16_divisor).round())


@pytest.mark.parametrize("name", PixelSteps.model_fields)
def test_a_step_that_differs_is_named(name: str) -> None:
    was = getattr(PIXEL_STEPS, name)
    other = not was if isinstance(was, bool) else was * 2
    changed = PIXEL_STEPS.model_copy(update={name: other})
    assert changed.differing(PIXEL_STEPS) == [f"{name} {other!r}, not {was!r}"]
    assert PIXEL_STEPS.differing(PIXEL_STEPS) == []
