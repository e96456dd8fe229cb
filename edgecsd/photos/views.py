"""Augmented views that are a pure function of (image id, seed, view number), so that both models see the same one."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated

import numpy as np
from PIL import Image, ImageEnhance
from pydantic import BaseModel, ConfigDict, Field

from edgecsd.errors import BadInputError

MOST_VIEWS = 64  # of an image


class ViewStrength(StrEnum):
    """How far views are from their photo."""

    MILD = "mild"  # at least half of the photo, colours within a fifth
    STRONG = "strong"  # a tenth of the photo and more, colours within two fifths


class ViewRecipe(BaseModel):
    """How views are drawn. View 0 is always the image itself; views 1..count are augmented.

    min_area   the crop keeps between this share and all of the image's area
    max_aspect the crop's aspect ratio is at most this times the image's own, or its inverse
    flip       probability of a left-right mirror
    colour     brightness, contrast and saturation each change by up to this share
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    count: Annotated[int, Field(ge=0, le=MOST_VIEWS)] = 0
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


def view_recipe(count: int, seed: int = 0, strength: ViewStrength = ViewStrength.STRONG) -> ViewRecipe:
    """The recipe of `count` views of a named strength; that of no views is always the same."""
    if count == 0:
        return ViewRecipe()
    if strength is ViewStrength.MILD:
        return ViewRecipe(count=count, seed=seed, min_area=0.5, max_aspect=1.2, colour=0.2)
    return ViewRecipe(count=count, seed=seed, min_area=0.1, max_aspect=1.33, colour=0.4)


def parse_strength(text: str) -> ViewStrength:
    """`view_strength` as a user gives it."""
    try:
        return ViewStrength(text)
    except ValueError:
        raise BadInputError(f"`view_strength` {text}: give {' or '.join(ViewStrength)}") from None
