"""Figures of a precision search (size and CPU time against lost retrieval, cost of each layer) and of index tuning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from edgecsd.report.drawing.style import INK, MARKERS, MUTED, PALETTE, VERMILLION, look, new_figure

LAYERS_SHOWN = 20


@dataclass(frozen=True)
class Point:
    """A trial: size in megabytes, CPU time by fp32's where it was measured, and the share that is lost."""

    name: str
    precision: str
    megabytes: float
    cpu_ratio: float | None
    loss: float
    low: float
    high: float


def pareto_figure(
    points: Sequence[Point],
    chosen: str | None,
    most_lost: float,
    most_megabytes: float | None = None,
    most_cpu: float | None = None,
) -> Figure:
    """Size against loss and, where it was measured, CPU time against loss, with the limits."""
    timed = any(point.cpu_ratio is not None for point in points)
    with look():
        figure = new_figure(3.4)
        panels = figure.subplots(1, 2 if timed else 1, sharey=True, squeeze=False)[0]
        _panel(panels[0], points, [point.megabytes for point in points], chosen, most_lost, most_megabytes)
        panels[0].set_xlabel("size of the file, MB")
        panels[0].set_ylabel("overlap@10 lost, %")
        panels[0].legend(loc="best")
        if timed:
            ratios = [math.nan if point.cpu_ratio is None else point.cpu_ratio for point in points]
            _panel(panels[1], points, ratios, chosen, most_lost, most_cpu)
            panels[1].set_xlabel("CPU time by the fp32 file's")
    return figure


def _panel(
    axes: Axes,
    points: Sequence[Point],
    places: Sequence[float],
    chosen: str | None,
    most_lost: float,
    most: float | None,
) -> None:
    """The trials at `places` along x, and both limits."""
    for number, precision in enumerate(dict.fromkeys(point.precision for point in points)):
        mine = [(x, point) for x, point in zip(places, points, strict=True) if point.precision == precision]
        xs, colour = [x for x, _ in mine], PALETTE[number]
        axes.vlines(xs, [100 * p.low for _, p in mine], [100 * p.high for _, p in mine], color=colour, alpha=0.5)
        axes.plot(xs, [100 * p.loss for _, p in mine], MARKERS[number], color=colour, label=precision)
    dashed: dict[str, Any] = {"color": MUTED, "linestyle": (0, (4, 3)), "linewidth": 1.1}
    axes.axhline(100 * most_lost, label="limits" if most else f"limit {most_lost:.1%}", **dashed)
    if most is not None:
        axes.axvline(most, **dashed)
    for x, point in zip(places, points, strict=True):
        if point.name == chosen:
            left = x > 0.7 * max(places)  # of the point, where there is no room on its right
            axes.annotate(
                "chosen",
                (x, 100 * point.loss),
                (-8 if left else 8, 8),
                textcoords="offset points",
                fontsize=8,
                color=INK,
                ha="right" if left else "left",
                arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.7},
            )
    axes.set_xlim(left=0)


def layers_figure(layers: Sequence[tuple[str, float]], in_float: frozenset[str]) -> Figure:
    """(name, loss) of the layers that cost most, the costliest first; those that stay float are red."""
    shown = list(layers)[:LAYERS_SHOWN]
    with look():
        figure = new_figure(0.8 + 0.24 * len(shown))
        axes = figure.subplots()
        colours = [VERMILLION if name in in_float else PALETTE[0] for name, _ in shown]
        axes.barh(range(len(shown)), [100 * loss for _, loss in shown], color=colours, height=0.7)
        axes.set_yticks(range(len(shown)), [name for name, _ in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("overlap@10 lost by this layer alone in 8 bit, % (red: left in float)")
    return figure


Candidate = tuple[str, float, float, float]  # candidate, milliseconds, recall by query model, by gallery model


def tuning_figure(points: Sequence[Candidate], target: float, chosen: Candidate | None) -> Figure:
    """Each candidate as a line over its depths, filled for the query model and hollow for the gallery model."""
    names = list(dict.fromkeys(point[0] for point in points))
    with look():
        figure = new_figure(4.2)
        axes = figure.subplots()
        for number, name in enumerate(names):
            own = sorted((point for point in points if point[0] == name), key=lambda point: point[1])
            colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
            times = [point[1] for point in own]
            axes.plot(times, [point[2] for point in own], marker=marker, color=colour, label=name)
            axes.plot(
                times,
                [point[3] for point in own],
                marker=marker,
                color=colour,
                linestyle=(0, (1, 2)),
                alpha=0.6,
                markerfacecolor="none",
            )
        axes.axhline(target, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.1)
        if chosen is not None:
            axes.annotate(
                "chosen",
                (chosen[1], chosen[2]),
                (10, -16),
                textcoords="offset points",
                fontsize=8,
                color=INK,
                arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.7},
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("milliseconds a query, one thread")
        axes.set_ylabel("recall")
        axes.plot([], [], marker="o", color=MUTED, label="query model")
        axes.plot([], [], marker="o", color=MUTED, linestyle=(0, (1, 2)), markerfacecolor="none", label="gallery model")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
