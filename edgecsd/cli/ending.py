"""How every program ends: an error is one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from edgecsd.errors import INTERRUPTED_EXIT_CODE, EdgecsdError


def end_with(act: Callable[[], object], program: str, kept: str) -> NoReturn:
    """Act, and end with its exit code. kept: what an interruption leaves, and what to do then."""
    try:
        code = act()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED_EXIT_CODE
    except EdgecsdError as error:
        _fail(program, str(error), error.exit_code)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        advice = "; free some space and run the same command again: finished parts are kept" if full else ""
        _fail(program, f"{error.strerror or error}: {error.filename or ''}{advice}", 2)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            _fail(program, error.format_message(), 2)
        if os.environ.get("EDGECSD_DEBUG"):
            raise
        text = f"internal error, which is a bug: {type(error).__name__}: {error}"
        _fail(program, f"{text}; EDGECSD_DEBUG=1 shows the traceback", 70)
    if code == INTERRUPTED_EXIT_CODE:  # typer turns the key into this code
        _fail(program, f"interrupted; {kept}", INTERRUPTED_EXIT_CODE)
    sys.exit(code if isinstance(code, int) else 0)  # the code of typer.Exit comes back as the app's value


def _fail(program: str, text: str, code: int) -> NoReturn:
    print(f"{program}: error: {text}", file=sys.stderr)
    sys.exit(code)
