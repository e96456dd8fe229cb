"""Rows of bench as figures in a folder: distribution, latency against what is found, and of a soak the minutes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgecsd.bench.schema import BenchRow, Status
from edgecsd.bench.soak import Soak


def plot_rows(rows: Sequence[BenchRow], folder: Path, soaks: Sequence[tuple[str, Soak]] = ()) -> list[Path]:
    """Write distribution, pareto and, with soaks, soak as .png and .svg; the files that were written.

    The figure of merit is the overlap with the reference's neighbours where rows were searched, else the mean cosine
    to the reference. Rows without figures are left out.
    """
    from edgecsd.report.bench_figures import distribution_figure, pareto_figure, soak_figure
    from edgecsd.report.plots import save

    measured = [row for row in rows if row.status is Status.OK and row.repeats]
    figures = {}
    if measured:
        figures["distribution"] = distribution_figure([(name_of(row), _milliseconds(row)) for row in measured])
    searched = [row for row in measured if row.neighbours is not None]
    depths = {row.neighbours.k for row in searched if row.neighbours is not None}
    told = f"overlap@{min(depths)} with the reference" if depths else "mean cosine to the reference"
    points = [
        (name_of(row), row.provenance, float(row.figures.p50_ms), merit)
        for row in measured if row.figures is not None and (merit := _merit(row, bool(searched))) is not None
    ]  # fmt: skip
    if points:
        figures["pareto"] = pareto_figure(points, told)
    if soaks:
        figures["soak"] = soak_figure([
            (
                name, np.array([window.start / 60 for window in soak.windows]),
                np.array([window.p50_ms for window in soak.windows]),
                np.array([window.cpu_p50_ms for window in soak.windows]),
                None if soak.onset is None else soak.onset / 60,
            )
            for name, soak in soaks
        ])  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    return [path for name, figure in figures.items() for path in save(figure, folder / name)]


def name_of(row: BenchRow) -> str:
    """File and threads."""
    return f"{Path(row.file).name}, {row.threads} thread{'s' if row.threads > 1 else ''}"


def _merit(row: BenchRow, searched: bool) -> float | None:
    if searched:
        return None if row.neighbours is None else row.neighbours.overlap_mean
    return None if row.parity is None else row.parity.cosine_mean


def _milliseconds(row: BenchRow) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.concatenate([np.array(repeat.wall_ns, np.float64) / 1e6 for repeat in row.repeats])
