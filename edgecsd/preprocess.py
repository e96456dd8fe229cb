"""The pixel contract: how an encoded photo becomes the (H, W, 3) uint8 array that a model is given."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecsd.errors import BadInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Resize(StrEnum):
    """How an image of any shape becomes a square."""

    SQUASH = "squash"  # both sides to the target, the aspect ratio is lost, nothing is cropped
    SHORTER_SIDE = "shorter-side"  # shorter side to round(target / crop_pct), then the centre is cropped


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
    then (value / 255 - mean) / std per channel, which the model itself does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: Annotated[int, Field(ge=16, le=2048)]
    resize: Resize = Resize.SQUASH
    crop_pct: Annotated[float, Field(gt=0.1, le=1.0)] = 1.0
    interpolation: Interpolation = Interpolation.BILINEAR
    mean: Channels = (0.5, 0.5, 0.5)
    std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """The (size, size, 3) uint8 array, RGB, of an upright RGB image."""
        if image.mode != "RGB":
            raise BadInputError(f"the pixel contract starts from an RGB image, not mode {image.mode}")
        resampling = _FILTERS[self.interpolation]
        if self.resize is Resize.SQUASH:
            square = image.resize((self.size, self.size), resampling)
        else:
            square = image.resize((self.size, self.size), resampling, box=self._centre_box(image.width, image.height))
        return np.asarray(square, dtype=np.uint8)

    def _centre_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The centre square, of side crop_pct x the shorter side, in source pixels: resize and crop in one step."""
        side = self.crop_pct * min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def at_size(self, size: int) -> Preprocess:
        """The same contract at another input size."""
        return preprocess_from_json({**self.model_dump(), "size": size}, f"input size {size}")


def preprocess_from_json(data: Any, where: str) -> Preprocess:
    """A contract from parsed JSON; `where` names the source in the error."""
    try:
        return Preprocess.model_validate(data)
    except ValidationError as error:
        raise BadInputError(f"{where}: not a valid pixel contract: {validation_text(error)}") from None


def validation_text(error: ValidationError) -> str:
    """What pydantic found wrong, one line: field, value and reason of each."""
    return "; ".join(
        f"{'.'.join(map(str, entry['loc'])) or 'value'} = {entry['input']!r:.60}: {entry['msg']}"
        for entry in error.errors()
    )
