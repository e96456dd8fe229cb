"""Rows of bench as a table: of this host, devices, browsers and other tools alike. "-": not reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecsd.cli.console import table
from edgecsd.errors import MissingBackendError

if TYPE_CHECKING:
    from edgecsd.measuring.schema import BenchRow, LatencyFigures

UNCHECKED = "a row without cosine brought no embeddings: whether they were right there is not known"
BUSY = "the machine was busy: wall times are well above CPU time; compare cpu ms, or measure again"


def rows_table(rows: Sequence[BenchRow]) -> str:
    """A line a row; columns that only some tools fill are left out where no row has them."""
    shown = [(title, cell) for title, cell, always in COLUMNS if always or any(cell(row) != "-" for row in rows)]
    lines = [table(tuple(title for title, _ in shown), [tuple(cell(row) for _, cell in shown) for row in rows])]
    lines += [f"{row.name}: {row.reason}" for row in rows if row.reason]
    if any(row.contended for row in rows):
        lines.append(BUSY)
    if any(row.figures and row.parity is None for row in rows):
        lines.append(UNCHECKED)
    return "\n".join([*lines, *sorted({_origin(row) for row in rows})])


def exit_code(rows: Sequence[BenchRow]) -> int:
    """1 if a row failed, else 4 if none could be measured where it was asked for, else 0."""
    statuses = {str(row.status) for row in rows}
    if "failed" in statuses:
        return 1
    return MissingBackendError.exit_code if statuses == {"not-measurable"} else 0


def _origin(row: BenchRow) -> str:
    fed = f"; input: {row.input_count} {row.input}" if row.input else ""
    return f"{row.provenance}: {row.label}{fed}"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _ms(of: Callable[[LatencyFigures], float | None]) -> Callable[[BenchRow], str]:
    return lambda row: _figure(of(row.figures) if row.figures else None, 2)


def _mean(row: BenchRow) -> str:
    """The time of rows whose tool reports no median."""
    figures = row.figures
    if figures is None or figures.p50_ms is not None or figures.typical_ms is None:
        return "-"
    return f"{'about ' if figures.mean_ms is None else ''}{figures.typical_ms:.2f}"


def _first(row: BenchRow) -> str:
    """Of a browser, where it is what a visitor waits for, and of other tools."""
    return _figure(row.figures.first_ms, 2) if row.figures and row.figures.cpu_ms is None else "-"


COLUMNS: tuple[tuple[str, Callable[[BenchRow], str], bool], ...] = (
    ("file", lambda row: Path(row.file).name, True),
    ("back end", lambda row: row.backend or "-", False),
    ("threads", lambda row: "-" if row.threads is None else str(row.threads), True),
    ("status", lambda row: row.status.value, True),
    ("p90 ms", _ms(lambda figures: figures.p90_ms), True),
    ("p50 ms", _ms(lambda figures: figures.p50_ms), True),
    ("mean ms", _mean, False),
    ("first ms", _first, False),
    ("cpu ms", _ms(lambda figures: figures.cpu_ms), True),
    ("peak MB", lambda row: _figure(row.figures.peak_mb if row.figures else None, 1), True),
    ("size MB", lambda row: _figure(None if row.size_bytes is None else row.size_bytes / 1e6, 2), True),
    ("cosine", lambda row: _figure(row.parity.cosine_mean if row.parity else None, 5), True),
    ("overlap", lambda row: _figure(row.neighbours.overlap_mean if row.neighbours else None, 3), False),
)
