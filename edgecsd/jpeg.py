"""JPEG by libjpeg-turbo itself (simplejpeg): faster than Pillow, where it gives the very bits that Pillow gives."""

from __future__ import annotations

import io
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

MODES = {"RGB": "RGB", "L": "GRAY"}  # CMYK and others are Pillow's
TRIED = ((64, 64), (61, 47))  # sizes: with and without a rest beside whole blocks


def decoded(data: bytes, opened: Image.Image) -> Image.Image | None:
    """The pixels of a JPEG that Pillow has opened, with what stands in its header; None where Pillow shall decode it.

    None, too, for whatever this decoder takes offence at: how Pillow sees it counts.
    """
    if opened.format != "JPEG" or opened.mode not in MODES or not exact():
        return None
    try:
        pixels = _decode(data, MODES[opened.mode])
    except Exception:  # damaged, or of a kind that it does not know
        return None
    image = Image.fromarray(pixels)
    if image.size != opened.size:
        return None
    image.info = opened.info
    return image


@cache
def exact() -> bool:
    """Whether the decoder is there and gives Pillow's bits for every sampling, baseline and progressive, grey too."""
    random = np.random.default_rng(0)
    try:
        for (width, height), sampling, progressive in product(TRIED, (0, 1, 2), (False, True)):
            colour = Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))
            for image in (colour, colour.convert("L")):
                buffer = io.BytesIO()
                image.save(buffer, "JPEG", quality=85, subsampling=sampling, progressive=progressive)
                ours = _decode(buffer.getvalue(), MODES[image.mode])
                if not np.array_equal(ours, np.asarray(Image.open(io.BytesIO(buffer.getvalue())))):
                    return False
    except Exception:  # not installed, or not as it was
        return False
    return True


def _decode(data: bytes, colours: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(h, w, 3) or, for GRAY, (h, w)."""
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(data, colorspace=colours, fastdct=False, fastupsample=False)
    return np.asarray(pixels[..., 0] if colours == "GRAY" else pixels)
