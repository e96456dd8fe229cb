"""Converters are kept off stdout and stderr, and are heard when they fail."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import pytest

from edgecsd.errors import BadInputError, EdgecsdError
from edgecsd.quiet import quiet_conversion, quiet_logs


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


def test_logging_works_after_a_library_logged_inside(capfd: pytest.CaptureFixture[str]) -> None:
    """Its first message makes a handler of the root logger, which must not keep the closed stream."""
    root, library = logging.getLogger(), logging.getLogger("a library of its own")
    kept, root.handlers = root.handlers, []
    try:
        with quiet_conversion("a conversion"):
            logging.warning("inside")
            library.addHandler(logging.StreamHandler())
        assert not root.handlers
        library.warning("afterwards")
        logging.basicConfig()
        logging.warning("by the caller")
    finally:
        root.handlers = kept
        library.handlers.clear()
    said = capfd.readouterr().err
    assert "by the caller" in said and "inside" not in said and "closed file" not in said


def test_what_libraries_log_is_dropped_and_the_root_keeps_no_handler(capsys: pytest.CaptureFixture[str]) -> None:
    root, disabled = logging.getLogger(), logging.root.manager.disable
    handlers = list(root.handlers)
    with quiet_logs():
        logging.getLogger("library").error("lost")
        logging.info("this gives the root a handler where it has none")
    assert "lost" not in capsys.readouterr().err
    assert (root.handlers, logging.root.manager.disable) == (handlers, disabled)
