"""Decoding: every format, orientation and mode gives the same RGB pixels; what is not whole is refused, by name."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from encoded_images import encoded
from PIL import Image, ImageCms, ImageFile

from edgecsd.errors import ImageReadError
from edgecsd.photos import decoding
from edgecsd.photos.decoding import MAX_PIXELS, decode_image, read_image

# ---------------------------------------------------------------------------------------------------- finding


def same(image: Image.Image, wanted: Image.Image) -> bool:
    return image.mode == "RGB" and np.array_equal(np.asarray(image), np.asarray(wanted))


def test_the_digest_is_that_of_the_files_bytes(tmp_path: Path, small: Image.Image) -> None:
    small.save(tmp_path / "a.png")
    image, digest = read_image(tmp_path / "a.png")
    assert same(image, small)
    assert digest == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_every_format_decodes(small: Image.Image, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode_image(encoded(small, kind, **options), "x")
    tolerance = {"GIF": 40, "JPEG": 20}.get(kind, 0)  # mean absolute error of a palette, and of JPEG at quality 75
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - np.asarray(small)).mean() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    # The raw pixels, and where TIFF 6.0 says row 0 and column 0 lie: 6 = "row 0 is the right side, column 0 the top".
    raw = np.random.default_rng(0).integers(0, 256, (5, 9, 3), np.uint8)
    transforms = {
        1: raw,
        2: raw[:, ::-1],
        3: raw[::-1, ::-1],
        4: raw[::-1],
        5: raw.transpose(1, 0, 2),
        6: raw.transpose(1, 0, 2)[:, ::-1],
        7: raw.transpose(1, 0, 2)[::-1, ::-1],
        8: raw.transpose(1, 0, 2)[::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(encoded(Image.fromarray(raw), "PNG", exif=exif), "x")
    assert np.array_equal(np.asarray(image), transforms[orientation])
    jpeg = encoded(Image.fromarray(raw), "JPEG", exif=exif)
    assert decode_image(jpeg, "x").size == ((9, 5) if orientation < 5 else (5, 9))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_exif_does_not_lose_the_photo(small: Image.Image, exif: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode_image(encoded(small, "JPEG", exif=exif), "x").size == small.size


def test_an_orientation_that_does_not_exist_is_ignored(small: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert same(decode_image(encoded(small, "PNG", exif=exif), "x"), small)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)  # 0, 257, ..., 65535: exactly 0, 1, ..., 255
    image = decode_image(encoded(Image.fromarray(values), "PNG"), "x")
    assert np.array_equal(np.asarray(image)[..., 0], np.arange(256).reshape(16, 16))
    assert same(image, Image.fromarray(np.asarray(image)[..., 0]).convert("RGB"))


def test_sixteen_bit_tiff_is_scaled_in_both_byte_orders() -> None:
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    little = encoded(Image.fromarray(values), "TIFF")
    big = encoded(Image.frombytes("I;16B", (16, 16), values.astype(">u2").tobytes()), "TIFF")
    for data in (little, big):
        assert np.array_equal(np.asarray(decode_image(data, "x"))[..., 0], np.arange(256).reshape(16, 16))


def test_floating_point_pixels_are_refused_not_shown_black() -> None:
    data = encoded(Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)), "TIFF")
    with pytest.raises(ImageReadError, match="floating-point pixels have no defined range"):
        decode_image(data, "x")


def test_cmyk_becomes_rgb(small: Image.Image) -> None:
    image = decode_image(encoded(small.convert("CMYK"), "JPEG", quality=95), "x")
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - np.asarray(small)).mean() < 12
    assert same(decode_image(encoded(small.convert("CMYK"), "TIFF"), "x"), small.convert("CMYK").convert("RGB"))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_images_become_rgb(small: Image.Image, mode: str) -> None:
    image = small.convert(mode)
    assert same(decode_image(encoded(image, "PNG"), "x"), image.convert("RGB"))


def over_white(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    opacity = alpha[..., None] / 255.0
    return values * opacity + 255.0 * (1 - opacity)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(small: Image.Image, mode: str) -> None:
    alpha = np.linspace(0, 255, 64 * 75).reshape(75, 64).astype(np.uint8)
    image = small.convert("L" if mode == "LA" else "RGB")
    image.putalpha(Image.fromarray(alpha))
    assert image.mode == mode
    colours = np.asarray(image.convert("RGB")).astype(float)
    result = np.asarray(decode_image(encoded(image, "PNG"), "x")).astype(float)
    assert np.abs(result - over_white(colours, alpha)).max() <= 1


def test_palette_transparency_is_laid_over_white(small: Image.Image) -> None:
    palette = small.quantize(16)
    corner = palette.getpixel((0, 0))
    plain = np.asarray(palette.convert("RGB"))
    clear = np.asarray(palette) == corner
    for data in (encoded(palette, "PNG", transparency=corner), encoded(palette, "GIF", transparency=corner)):
        result = np.asarray(decode_image(data, "x"))
        assert (result[clear] == 255).all()
        assert np.array_equal(result[~clear], plain[~clear])
    half = bytes([128] * 16)  # tRNS with one alpha for each colour
    result = np.asarray(decode_image(encoded(palette, "PNG", transparency=half), "x")).astype(float)
    assert np.abs(result - over_white(plain.astype(float), np.full(clear.shape, 128))).max() <= 1


def test_a_transparent_colour_of_an_rgb_png_is_laid_over_white() -> None:
    image = Image.new("RGB", (4, 1), (10, 20, 30))
    image.putpixel((2, 0), (200, 100, 50))
    result = np.asarray(decode_image(encoded(image, "PNG", transparency=(10, 20, 30)), "x"))[0].tolist()
    assert result == [[255, 255, 255], [255, 255, 255], [200, 100, 50], [255, 255, 255]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as check:
        assert check.n_frames == 3
    assert same(decode_image(data, "x"), frames[0])


def test_a_wide_gamut_profile_does_not_stop_decoding(small: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert same(decode_image(encoded(small, "PNG", icc_profile=profile), "x"), small)


# ---------------------------------------------------------------------------------------------------- damaged


@pytest.mark.parametrize("share", [0.001, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("BMP", {}), ("TIFF", {}), ("GIF", {})],
    ids=["jpeg", "progressive", "png", "webp", "bmp", "tiff", "gif"],
)
def test_truncated_files_are_refused(photo: Image.Image, kind: str, options: dict[str, bool], share: float) -> None:
    data = encoded(photo.resize((160, 180)), kind, **options)
    with pytest.raises(ImageReadError, match=r"^cut\.img: "):
        decode_image(data[: int(len(data) * share)], "cut.img")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"these are words, not pixels\n" * 20, "cannot be decoded: not one of JPEG"),
        (b"\xff\xd8\xff", "cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not one of JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not one of JPEG"),
        (bytes(5000), "not one of JPEG"),
    ],
    ids=["empty", "text", "start-of-jpeg", "postscript", "svg", "zeros"],
)
def test_files_that_are_no_images_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(data)
    with pytest.raises(ImageReadError, match=message) as caught:
        read_image(tmp_path / "photo.jpg")
    assert str(caught.value).startswith(f"{tmp_path}/photo.jpg: ")
    assert "0x" not in str(caught.value)  # no memory address: the same text in every run


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (60_000, 60_000), (2**31 - 1, 2)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_header_that_claims_too_many_pixels_is_refused_before_decoding(width: int, height: int) -> None:
    assert width * height > MAX_PIXELS
    with pytest.raises(ImageReadError, match=r"over the limit of 100,000,000|DecompressionBomb"):
        decode_image(png_that_claims(width, height), "bomb.png")


def test_no_pixels_at_all_is_refused() -> None:
    with pytest.raises(ImageReadError):
        decode_image(png_that_claims(0, 5), "none.png")


def test_lenient_pillow_is_noticed(small: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageReadError, match="truncated files would pass for whole ones"):
        decode_image(encoded(small, "JPEG"), "x")


# --------------------------------------------------------------------------------------------------- batching


@pytest.fixture
def fast_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow may open a file, and decodes nothing."""

    def refuse(self: ImageFile.ImageFile) -> None:
        raise AssertionError("Pillow decoded")

    assert decoding.simplejpeg_is_exact()
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", refuse)


@pytest.mark.parametrize("kind", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_fast_decoder_gives_pillows_bits(
    photo: Image.Image, kind: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = [
        encoded(photo.convert(kind), "JPEG", exif=exif, quality=quality, subsampling=s, progressive=s == 2)
        for s in range(3)
        for quality in (40, 95)
    ]
    fast = [decode_image(each, "photo") for each in data]
    monkeypatch.setattr(decoding, "simplejpeg_is_exact", lambda: False)
    assert all(same(one, decode_image(each, "photo")) for one, each in zip(fast, data, strict=True))


def test_jpeg_is_decoded_fast_where_it_can_be(small: Image.Image, fast_only: None) -> None:
    assert decode_image(encoded(small, "JPEG"), "photo").size == small.size
    with pytest.raises(ImageReadError, match="Pillow decoded"):
        decode_image(encoded(small.convert("CMYK"), "JPEG"), "photo")


def test_another_decoder_that_gives_other_bits_is_not_used(small: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    real = decoding._simplejpeg_pixels
    monkeypatch.setattr(decoding, "_simplejpeg_pixels", lambda data, colours: real(data, colours) ^ 1)
    decoding.simplejpeg_is_exact.cache_clear()
    try:
        data = encoded(small, "JPEG")
        assert not decoding.simplejpeg_is_exact()
        assert same(decode_image(data, "photo"), Image.open(io.BytesIO(data)))
    finally:
        decoding.simplejpeg_is_exact.cache_clear()
