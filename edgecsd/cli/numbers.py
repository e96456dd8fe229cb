"""Options that hold several numbers, separated by commas."""

from __future__ import annotations

from edgecsd.errors import BadInputError


def numbers(text: str, option: str) -> tuple[float, ...]:
    """The numbers in "1,1.4142"; BadInputError, naming the option, for anything else."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadInputError(f"{option} {text}: numbers separated by commas are needed, as in 1,0.5") from None
