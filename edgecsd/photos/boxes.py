"""The box of a photo that counts: crops in pixels of the upright photo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from PIL import Image

from edgecsd.errors import BadInputError

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
