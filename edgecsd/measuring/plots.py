"""Rows of bench as figures in a folder: distribution, latency against what is found, and of a soak the minutes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgecsd.measuring.schema import BenchRow, Status
from edgecsd.measuring.soak import Soak


def plot_rows(rows: Sequence[BenchRow], folder: Path, soaks: Sequence[tuple[str, Soak]] = ()) -> list[Path]:
    """Write distribution, pareto and, with soaks, soak as .png and .svg; the files that were written.

    The figure of merit is the overlap with the reference's neighbours where rows were searched, else the mean cosine
    to the reference. A row without embeddings (another tool's) has that of a row of the same file, and its name says
    "not checked". Rows without figures are left out of both, those without a raw series out of the distribution.
    """
    from edgecsd.report.bench_figures import distribution_figure, pareto_figure, soak_figure
    from edgecsd.report.drawing.plots import save

    measured = [row for row in rows if row.status is Status.OK]
    series = [(f"{row.name} ({row.device})", _milliseconds(row)) for row in measured if row.repeats]
    figures = {}
    if series:
        figures["distribution"] = distribution_figure(series)
    merits, label = _merits(measured)
    points = [
        (row.name if checked else f"{row.name}, not checked", row.device, row.figures.typical_ms, merit)
        for row, (merit, checked) in zip(measured, merits, strict=True)
        if row.figures is not None and row.figures.typical_ms is not None and merit is not None
    ]
    if points:
        figures["pareto"] = pareto_figure(points, label)
    if soaks:
        figures["soak"] = soak_figure(
            [
                (
                    name,
                    np.array([window.start / 60 for window in soak.windows]),
                    np.array([window.p50_ms for window in soak.windows]),
                    np.array([window.cpu_p50_ms for window in soak.windows]),
                    None if soak.onset is None else soak.onset / 60,
                )
                for name, soak in soaks
            ]
        )
    folder.mkdir(parents=True, exist_ok=True)
    return [path for name, figure in figures.items() for path in save(figure, folder / name)]


def _merits(rows: Sequence[BenchRow]) -> tuple[list[tuple[float | None, bool]], str]:
    """Of each row what its embeddings find and whether they are its own; and what that is."""
    depths = [row.neighbours.k for row in rows if row.neighbours is not None]
    own = [_merit(row, bool(depths)) for row in rows]
    of_file = {row.sha256: merit for row, merit in zip(rows, own, strict=True) if row.sha256 and merit is not None}
    label = f"overlap@{min(depths)} with the reference" if depths else "mean cosine to the reference"
    found = [
        (of_file.get(row.sha256), False) if merit is None and row.parity is None else (merit, True)
        for row, merit in zip(rows, own, strict=True)
    ]
    return found, label


def _merit(row: BenchRow, searched: bool) -> float | None:
    if searched:
        return None if row.neighbours is None else row.neighbours.overlap_mean
    return None if row.parity is None else row.parity.cosine_mean


def _milliseconds(row: BenchRow) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.concatenate([np.array(repeat.wall_ns, np.float64) / 1e6 for repeat in row.repeats])
