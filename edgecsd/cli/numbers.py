"""Options that hold several numbers, separated by commas, a share, a ratio or a size."""

from __future__ import annotations

import math
import re

from edgecsd.errors import BadInputError

_UNITS = {"b": 1, "kb": 1000, "mb": 1000**2, "kib": 1024, "mib": 1024**2}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(%|[kKmM]i?[bB]|B)")


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


def ratio_from_text(text: str, option: str) -> float:
    """0.6 from "0.6" or "60%"; above 0, and above 1 too; BadInputError names the option otherwise."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        ratio = float(number) / (100 if percent else 1)
    except ValueError:
        ratio = math.nan
    if not 0 < ratio < math.inf:
        raise BadInputError(f"{option} {text}: a ratio above 0, such as 0.6, or in percent, such as 60%")
    return ratio


def size_from_text(text: str, option: str) -> tuple[int | None, float | None]:
    """(bytes, None) of "6MB", "900kB" or "6.5 MiB", (None, share) of "30%"; BadInputError otherwise."""
    found = _SIZE.fullmatch(text.strip())
    number = float(found[1]) if found else 0.0
    if not found or number <= 0:
        raise BadInputError(f"{option} {text}: a size such as 6MB or 900kB, or a share of the fp32 file such as 30%")
    if found[2] == "%":
        return None, number / 100
    return round(number * _UNITS[found[2].lower()]), None
