"""The steps that every pixel contract has: the code takes them from here, and exported files state them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

CHANNELS = "RGB"  # Pillow's mode, and the order of the bytes
BACKGROUND = "white"  # what transparency is laid over
RESIZED = "uint8"  # numpy's name of the type that resizing gives
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
