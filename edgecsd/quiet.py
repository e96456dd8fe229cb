"""Keeps other libraries off stdout and stderr: `json` promises one document, and their logs mislead."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import TextIO

from edgecsd.errors import EdgecsdError

LOG_LINES = 12  # how much of a converter's log stands in the error


@contextlib.contextmanager
def quiet_conversion(what: str) -> Iterator[None]:
    """Hold back what is written to stdout and stderr, by C++ too; on failure its last lines stand in an EdgecsdError.

    Errors of edgecsd's own pass unchanged. File descriptors belong to the whole process: one conversion at a time.
    """
    with tempfile.TemporaryFile() as log:
        try:
            with _descriptors_to(log.fileno()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except (EdgecsdError, ImportError):
            raise
        except Exception as error:  # converters raise anything, down to bare RuntimeError and KeyError
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()[-LOG_LINES:]
            reason = next(iter(str(error).strip().splitlines()), "") or "no reason given"
            tail = "\nlast lines of its log:\n  " + "\n  ".join(lines) if lines else ""
            raise EdgecsdError(f"{what} failed: {type(error).__name__}: {reason}{tail}") from error


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Drop what libraries log. The root keeps no handler that a first `logging.info` of theirs would give it."""
    root, before, holder = logging.getLogger(), logging.root.manager.disable, logging.NullHandler()
    root.addHandler(holder)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(holder)


@contextlib.contextmanager
def _descriptors_to(target: int) -> Iterator[None]:
    _flush()
    saved = [(number, os.dup(number)) for number in (1, 2)]
    stack = contextlib.ExitStack()
    stream: TextIO | None = None
    try:
        stream = stack.enter_context(os.fdopen(os.dup(target), "w", errors="replace"))
        stack.enter_context(contextlib.redirect_stdout(stream))
        stack.enter_context(contextlib.redirect_stderr(stream))
        for number, _ in saved:
            os.dup2(target, number)
        yield
    finally:
        _let_go(stream)
        stack.close()
        _flush()
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)


def _let_go(stream: TextIO | None) -> None:
    """Take log handlers off the stream before it is closed: a library's first `logging.warning` makes one of the root.

    The root's are removed, so that the caller's own `logging.basicConfig` still works; others go on to stderr.
    """
    root = logging.getLogger()
    loggers = [one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    for logger in (root, *loggers):
        for handler in list(logger.handlers):
            if not isinstance(handler, logging.StreamHandler) or handler.stream is not stream:
                continue
            if logger is root:
                logger.removeHandler(handler)
            else:
                handler.setStream(sys.__stderr__)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a caller may have closed or replaced them
            stream.flush()
