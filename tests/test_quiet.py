"""Converters are kept off stdout and stderr, and are heard when they fail."""

from __future__ import annotations

import os
import sys
import warnings

import pytest

from edgecsd.errors import BadInputError, EdgecsdError
from edgecsd.quiet import quiet_conversion


def shout() -> None:
    print("from Python")
    print("from Python, stderr", file=sys.stderr)
    os.write(1, b"from C++\n")
    os.write(2, b"from C++, stderr\n")
    warnings.warn("a warning", UserWarning, stacklevel=1)


def test_nothing_gets_out(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_conversion("the conversion"):
        shout()
    assert capfd.readouterr() == ("", "")
    print("heard again")
    os.write(2, b"and here\n")
    assert capfd.readouterr() == ("heard again\n", "and here\n")


def test_a_failure_brings_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    message = r"(?s)the conversion failed: KeyError: 'op'.*last lines.*from C\+\+, stderr"
    with pytest.raises(EdgecsdError, match=message), quiet_conversion("the conversion"):
        shout()
        raise KeyError("op")
    assert capfd.readouterr() == ("", "")


def test_own_errors_pass_unchanged() -> None:
    with pytest.raises(BadInputError, match=r"^as it is$"), quiet_conversion("the conversion"):
        raise BadInputError("as it is")
