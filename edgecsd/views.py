"""Augmented views that are a pure function of (image id, seed, view number), so that both models see the same one."""

from __future__ import annotations

import hashlib
from typing import Annotated

import numpy as np
from PIL import Image, ImageEnhance
from pydantic import BaseModel, ConfigDict, Field


class ViewRecipe(BaseModel):
    """How views are drawn. View 0 is always the image itself; views 1..count are augmented.

    min_area   the crop keeps between this share and all of the image's area
    max_aspect the crop's aspect ratio is at most this times the image's own, or its inverse
    flip       probability of a left-right mirror
    colour     brightness, contrast and saturation each change by up to this share
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    count: Annotated[int, Field(ge=0, le=64)] = 0
    seed: int = 0
    min_area: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_aspect: Annotated[float, Field(ge=1)] = 1.2
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    colour: Annotated[float, Field(ge=0, lt=1)] = 0.2

    def view(self, image: Image.Image, item_id: str, number: int) -> Image.Image:
        """View `number` (0..count) of an upright RGB image: crop, mirror, colour, at the source's resolution."""
        if number == 0:
            return image
        random = self._generator(item_id, number)
        area, aspect = random.uniform(self.min_area, 1.0), np.exp(random.uniform(-1, 1) * np.log(self.max_aspect))
        horizontal, vertical, mirror = random.random(3)
        factors = random.uniform(1 - self.colour, 1 + self.colour, 3)
        width = max(1, min(image.width, round(image.width * np.sqrt(area * aspect))))
        height = max(1, min(image.height, round(image.height * np.sqrt(area / aspect))))
        left, top = round(horizontal * (image.width - width)), round(vertical * (image.height - height))
        result = image.crop((left, top, left + width, top + height))
        if mirror < self.flip:
            result = result.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        enhancements = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for enhance, factor in zip(enhancements, factors, strict=True):
            result = enhance(result).enhance(float(factor))
        return result

    def _generator(self, item_id: str, number: int) -> np.random.Generator:
        key = hashlib.sha256(f"{self.seed}\0{number}\0{item_id}".encode()).digest()
        return np.random.Generator(np.random.Philox(key=np.frombuffer(key[:16], dtype=np.uint64)))
