"""Figures of bench rows: how times are distributed, latency against what is found, latency over minutes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray

from edgecsd.report.drawing.style import INK, MARKERS, MUTED, PALETTE, VERMILLION, look, new_figure

Values = NDArray[np.float64]
LEGEND_WIDTH = 34  # characters of a name
NUMBER_WIDTH, NUMBER_HEIGHT = 0.04, 0.06  # of a point's number, shares of the axes
FEW_DECADES = 2.5
DASHES = ("-", "--", ":")  # of lines that share a colour


def distribution_figure(series: Sequence[tuple[str, Values]]) -> Figure:
    """The share of runs that took at most so long, a line for each (name, milliseconds)."""
    with look():
        figure = new_figure(3.4)
        axes = figure.subplots()
        for number, (name, values) in enumerate(series):
            ordered = np.sort(values)
            share = np.arange(1, len(ordered) + 1) / len(ordered)
            colour, dashes = PALETTE[number % len(PALETTE)], DASHES[number // len(PALETTE) % len(DASHES)]
            axes.plot(ordered, share, color=colour, linestyle=dashes, label=_short(name), drawstyle="steps-post")
        for level in (0.5, 0.9):
            axes.axhline(level, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.set_xscale("log")
        _plain_ticks(axes, np.concatenate([values for _, values in series]))
        axes.set_xlabel("milliseconds an inference")
        axes.set_ylabel("share of runs")
        axes.set_ylim(0, 1.02)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def pareto_figure(points: Sequence[tuple[str, str, float, float]], found: str) -> Figure:
    """(name, device, milliseconds, figure of merit) of each row; on the line are those that no other beats in both.

    Points bear numbers, the soonest first, and a list beside the axes has their names (at the points they overlap).
    """
    points = sorted(points, key=lambda point: (point[2], -point[3]))
    devices = list(dict.fromkeys(point[1] for point in points))
    with look():
        figure = new_figure(max(3.8, 0.16 * len(points) + 1.2))
        axes = figure.subplots()
        best = front([(point[2], point[3]) for point in points])
        axes.plot([points[n][2] for n in best], [points[n][3] for n in best], color=MUTED, linewidth=1.1, zorder=1)
        for number, device in enumerate(devices):
            own = [point for point in points if point[1] == device]
            colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
            axes.plot([p[2] for p in own], [p[3] for p in own], marker, color=colour, label=_short(device))
        axes.set_xscale("log")
        _plain_ticks(axes, np.array([point[2] for point in points]))
        axes.margins(x=0.18, y=0.12)
        lowest = min(point[3] for point in points)
        low, high = lowest - max(0.01, 0.12 * (1 - lowest)), 1 + max(0.002, 0.05 * (1 - lowest))
        axes.set_ylim(low, high)
        for place, level in enumerate(_levels([(point[2], (point[3] - low) / (high - low)) for point in points])):
            axes.annotate(
                str(place + 1),
                points[place][2:],
                (0, -11 - 9 * level),
                textcoords="offset points",
                fontsize=7,
                color=INK,
                ha="center",
            )
        names = "\n".join(f"{place + 1}  {name}" for place, (name, *_) in enumerate(points))
        axes.annotate(names, (1.03, 1), xycoords="axes fraction", va="top", fontsize=7, color=INK)
        axes.set_xlabel("milliseconds an inference, median")
        axes.set_ylabel(found)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return figure


def _levels(points: Sequence[tuple[float, float]]) -> list[int]:
    """Of points (milliseconds, share of the height), soonest first: how many others' numbers each has to go below."""
    width = np.log(points[-1][0] / points[0][0]) or 1.0
    taken: list[tuple[float, float, int]] = []
    for milliseconds, height in points:
        near = {
            level
            for time, other, level in taken
            if np.log(milliseconds / time) < NUMBER_WIDTH * width and abs(height - other) < NUMBER_HEIGHT
        }
        taken.append((milliseconds, height, next(level for level in range(len(points)) if level not in near)))
    return [level for _, _, level in taken]


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of (time, merit) that no other point beats in both, soonest first."""
    kept: list[int] = []
    for place in sorted(range(len(points)), key=lambda number: (points[number][0], -points[number][1])):
        if not kept or points[place][1] > points[kept[-1]][1]:
            kept.append(place)
    return kept


def soak_figure(series: Sequence[tuple[str, Values, Values, Values, float | None]]) -> Figure:
    """(name, minutes, median ms, median CPU ms, minutes until it became slower or None) of each row."""
    with look():
        figure = new_figure(3.2)
        axes = figure.subplots()
        for number, (name, minutes, wall, cpu, onset) in enumerate(series):
            colour = PALETTE[number % len(PALETTE)]
            axes.plot(minutes, wall, color=colour, label=_short(name))
            axes.plot(minutes, cpu, color=colour, linestyle=(0, (1, 2)), alpha=0.7)
            if onset is not None:
                axes.axvline(onset, color=VERMILLION, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.plot([], [], color=MUTED, label="wall time")
        axes.plot([], [], color=MUTED, linestyle=(0, (1, 2)), label="CPU time")
        axes.set_xlabel("minutes")
        axes.set_ylabel("milliseconds, median of a window")
        axes.set_ylim(bottom=0)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LEGEND_WIDTH else f"{name[: LEGEND_WIDTH - 3]}..."


def _plain_ticks(axes: object, values: Values) -> None:
    """Whole powers of ten, and where there are few of them what lies between."""
    axis = axes.xaxis  # type: ignore[attr-defined]
    decades = float(np.log10(values.max() / values.min())) if len(values) else 0.0
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < FEW_DECADES else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_locator(NullLocator())
