"""The pixel contract: how a decoded photo, or the box of it that counts, becomes a model's (h, w, 3) uint8 array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecsd.errors import BadInputError, IncompatibleError, validation_text
from edgecsd.pixel_steps import CHANNELS, RESIZED

if TYPE_CHECKING:
    from numpy.typing import NDArray


OVERHANG = 0.02  # of a side: what a box may leave the image by; more was drawn on an image of another size


@dataclass(frozen=True)
class Box:
    """The part of an upright image that counts, in its pixels: left, top, right, bottom, origin top left."""

    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in astuple(self)):
            raise BadInputError(f"box {astuple(self)}: x1, y1, x2, y2 must be finite numbers")

    @property
    def pixels(self) -> tuple[int, int, int, int]:
        """Whole pixels, right and bottom excluded: each number rounded, halves to even, as Pillow's `crop` rounds."""
        return round(self.x1), round(self.y1), round(self.x2), round(self.y2)

    def problem(self, width: int, height: int) -> str:
        """Why an image of this size cannot be cropped to the box; "" if it can."""
        left, top, right, bottom = self.pixels
        if right <= left or bottom <= top:
            return f"its box {self.pixels} is empty: x1 < x2 and y1 < y2 are needed, in pixels"
        beyond_x, beyond_y = max(-left, right - width), max(-top, bottom - height)
        inside = left < width and top < height and right > 0 and bottom > 0
        if not inside or beyond_x > max(1, OVERHANG * width) or beyond_y > max(1, OVERHANG * height):
            return (
                f"its box {self.pixels} lies outside the image of {width} x {height} pixels (upright); "
                "boxes are x1, y1, x2, y2 in pixels of this very file"
            )
        return ""

    def crop(self, image: Image.Image) -> Image.Image:
        """The box of an image, what little it leaves it by black: `Image.crop`, as the protocol's authors use it."""
        return image.crop(self.pixels)


def box_from_numbers(values: object, where: str) -> Box | None:
    """A box from [x1, y1, x2, y2] of a file, or None from None; `where` stands in the error."""
    if values is None:
        return None
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 4:
        raise BadInputError(f"{where}: a box is the four numbers x1, y1, x2, y2")
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        raise BadInputError(f"{where}: a box is the four numbers x1, y1, x2, y2")
    try:
        return Box(*(float(value) for value in values))
    except (BadInputError, OverflowError) as error:
        raise BadInputError(f"{where}: {error}") from None


def box_from_cells(cells: Sequence[str], where: str) -> Box | None:
    """A box from the cells x1, y1, x2, y2 of a CSV row, or None if all four are blank; `where` stands in the error."""
    filled = [cell.strip() for cell in cells]
    if not any(filled):
        return None
    try:
        numbers = [float(cell) for cell in filled]
    except ValueError:
        raise BadInputError(
            f"{where}: x1, y1, x2, y2 = {', '.join(map(repr, filled))}; four numbers are needed, or four blank cells"
        ) from None
    return box_from_numbers(numbers, where)


class Resize(StrEnum):
    """How an image of any shape becomes one that the network takes."""

    SQUASH = "squash"  # both sides to the target, the aspect ratio is lost, nothing is cropped
    SHORTER_SIDE = "shorter-side"  # shorter side to round(target / crop_pct), then the centre is cropped
    LONGER_SIDE = "longer-side"  # longer side to the target, aspect ratio kept, never enlarged: not a square


class Interpolation(StrEnum):
    """Pillow's antialiased filters, the only ones the contract allows."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


_FILTERS = {Interpolation.BILINEAR: Image.Resampling.BILINEAR, Interpolation.BICUBIC: Image.Resampling.BICUBIC}
Channels = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0)]


class Preprocess(BaseModel):
    """Everything between a decoded RGB image and the network, frozen so that it can be part of a fingerprint.

    The order is: EXIF orientation, conversion to sRGB-coded RGB, resize, crop (all by Pillow, result uint8),
    then (value / 255 - mean) / std per channel, which the model itself does. What no contract changes stands in
    `pixel_steps`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: Annotated[int, Field(ge=16, le=2048)]
    resize: Resize = Resize.SQUASH
    crop_pct: Annotated[float, Field(gt=0.1, le=1.0)] = 1.0
    interpolation: Interpolation = Interpolation.BILINEAR
    mean: Channels = (0.5, 0.5, 0.5)
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)

    def pixels(self, image: Image.Image, scale: float = 1.0) -> NDArray[np.uint8]:
        """The uint8 array, RGB, of an upright RGB image: (size, size, 3), with Resize.LONGER_SIDE (h, w, 3).

        scale: what share of the whole image's longer side this image has, where it is a crop. LONGER_SIDE brings it to
        size * scale, so that things are as large in it as in the whole image; the squares don't heed it.
        """
        if image.mode != CHANNELS:
            raise BadInputError(f"the pixel contract starts from an RGB image, not mode {image.mode}")
        resampling = _FILTERS[self.interpolation]
        if self.resize is Resize.SQUASH:
            resized = image.resize((self.size, self.size), resampling)
        elif self.resize is Resize.SHORTER_SIDE:
            resized = image.resize((self.size, self.size), resampling, box=self._centre_box(image.width, image.height))
        else:
            resized = image.resize(self._fitted(image.width, image.height, scale), resampling)
        return np.asarray(resized, dtype=RESIZED)

    def _fitted(self, width: int, height: int, scale: float) -> tuple[int, int]:
        """(width, height) of an image whose longer side becomes floor(size * scale), which never enlarges it.

        The sizes are those of Pillow's `thumbnail`, by which the authors of the revisited protocol resize
        (cnnimageretrieval-pytorch: `imresize`): the shorter side takes the neighbour nearest to the aspect ratio.
        """
        longer = max(1, math.floor(self.size * scale))
        if longer >= max(width, height):
            return width, height
        aspect = width / height
        if aspect > 1:
            shorter = longer / aspect
            return longer, max(1, min(math.floor(shorter), math.ceil(shorter), key=lambda n: _miss(aspect, longer, n)))
        shorter = longer * aspect
        return max(1, min(math.floor(shorter), math.ceil(shorter), key=lambda n: abs(aspect - n / longer))), longer

    def _centre_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The centre square, of side crop_pct x the shorter side, in source pixels: resize and crop in one step."""
        side = self.crop_pct * min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    @property
    def one_size(self) -> bool:
        """Whether every image becomes an array of one shape."""
        return self.resize is not Resize.LONGER_SIDE

    @property
    def likely_pixels(self) -> int:
        """How many pixels an array has, or may well have."""
        return self.size**2

    def at_size(self, size: int) -> Preprocess:
        """The same contract at another input size."""
        return preprocess_from_json({**self.model_dump(), "size": size}, f"input size {size}")

    def require_square(self, what: str) -> None:
        """Raise IncompatibleError, naming `what` needs it, unless every image becomes (size, size, 3)."""
        if self.resize is Resize.LONGER_SIDE:
            squares = " or ".join(resize for resize in Resize if resize is not Resize.LONGER_SIDE)
            raise IncompatibleError(
                f"{what} needs images of one square size, and the pixel contract's resize is {self.resize} "
                f"(longer side {self.size}, any aspect ratio); use a contract with {squares}"
            )


def _miss(aspect: float, width: int, height: int) -> float:
    """How far width / height is from the aspect ratio; 0 for a height of 0, as Pillow has it."""
    return abs(aspect - width / height) if height else 0.0


def preprocess_from_json(data: Any, where: str) -> Preprocess:
    """A contract from parsed JSON; `where` names the source in the error."""
    try:
        return Preprocess.model_validate(data)
    except ValidationError as error:
        raise BadInputError(f"{where}: not a valid pixel contract: {validation_text(error)}") from None
