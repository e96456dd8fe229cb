"""How a transformers image processor prepares photos, as a pixel contract."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

from edgecsd.errors import BadInputError
from edgecsd.photos.contract import BRIGHTEST, CHANNELS, Interpolation, Preprocess, Resize, preprocess_from_json

_INTERPOLATIONS = {2: Interpolation.BILINEAR, 3: Interpolation.BICUBIC}  # Pillow's numbers, which the files have
WARPED_FROM = 384  # px: ConvNeXt's processor squashes from here on, and crops below
SHAPES = ((403, 250), (180, 331))  # width, height of the photos compared on: odd pixels are cut away
# Levels by which pixels may differ: processors that resize in floats round nothing [measured: DINOv3's, 1.0].
ROUNDING = {"pil": 0.01, "torchvision": 1.5}


def contract_of(processor: Any, name: str, size: int | None = None) -> Preprocess:
    """The contract that gives the pixels of the processor's Pillow backend, to the bit.

    size: input side in pixels, in place of its own; what is cut away keeps its share.

    Raises BadInputError, naming the setting, where no contract does what it does.
    """
    values = {**_geometry(processor, name), **_values(processor, name)}
    contract = preprocess_from_json(values, name)
    off = max(_levels_apart(processor, contract, Image.fromarray(_noise(*shape))) for shape in SHAPES)
    if not off <= ROUNDING[processor.backend]:
        raise _refused(name, f"is a {type(processor).__name__}, whose pixels differ from those of its settings")
    return contract if size is None else contract.at_size(size)


def _geometry(processor: Any, name: str) -> dict[str, Any]:
    """`size`, `resize`, `crop_pct` of the contract."""
    if not processor.do_resize or getattr(processor, "do_pad", None):
        raise _refused(name, f"has do_resize {processor.do_resize}, do_pad {getattr(processor, 'do_pad', None)}")
    given = {key: value for key, value in dict(processor.size).items() if value is not None}
    crops = getattr(processor, "do_center_crop", None)
    crop = {key: value for key, value in dict(processor.crop_size or {}).items() if value} if crops else {}
    if set(given) not in ({"height", "width"}, {"shortest_edge"}):
        raise _refused(name, f"has size {given}")
    sides = set(given.values()) if not crops else set(crop.values())
    if len(set(given.values())) != 1 or len(sides) != 1:
        raise _refused(name, f"has size {given}, crop_size {crop}: no square")
    before, side = given.popitem()[1], sides.pop()
    square = "height" in dict(processor.size) and dict(processor.size)["height"] is not None
    crop_pct = getattr(processor, "crop_pct", None)
    if crop_pct is not None and not square:  # ConvNeXt's own
        square, before = side >= WARPED_FROM, side if side >= WARPED_FROM else math.floor(side / crop_pct)
    elif not square and not crops:
        raise _refused(name, f"has size shortest_edge {before} and do_center_crop {crops}: no square")
    if side > before:
        raise _refused(name, f"has crop_size {side}, larger than size {before}: it frames photos in black")
    if square and side == before:
        return {"size": side, "resize": Resize.SQUASH}
    resize = Resize.SQUASH_THEN_CROP if square else Resize.SHORTER_SIDE_THEN_FLOOR_CROP
    return {"size": side, "resize": resize, "crop_pct": _crop_pct(side, before)}


def _crop_pct(side: int, before: int) -> float:
    """The largest share whose floor(side / share) is `before`, whatever the division rounds to."""
    share = side / before
    while math.floor(side / share) < before:
        share = math.nextafter(share, 0)
    return share


def _values(processor: Any, name: str) -> dict[str, Any]:
    """`interpolation`, `mean`, `std` of the contract."""
    if not processor.do_rescale or not math.isclose(processor.rescale_factor, 1 / BRIGHTEST):
        raise _refused(name, f"has do_rescale {processor.do_rescale}, rescale_factor {processor.rescale_factor}")
    resample = 2 if processor.resample is None else int(processor.resample)
    if resample not in _INTERPOLATIONS:
        raise _refused(name, f"has resample {resample}: neither bilinear (2) nor bicubic (3)")
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ((0,) * 3, (1,) * 3)
    return {"interpolation": _INTERPOLATIONS[resample], "mean": tuple(mean), "std": tuple(std)}


def _refused(name: str, why: str) -> BadInputError:
    return BadInputError(f"{name}: its image processor {why}, which no pixel contract does; give a `preprocess` file")


def _noise(width: int, height: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _levels_apart(processor: Any, contract: Preprocess, photo: Image.Image) -> float:
    """By how many of 255 levels the pixels of both differ at most."""
    given = np.asarray(processor(images=photo.convert(CHANNELS), return_tensors="np")["pixel_values"])
    wanted = contract.pixels(photo).astype(np.float64)
    if given.shape != (1, 3, *wanted.shape[:2]):
        return math.inf
    mean, std = (np.reshape(value, (3, 1, 1)) for value in (contract.mean, contract.std))
    return float(np.abs((given[0].astype(np.float64) * std + mean) * BRIGHTEST - wanted.transpose(2, 0, 1)).max())
