"""Options that hold several numbers, separated by commas, or a share."""

from __future__ import annotations

import math

from edgecsd.errors import BadInputError


def numbers(text: str, option: str) -> tuple[float, ...]:
    """The numbers in "1,1.4142"; BadInputError, naming the option, for anything else."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadInputError(f"{option} {text}: numbers separated by commas are needed, as in 1,0.5") from None


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """The whole numbers of 1 and more in "64,32", none in ""; BadInputError, naming the option, for anything else."""
    try:
        found = tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        found = (0,)
    if any(number < 1 for number in found) or len(set(found)) < len(found):
        raise BadInputError(f"{option} {text}: different whole numbers separated by commas are needed, as in 64,32")
    return found


def share_from_text(text: str, option: str) -> float:
    """0.01 from "1%" or "0.01"; BadInputError names the option otherwise."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share < 1:
        raise BadInputError(f"{option} {text}: a share from 0 to 1, such as 0.01, or in percent, such as 1%")
    return share
