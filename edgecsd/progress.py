"""How a long step reports what it does: silent by default, on the terminal by ConsoleReporter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

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


class ConsoleReporter:
    """Progress bars with ETA on a terminal; plain lines, at most one every tenth, elsewhere."""

    def __init__(self, spelt: Callable[[str], str] = str) -> None:
        """spelt: how a message is printed; the command line puts its options in."""
        from rich.console import Console

        self._console, self._spelt = Console(stderr=True), spelt

    def message(self, text: str) -> None:
        self._console.print(self._spelt(text), markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        if self._console.is_terminal:
            with self._bar() as bar:
                task = bar.add_task(name, total=total, completed=done)
                yield lambda units: bar.advance(task, units)
        else:
            yield _PlainProgress(self, name, total, done)

    def _bar(self) -> Any:
        from rich import progress

        return progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("ETA"),
            progress.TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )


class _PlainProgress:
    """One line at every tenth of the work, for logs."""

    def __init__(self, reporter: ConsoleReporter, name: str, total: int, done: int) -> None:
        self._reporter, self._name, self._total, self._done = reporter, name, total, done

    def __call__(self, units: int) -> None:
        before, self._done = self._done, self._done + units
        if self._total and before * 10 // self._total != self._done * 10 // self._total:
            self._reporter.message(f"{self._name}: {self._done} of {self._total}")
