"""What an artifact takes whose resize is inside it: whole upright photos, of any size or of one."""

from __future__ import annotations

import re
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.photos.contract import Preprocess

LONGEST = 16384  # pixels of a side: more than any phone's camera gives
LIKELY_PIXELS = 12_000_000  # of a phone's photo
MEASURED = (768, 1024)  # height, width of the photos that a file for any size is measured with
Side = Annotated[int, Field(ge=1, le=LONGEST)]


class PhotoSize(BaseModel):
    """Height and width of the photos that an artifact takes, upright, in pixels; None for any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: Side | None = None
    width: Side | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> PhotoSize:
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width are given both, or neither for photos of any size")
        return self

    @property
    def sides(self) -> tuple[int, int] | None:
        """(height, width), or None for any."""
        return None if self.height is None or self.width is None else (self.height, self.width)

    def __str__(self) -> str:
        return "any size" if self.sides is None else f"{self.height} x {self.width} pixels (height x width)"


ANY_SIZE = PhotoSize()


def photo_size(text: str, option: str) -> PhotoSize:
    """The size of "HEIGHTxWIDTH"; `option` stands in the error."""
    found = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if found is None or not all(1 <= int(side) <= LONGEST for side in found.groups()):
        raise BadInputError(
            f"{option} {text}: HEIGHTxWIDTH of the upright photo is needed, such as 640x480; a side has 1 to {LONGEST} "
            "pixels"
        )
    return PhotoSize(height=int(found[1]), width=int(found[2]))


class WholePhoto(Preprocess):
    """The contract of an artifact's input where the artifact itself does the rest of the pixel contract.

    The fields of Preprocess say what happens inside; `pixels` gives the photo as it is.
    """

    photo: PhotoSize

    def pixels(self, image: Image.Image, scale: float = 1.0) -> NDArray[np.uint8]:
        """(h, w, 3) uint8, RGB, of an upright RGB image. BadInputError for one of another size than the artifact's."""
        del scale  # of a crop: squares don't heed it
        if image.mode != "RGB":
            raise BadInputError(f"the pixel contract starts from an RGB image, not mode {image.mode}")
        wanted, found = self.photo.sides, (image.height, image.width)
        if wanted is not None and found != wanted:
            raise BadInputError(
                f"a photo of {found[0]} x {found[1]} pixels (height x width, upright), and this file takes "
                f"{self.photo} alone, for its resize is inside; give photos of that size, or a file exported without "
                "`bake` or, target onnx, for any size"
            )
        return np.asarray(image, np.uint8)

    def framed(self, image: Image.Image) -> NDArray[np.uint8]:
        """(h, w, 3) of an image brought to one size: the artifact's, or MEASURED. For measuring, not for searching."""
        height, width = self.photo.sides or MEASURED
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.uint8)

    def within(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, h, w, 3) photos -> (n, size, size, 3): what the contract, by Pillow, makes of them."""
        inside = Preprocess.model_validate(self.model_dump(exclude={"photo"}))
        return np.stack([inside.pixels(Image.fromarray(photo)) for photo in pixels])

    @property
    def one_size(self) -> bool:
        return self.photo.sides is not None

    @property
    def likely_pixels(self) -> int:
        height, width = self.photo.sides or (1, LIKELY_PIXELS)
        return height * width

    def require_square(self, what: str) -> None:
        """Raise IncompatibleError: the squares are made inside the artifact."""
        raise IncompatibleError(
            f"{what} works with pixels that the contract has resized, and this file resizes inside (it takes photos of "
            f"{self.photo}); give the file exported without `bake`"
        )
