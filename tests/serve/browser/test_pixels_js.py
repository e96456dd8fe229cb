"""pixels.js against the pixel contract in Python, to the bit: from the same pixels, and from encoded photos."""

from __future__ import annotations

import io
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from devtools import Chromium
from numpy.typing import NDArray
from PIL import Image, ImageCms
from screens import start
from web_folder import pixels_js, served, visit

from edgecsd.golden.choosing import STORED, with_orientation
from edgecsd.photos.contract import Interpolation, Preprocess, Resize
from edgecsd.photos.decoding import decode_image

PAGE = """<!doctype html><script type="module">
import { decode, outputSize, preprocess } from "./pixels.js";
const bytes = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
const text = (data) => { let out = ""; for (const each of data) out += String.fromCharCode(each); return btoa(out); };
window.pixels = (rgba, width, height, contract, scale) => text(preprocess(bytes(rgba), width, height, contract, scale));
window.outputSize = outputSize;
window.photo = async (data) => {
  const { rgba, width, height } = await decode(new Blob([bytes(data)]));
  return { rgba: text(rgba), width, height };
};
</script>"""
SIZES = ((640, 480), (333, 501), (37, 900), (20, 17), (500, 16), (64, 64), (48, 48))
CONTRACTS = [
    Preprocess(size=size, resize=resize, interpolation=interpolation, crop_pct=crop)
    for size in (64, 33)
    for resize in (Resize.SQUASH, Resize.SHORTER_SIDE, Resize.LONGER_SIDE)
    for interpolation in Interpolation
    for crop in ((1.0, 0.875) if resize is Resize.SHORTER_SIDE else (1.0,))
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    folder = tmp_path_factory.mktemp("pixels")
    (folder / "index.html").write_text(PAGE)
    (folder / "pixels.js").write_bytes(pixels_js().read_bytes())
    with served(folder) as address, start(tmp_path_factory.mktemp("profile")) as browser:
        visit(browser, f"{address}/index.html")
        yield browser


def ask(page: Chromium, function: str, *arguments: object) -> Any:
    return page.evaluate(f"{function}({', '.join(json.dumps(each) for each in arguments)})")


def tensor(page: Chromium, pixels: NDArray[np.uint8], contract: Preprocess, scale: float = 1.0) -> NDArray[np.uint8]:
    """What pixels.js makes of (h, w, 3 or 4) pixels: (h, w, 3)."""
    height, width = pixels.shape[:2]
    facts = contract.model_dump(mode="json")
    encoded = ask(page, "pixels", b64encode(pixels.tobytes()).decode(), width, height, facts, scale)
    size = ask(page, "outputSize", width, height, facts, scale)
    data = np.frombuffer(b64decode(encoded), np.uint8)
    return data.reshape(size["height"], size["width"], 3)


def decoded(page: Chromium, data: bytes) -> NDArray[np.uint8]:
    """(h, w, 4) as the browser decodes an encoded photo."""
    answer = ask(page, "photo", b64encode(data).decode())
    rgba = np.frombuffer(b64decode(answer["rgba"]), np.uint8)
    return rgba.reshape(answer["height"], answer["width"], 4)


def noise(width: int, height: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(width).integers(0, 256, (height, width, channels), np.uint8)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    image.save(buffer := io.BytesIO(), format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.resize}-{c.interpolation}-{c.size}-{c.crop_pct}")
def test_equal_to_the_bit_from_the_same_pixels(page: Chromium, contract: Preprocess) -> None:
    for width, height in SIZES:
        pixels = noise(width, height)
        assert np.array_equal(tensor(page, pixels, contract), contract.pixels(Image.fromarray(pixels))), (width, height)


@pytest.mark.parametrize("scale", [0.37, 0.05, 1.0])
def test_the_scale_of_a_crop_is_kept(page: Chromium, scale: float) -> None:
    contract = Preprocess(size=64, resize=Resize.LONGER_SIDE)
    for width, height in SIZES:
        pixels = noise(width, height)
        assert np.array_equal(tensor(page, pixels, contract, scale), contract.pixels(Image.fromarray(pixels), scale))


def test_transparency_lies_over_white(page: Chromium) -> None:
    pixels = noise(90, 70, 4)
    pixels[:20, :, 3], pixels[20:40, :, 3] = 0, 255
    right = decode_image(encoded(Image.fromarray(pixels), "PNG"), "transparent")
    contract = Preprocess(size=33)
    assert np.array_equal(tensor(page, pixels, contract), contract.pixels(right))


def test_what_is_no_contract_is_refused(page: Chromium) -> None:
    pixels = b64encode(noise(8, 8).tobytes()).decode()
    for change in ({"resize": "stretch"}, {"interpolation": "lanczos"}, {"interpolation": "toString"}, {"size": "64"}):
        contract = {**Preprocess(size=64).model_dump(mode="json"), **change}
        with pytest.raises(RuntimeError, match="not a pixel contract"):
            ask(page, "pixels", pixels, 8, 8, contract, 1)
    with pytest.raises(RuntimeError, match="are 192 or 256 bytes, not 191"):
        short = b64encode(noise(8, 8).tobytes()[:-1]).decode()
        ask(page, "pixels", short, 8, 8, Preprocess(size=64).model_dump(mode="json"), 1)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 90, "subsampling": 0}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 90}),
    ],
    ids=["jpeg", "jpeg-444", "progressive", "png", "webp-lossless", "webp"],
)
def test_chromium_decodes_as_pillow_does(
    page: Chromium, photo: Image.Image, format: str, options: dict[str, Any]
) -> None:
    data = encoded(photo.crop((90, 60, 401, 317)), format, **options)
    found, right = decoded(page, data), np.asarray(decode_image(data, format))
    assert found.shape == (257, 311, 4)
    assert np.array_equal(found[..., :3], right)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied(page: Chromium, photo: Image.Image, orientation: int) -> None:
    upright = photo.crop((90, 60, 410, 300))
    stored = upright.transpose(STORED[orientation]) if orientation in STORED else upright
    data = with_orientation(encoded(stored, "JPEG", quality=95), orientation)
    found, right = decoded(page, data)[..., :3], np.asarray(decode_image(data, "turned"))
    assert found.shape == (240, 320, 3) and np.array_equal(found, right)
    assert np.abs(found.astype(np.int16) - np.asarray(upright)).mean() < 3


def test_a_profile_is_left_alone(page: Chromium, photo: Image.Image) -> None:
    """As Pillow leaves it: the gallery's pixels were not converted either."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"????"), (b"bXYZ", b"rXYZ"), (b"????", b"bXYZ")):  # red's primary is blue's
        profile = profile.replace(old, new)
    data = encoded(photo.crop((90, 60, 290, 210)), "JPEG", quality=95, icc_profile=profile)
    assert np.array_equal(decoded(page, data)[..., :3], np.asarray(decode_image(data, "profile")))
