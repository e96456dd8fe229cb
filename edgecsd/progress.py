"""How a long step tells what it is doing; the command line draws it, a library caller hears nothing by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
TaskContext = AbstractContextManager[Advance]


class Reporter(Protocol):
    """Where a step reports to."""

    def message(self, text: str) -> None:
        """One line worth reading: what was skipped, resumed, chosen, measured."""
        ...

    def task(self, name: str, total: int, done: int = 0) -> TaskContext:
        """A context manager whose value is called with the number of units just finished."""
        ...


class Silent:
    """Says nothing."""

    def message(self, text: str) -> None:
        del text

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        del name, total, done
        yield lambda units: None


SILENT = Silent()
