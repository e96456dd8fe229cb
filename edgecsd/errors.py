"""One exception tree; the exit code of the command line stands in each class.

EdgecsdError                     2
├── BadInputError                2   a path, file, value or option that cannot be used
│   ├── ImageReadError           2   one image that cannot be decoded
│   └── DamagedFileError         2   a store, index or run that does not match its own manifest
├── GateFailedError              1   a measured figure is on the wrong side of its threshold
├── IncompatibleError            3   two parts that must not be used together (space, dimension, pixel contract)
└── MissingBackendError          4   an optional library, runtime, device or download that is not there

A message names a parameter in backticks, as the library spells it: "`k` 500: the gallery offers 1 to 99 anchors".
The command line prints the option in its place (edgecsd/cli/options.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)(=False)?`")


class EdgecsdError(Exception):
    """Base of every error that edgecsd raises for something a user can cause."""

    exit_code = 2

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that the message names, the one that is wrong first."""
        return tuple(match[1] for match in PARAMETER.finditer(str(self)))


class BadInputError(EdgecsdError):
    """A path, file, value or option that cannot be used."""


class ImageReadError(BadInputError):
    """One image that cannot be decoded; the message names it."""


class DamagedFileError(BadInputError):
    """A file or folder that does not match its own manifest."""


class GateFailedError(EdgecsdError):
    """A measured figure is on the wrong side of its threshold."""

    exit_code = 1


class IncompatibleError(EdgecsdError):
    """Two parts that must not be used together."""

    exit_code = 3


class MissingBackendError(EdgecsdError):
    """An optional library, runtime, device or download that is not there."""

    exit_code = 4


INTERRUPTED_EXIT_CODE = 130


def missing_extra(module: str, extra: str) -> MissingBackendError:
    """The one message for an optional library that is not installed."""
    return MissingBackendError(
        f"this needs the package '{module}', which is not installed: pip install 'edgecsd[{extra}]'"
    )


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line, and its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def validation_text(error: ValidationError) -> str:
    """What pydantic found wrong, one line: field, value and reason of each."""
    return "; ".join(
        entry["msg"].removeprefix("Value error, ")
        if entry["type"] == "value_error" and not entry["loc"]  # of the whole: its message says what differs
        else f"{'.'.join(map(str, entry['loc'])) or 'value'} = {entry['input']!r:.60}: {entry['msg']}"
        for entry in error.errors()
    )
