"""Plots of means with their intervals: lines over a number, dots over names; and histograms. Saved as PNG and SVG."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from edgecsd.errors import BadInputError
from edgecsd.files.whole import replace_whole
from edgecsd.report.drawing.style import DOTS_PER_INCH, INK, MARKERS, MUTED, PALETTE, look, new_figure, printable

Values = NDArray[np.float64]
ROW_HEIGHT = 0.36  # inches a name takes


def line_with_band(
    x: ArrayLike,
    mean: ArrayLike,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    *,
    x_label: str = "",
    y_label: str = "",
    title: str = "",
    name: str = "",
    log_x: bool = False,
    reference: float | None = None,
    reference_name: str = "",
    onto: Figure | None = None,
) -> Figure:
    """Means (n,) over numbers x (n,), sorted here, with the interval low to high as a band (and none without them).

    log_x: a base-2 axis with a tick at each x, for K. reference: a dashed level. onto: a figure this function made, to
    which the series is added in the next colour and marker; `name` stands in the legend. Raises BadInputError for
    series of different lengths, values that are not finite, intervals that miss their mean, and x <= 0 with log_x.
    """
    columns = _checked(mean, low, high, len(np.atleast_1d(x)))
    places = np.asarray(x, np.float64).reshape(-1)
    if log_x and (places <= 0).any():
        raise BadInputError(f"x = {places.min():g} cannot stand on a logarithmic axis; all must be above 0")
    order = np.argsort(places, kind="stable")
    places, columns = places[order], [column[order] for column in columns]
    with look():
        figure = onto or new_figure(3.1)
        axes = figure.axes[0] if onto else figure.subplots()
        number = sum(line.get_marker() in MARKERS for line in axes.lines) % len(PALETTE)  # reference lines have none
        axes.fill_between(places, columns[1], columns[2], color=PALETTE[number], alpha=0.18, linewidth=0)
        axes.plot(places, columns[0], color=PALETTE[number], marker=MARKERS[number], label=printable(name) or None)
        if log_x:
            _ticks_at(axes, np.union1d(places, axes.xaxis.get_majorticklocs() if onto else places))
        _reference(axes, reference, reference_name, vertical=False)
        _words(axes, x_label, y_label, title)
    return figure


def dots_with_intervals(
    names: Sequence[str],
    mean: ArrayLike,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    *,
    x_label: str = "",
    title: str = "",
    reference: float | None = None,
    reference_name: str = "",
) -> Figure:
    """A dot and a whisker a name, in the order given from the top, with the mean written above it.

    The axis starts where the values are, not at 0: whiskers, not lengths, are to be compared. Raises BadInputError as
    `line_with_band` does, and for no name at all.
    """
    middle, bottom, top = _checked(mean, low, high, len(names))
    rows = np.arange(len(names))
    with look():
        figure = new_figure(0.9 + ROW_HEIGHT * len(names))
        axes = figure.subplots()
        axes.hlines(rows, bottom, top, color=PALETTE[0], linewidth=1.6)
        axes.plot(middle, rows, "o", color=PALETTE[0])
        for row, value in zip(rows, middle, strict=True):
            axes.annotate(
                f"{value:.3f}", (value, row), (0, 4), textcoords="offset points", ha="center", fontsize=7.5, color=INK
            )
        axes.set_yticks(rows, [printable(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.grid(visible=False, axis="y")
        _reference(axes, reference, reference_name, vertical=True)
        _words(axes, x_label, "", title)
    return figure


def histogram(
    values: ArrayLike, *, edges: ArrayLike, x_label: str = "", y_label: str = "queries", title: str = ""
) -> Figure:
    """How many of the values (n,) fall between the edges (m + 1,), with their mean as a dashed line."""
    sample = np.asarray(values, np.float64)
    with look():
        figure = new_figure(2.5)
        axes = figure.subplots()
        axes.hist(sample, bins=np.asarray(edges, np.float64).tolist(), color=PALETTE[0], rwidth=0.9)
        axes.grid(visible=False, axis="x")
        axes.axvline(float(sample.mean()), color=INK, linestyle=(0, (4, 3)), label=f"mean {sample.mean():.3f}")
        _words(axes, x_label, y_label, title)
    return figure


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write `stem`.png (150 dots an inch) and `stem`.svg (text stays text); the two paths.

    The same figure gives the same bytes: no date, no random ids.
    """
    paths = (stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg"))
    with look():
        for path, options in zip(paths, ({"dpi": DOTS_PER_INCH}, {"metadata": {"Date": None}}), strict=True):
            with replace_whole(path) as temporary, warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a label in a script the font lacks
                figure.savefig(temporary, **options)  # type: ignore[arg-type]
    return paths


def _checked(mean: ArrayLike, low: ArrayLike | None, high: ArrayLike | None, count: int) -> list[Values]:
    """Mean, low and high as (count,) arrays; without intervals low = high = mean."""
    middle = np.asarray(mean, np.float64).reshape(-1)
    columns = [middle, *(middle if c is None else np.asarray(c, np.float64).reshape(-1) for c in (low, high))]
    if not count or any(len(column) != count for column in columns):
        lengths = ", ".join(str(len(column)) for column in columns)
        raise BadInputError(f"{count} places, but {lengths} values for mean, low, high: as many of each, 1 or more")
    if not all(np.isfinite(column).all() for column in columns):
        raise BadInputError("a mean or an end of an interval is not a finite number; leave such points out")
    outside = (middle < columns[1]) | (middle > columns[2])
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        raise BadInputError(
            f"the interval [{columns[1][at]:g}, {columns[2][at]:g}] does not hold its mean {middle[at]:g}; "
            "low and high are the ends themselves, not distances from the mean"
        )
    return columns


def _ticks_at(axes: Axes, places: NDArray[Any]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(places.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _reference(axes: Axes, level: float | None, name: str, *, vertical: bool) -> None:
    if level is None:
        return
    draw = axes.axvline if vertical else axes.axhline
    draw(level, color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)), label=name or None, zorder=1)


def _words(axes: Axes, x_label: str, y_label: str, title: str) -> None:
    for put, text in ((axes.set_xlabel, x_label), (axes.set_ylabel, y_label), (axes.set_title, title)):
        if text:
            put(text)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="best")
