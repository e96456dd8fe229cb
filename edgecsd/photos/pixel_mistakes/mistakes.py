"""The named pixel mistakes themselves: functions of a photo and the right pixel contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecsd.photos.contract import Preprocess, Resize

Pixels = NDArray[np.uint8]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Shot:
    """A photo as the contract starts from it (upright, RGB), and as it lies in its file, EXIF orientation not applied.

    scale  as in images.Photo: what share of the whole image's longer side a crop has
    """

    upright: Image.Image
    stored: Image.Image
    scale: float = 1.0


@dataclass(frozen=True)
class PixelMistake:
    """One mistake. pixels: what the network is given in place of the contract's (size, size, 3) uint8 array.

    seen_as  the contract whose mean and std have the same effect as the mistake, where it is one of normalisation: the
             pixels are right then, and the network subtracts and divides by other numbers
    """

    name: str
    pixels: Callable[[Shot, Preprocess], Pixels]
    seen_as: Callable[[Preprocess], Preprocess] | None = None


def right_pixels(shot: Shot, contract: Preprocess) -> Pixels:
    """What the contract asks for."""
    return contract.pixels(shot.upright, shot.scale)


def _resized(filter: Image.Resampling) -> Callable[[Shot, Preprocess], Pixels]:
    """The contract's resize and crop by another of Pillow's antialiased filters."""

    def pixels(shot: Shot, contract: Preprocess) -> Pixels:
        box = _source_box(shot.upright, contract)
        return _array(shot.upright.resize(_side(shot, contract), filter, box=box))

    return pixels


def _not_antialiased(filter: Image.Resampling) -> Callable[[Shot, Preprocess], Pixels]:
    """The contract's resize and crop with samples of the source at pixel centres: OpenCV's, a GPU sampler's way."""

    def pixels(shot: Shot, contract: Preprocess) -> Pixels:
        box = _source_box(shot.upright, contract)
        return _array(shot.upright.transform(_side(shot, contract), Image.Transform.EXTENT, box, filter))

    return pixels


def _cropped_afterwards(shot: Shot, contract: Preprocess) -> Pixels:
    """torchvision's Resize and CenterCrop, as timm's evaluation has them: whole pixels twice."""
    return _array(_centre(_enlarged_frame(shot, contract, True), contract.size))


def _cropped_afterwards_not_antialiased(shot: Shot, contract: Preprocess) -> Pixels:
    """Resize as OpenCV or a tensor does: bilinear, from four pixels each."""
    return _array(_centre(_enlarged_frame(shot, contract, False), contract.size))


def _cropped_beforehand_not_antialiased(shot: Shot, contract: Preprocess) -> Pixels:
    """A crop in whole pixels, then four pixels for each: Android's Bitmap, OpenCV, torch's interpolate."""
    box = _source_box(shot.upright, contract)
    part = shot.upright.crop((round(box[0]), round(box[1]), round(box[2]), round(box[3])))
    whole = (0.0, 0.0, float(part.width), float(part.height))
    return _array(part.transform(_side(shot, contract), Image.Transform.EXTENT, whole, Image.Resampling.BILINEAR))


def _enlarged_frame(shot: Shot, contract: Preprocess, antialiased: bool) -> Image.Image:
    """The whole photo, its shorter side at floor(size / crop_pct)."""
    shorter, image = int(contract.size / contract.crop_pct), shot.upright
    scale = shorter / min(image.size)
    sides = [shorter if side == min(image.size) else int(side * scale) for side in image.size]
    size = (sides[0], sides[1])
    if antialiased:
        return image.resize(size, Image.Resampling[contract.interpolation.upper()])
    box = (0.0, 0.0, float(image.width), float(image.height))
    return image.transform(size, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)


def _centre(image: Image.Image, side: int) -> Image.Image:
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def _where_cropped(pixels: Callable[[Shot, Preprocess], Pixels]) -> Callable[[Shot, Preprocess], Pixels]:
    """The mistake where the contract crops; the right pixels, which are no mistake, where it does not."""

    def either(shot: Shot, contract: Preprocess) -> Pixels:
        crops = contract.resize is Resize.SHORTER_SIDE
        return pixels(shot, contract) if crops else right_pixels(shot, contract)

    return either


def _side(shot: Shot, contract: Preprocess) -> tuple[int, int]:
    """(width, height) that the contract gives the photo."""
    if contract.resize is not Resize.LONGER_SIDE:
        return contract.size, contract.size
    height, width = right_pixels(shot, contract).shape[:2]
    return width, height


def _source_box(image: Image.Image, contract: Preprocess) -> tuple[float, float, float, float]:
    if contract.resize is Resize.SHORTER_SIDE:
        side = contract.crop_pct * min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        return left, top, left + side, top + side
    return 0.0, 0.0, float(image.width), float(image.height)


def _reshaped(resize: Resize, crop_pct: float = 1.0) -> Callable[[Shot, Preprocess], Pixels]:
    """Another way to a square, or another share of it kept."""

    def pixels(shot: Shot, contract: Preprocess) -> Pixels:
        other = contract.model_copy(update={"resize": resize, "crop_pct": crop_pct})
        return other.pixels(shot.upright, shot.scale)

    return pixels


def _letterboxed(shot: Shot, contract: Preprocess) -> Pixels:
    """The whole photo, aspect ratio kept, on a black square."""
    whole, side = shot.upright, contract.size
    factor = side / max(whole.size)
    fitted = whole.resize([max(1, round(length * factor)) for length in whole.size], Image.Resampling.BILINEAR)
    square = Image.new("RGB", (side, side))
    square.paste(fitted, ((side - fitted.width) // 2, (side - fitted.height) // 2))
    return _array(square)


def _changed(change: Callable[[Pixels], Pixels]) -> Callable[[Shot, Preprocess], Pixels]:
    """The right pixels, changed as an array."""
    return lambda shot, contract: np.ascontiguousarray(change(right_pixels(shot, contract)))


def _planes(pixels: Pixels) -> Pixels:
    """Interleaved values read as three planes, the NHWC / NCHW confusion."""
    height, width, channels = pixels.shape
    return pixels.reshape(channels, height, width).transpose(1, 2, 0)


def _grey(pixels: Pixels) -> Pixels:
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _video_range(pixels: Pixels) -> Pixels:
    """Camera frames whose black is 16 and white 235, taken as they are."""
    return (16 + pixels.astype(np.float32) * (219 / 255)).round().astype(np.uint8)


def _array(image: Image.Image) -> Pixels:
    return np.asarray(image, np.uint8)


def _statistics(mean: Sequence[float], std: Sequence[float]) -> Callable[[Preprocess], Preprocess]:
    return lambda contract: contract.model_copy(update={"mean": tuple(mean), "std": tuple(std)})


def _input_scaled(factor: float) -> Callable[[Preprocess], Preprocess]:
    """(factor v - mean) / std = (v - mean / factor) / (std / factor), v in 0 to 1."""

    def seen_as(contract: Preprocess) -> Preprocess:
        mean, std = (tuple(value / factor for value in values) for values in (contract.mean, contract.std))
        return contract.model_copy(update={"mean": mean, "std": std})

    return seen_as


def _twice(contract: Preprocess) -> Preprocess:
    """((v - mean) / std - mean) / std = (v - (mean + mean std)) / std^2."""
    pairs = list(zip(contract.mean, contract.std, strict=True))
    mean, std = tuple(m + m * s for m, s in pairs), tuple(s * s for _, s in pairs)
    return contract.model_copy(update={"mean": mean, "std": std})


_FILTERS = Image.Resampling
MISTAKES: tuple[PixelMistake, ...] = (
    PixelMistake("channels swapped (BGR for RGB)", _changed(lambda pixels: pixels[..., ::-1])),
    PixelMistake("EXIF orientation ignored", lambda shot, contract: contract.pixels(shot.stored, shot.scale)),
    PixelMistake("squashed to a square instead of cropped", _reshaped(Resize.SQUASH)),
    PixelMistake("the largest centre square instead of the contract's resize", _reshaped(Resize.SHORTER_SIDE)),
    PixelMistake("centre crop of 0.875 of the shorter side", _reshaped(Resize.SHORTER_SIDE, 0.875)),
    PixelMistake(
        "resized whole, then cropped to whole pixels (torchvision's Resize and CenterCrop)",
        _where_cropped(_cropped_afterwards),
    ),
    PixelMistake(
        "resized whole without antialias, then cropped (OpenCV, tensors)",
        _where_cropped(_cropped_afterwards_not_antialiased),
    ),
    PixelMistake(
        "cropped to whole pixels, then resized without antialias (Bitmap, OpenCV)",
        _where_cropped(_cropped_beforehand_not_antialiased),
    ),
    PixelMistake("letterboxed: the whole photo on a black square", _letterboxed),
    PixelMistake("resized with the nearest pixel", _resized(_FILTERS.NEAREST)),
    PixelMistake("resized without antialias, bilinear", _not_antialiased(_FILTERS.BILINEAR)),
    PixelMistake("resized without antialias, bicubic", _not_antialiased(_FILTERS.BICUBIC)),
    PixelMistake("resized with another filter: box (area)", _resized(_FILTERS.BOX)),
    PixelMistake("resized with another filter: bilinear", _resized(_FILTERS.BILINEAR)),
    PixelMistake("resized with another filter: bicubic", _resized(_FILTERS.BICUBIC)),
    PixelMistake("resized with another filter: lanczos", _resized(_FILTERS.LANCZOS)),
    PixelMistake("normalisation missing: values 0 to 1", right_pixels, _statistics(*UNIT)),
    PixelMistake("normalisation missing: values 0 to 255", right_pixels, _statistics(UNIT[0], (1 / 255,) * 3)),
    PixelMistake("normalisation doubled", right_pixels, _twice),
    PixelMistake("input 0 to 1 where 0 to 255 is expected", right_pixels, _input_scaled(1 / 255)),
    PixelMistake("input 0 to 255 where 0 to 1 is expected", right_pixels, _input_scaled(255.0)),
    PixelMistake("normalised with ImageNet's mean and std", right_pixels, _statistics(*IMAGENET)),
    PixelMistake("normalised with CLIP's mean and std", right_pixels, _statistics(*CLIP)),
    PixelMistake("normalised with mean and std 0.5", right_pixels, _statistics(*HALF)),
    PixelMistake("pixels in planes read as interleaved, or the reverse (NHWC / NCHW)", _changed(_planes)),
    PixelMistake("rows and columns exchanged", _changed(lambda pixels: pixels.transpose(1, 0, 2))),
    PixelMistake("upside down (texture origin at the bottom)", _changed(lambda pixels: pixels[::-1])),
    PixelMistake("mirrored (front camera)", _changed(lambda pixels: pixels[:, ::-1])),
    PixelMistake("video range (16 to 235) taken for full range", _changed(_video_range)),
    PixelMistake("turned to grey", _changed(_grey)),
)
