"""The pixel contract: how a decoded photo, or the box of it that counts, becomes a model's (h, w, 3) uint8 array.

The steps that every contract has stand here once: the code runs them, and exported files state them.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecsd.errors import BadInputError, IncompatibleError, validation_text

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Resize(StrEnum):
    """How an image of any shape becomes one that the network takes."""

    SQUASH = "squash"  # both sides to the target, the aspect ratio is lost, nothing is cropped
    SHORTER_SIDE = "shorter-side"  # shorter side to round(target / crop_pct), then the centre is cropped
    LONGER_SIDE = "longer-side"  # longer side to the target, aspect ratio kept, never enlarged: not a square
    # What servers do: resize to a whole number of pixels first, then cut the centre.
    SHORTER_SIDE_THEN_CROP = "shorter-side-then-crop"  # shorter side to floor(target / crop_pct); torchvision, timm
    # The same in transformers, which leaves an odd pixel always behind the crop; torchvision rounds to even.
    SHORTER_SIDE_THEN_FLOOR_CROP = "shorter-side-then-floor-crop"
    SQUASH_THEN_CROP = "squash-then-crop"  # both sides to floor(target / crop_pct)
    LONGER_SIDE_THEN_PAD = (
        "longer-side-then-pad"  # longer side to floor(target / crop_pct), the rest in the mean's colour
    )

    @property
    def on_phones(self) -> bool:
        """Whether a query model may have it: exported files and apps do it, in one step."""
        return self in (Resize.SQUASH, Resize.SHORTER_SIDE)

    @property
    def for_phones(self) -> Resize:
        """The one that shows a phone's query model what this one shows the gallery model, or the most of it."""
        if self.on_phones:
            return self
        return Resize.SHORTER_SIDE if self in _WHOLE_THEN_CROP else Resize.SQUASH


_WHOLE_THEN_CROP = (Resize.SHORTER_SIDE_THEN_CROP, Resize.SHORTER_SIDE_THEN_FLOOR_CROP)


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
        resampling, square = _FILTERS[self.interpolation], (self.size, self.size)
        if self.resize is Resize.SQUASH:
            resized = image.resize(square, resampling)
        elif self.resize is Resize.SHORTER_SIDE:
            resized = image.resize(square, resampling, box=self._centre_box(image.width, image.height))
        elif self.resize is Resize.LONGER_SIDE:
            resized = image.resize(self._fitted(image.width, image.height, scale), resampling)
        elif self.resize in _WHOLE_THEN_CROP and max(image.size) > LONGEST_WHOLE * min(image.size):
            resized = image.resize(square, resampling, box=self._centre_box(image.width, image.height))
        else:
            resized = self._centre(image.resize(self._before_cropping(image.width, image.height), resampling))
        return np.asarray(resized, dtype=RESIZED)

    def _before_cropping(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the whole photo before its centre is cut out, rounded as torchvision and timm round."""
        side = math.floor(self.size / self.crop_pct)
        if self.resize is Resize.SQUASH_THEN_CROP:
            return side, side
        if self.resize is Resize.LONGER_SIDE_THEN_PAD:
            ratio = max(width / side, height / side)
            return max(1, round(width / ratio)), max(1, round(height / ratio))
        shorter, longer = side, int(side * max(width, height) / min(width, height))
        return (shorter, longer) if width <= height else (longer, shorter)

    def _centre(self, image: Image.Image) -> Image.Image:
        """The centre of `size` x `size`; what lacks is padded with the mean's colour, the odd pixel behind."""
        missing = [max(0, self.size - side) for side in image.size]
        if any(missing):
            colour = tuple(round(BRIGHTEST * value) for value in self.mean)
            padded = Image.new(CHANNELS, (image.width + missing[0], image.height + missing[1]), colour)
            padded.paste(image, (missing[0] // 2, missing[1] // 2))
            image = padded
        floor = self.resize is Resize.SHORTER_SIDE_THEN_FLOOR_CROP
        left, top = ((side - self.size) // 2 if floor else round((side - self.size) / 2) for side in image.size)
        return image.crop((left, top, left + self.size, top + self.size))

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
        """This contract at another input size."""
        return preprocess_from_json({**self.model_dump(), "size": size}, f"input size {size}")

    def require_square(self, what: str) -> None:
        """Raise IncompatibleError, naming `what` needs it, unless every image becomes a square in one resize."""
        if not self.resize.on_phones:
            squares = " or ".join(resize for resize in Resize if resize.on_phones)
            raise IncompatibleError(
                f"{what} needs images of one square size, made in one step, and the pixel contract's resize is "
                f"{self.resize}; use a contract with {squares}"
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


CHANNELS = "RGB"  # Pillow's mode, and the order of the bytes
BACKGROUND = "white"  # what transparency is laid over
RESIZED = "uint8"  # numpy's name of the type that resizing gives
LONGEST_WHOLE = 64  # longer than this times its shorter side, a photo is not resized whole: it may have no end
BRIGHTEST = 255  # divides a value before mean and std
GREY_16 = 257  # divides 16-bit grey, so that 65535 becomes 255


class PixelSteps(BaseModel):
    """What happens between an encoded photo and the network besides the values of a `Preprocess`, in this order.

    frame           of an animation
    orientation     of EXIF
    colour_profile  of ICC: values are taken as they are stored, whatever colours they mean
    transparency    ends as the colour that it is laid over
    channels, bits  of the decoded image; 16-bit grey is divided by `grey_16_divisor` and rounded
    crop            of the contract's values: the box is resized in one step, by fractions of source pixels
    antialias       the filter widens with the factor by which the image shrinks, as Pillow's do
    resized         type of the resized values, rounded: what the file's input is where resize is not inside it
    scale, normalised   of those values, in float, by the file itself
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    frame: str = "first"
    orientation: str = "applied"
    colour_profile: str = "ignored"
    transparency: str = f"over {BACKGROUND}"
    channels: str = CHANNELS
    bits: int = 8
    grey_16_divisor: int = GREY_16
    crop: str = "none for squash; centre square of crop_pct x shorter side for shorter-side"
    antialias: bool = True
    resized: str = RESIZED
    scale: float = 1 / BRIGHTEST
    normalised: str = "(value * scale - mean) / std"

    @property
    def decoding(self) -> str:
        """The steps before the resize, in words."""
        return (
            f"{self.bits}-bit {self.channels}, EXIF orientation {self.orientation}, "
            f"colour profile {self.colour_profile}, transparency {self.transparency}"
        )

    def differing(self, others: PixelSteps) -> list[str]:
        """What is not the same: "transparency 'over black', not 'over white'"."""
        mine, theirs = self.model_dump(), others.model_dump()
        return [f"{name} {mine[name]!r}, not {theirs[name]!r}" for name in mine if mine[name] != theirs[name]]


PIXEL_STEPS = PixelSteps()
