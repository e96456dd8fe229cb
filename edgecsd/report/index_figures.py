"""The figure of index tuning: recall against time, for vectors of the query model and of the gallery model."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from edgecsd.report.style import INK, MARKERS, MUTED, PALETTE, look, new_figure

Point = tuple[str, float, float, float]  # candidate, milliseconds, recall by query model, by gallery model


def tuning_figure(points: Sequence[Point], target: float, chosen: Point | None) -> Figure:
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
                times, [point[3] for point in own], marker=marker, color=colour, linestyle=(0, (1, 2)), alpha=0.6,
                markerfacecolor="none",
            )  # fmt: skip
        axes.axhline(target, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.1)
        if chosen is not None:
            axes.annotate(
                "chosen", (chosen[1], chosen[2]), (10, -16), textcoords="offset points", fontsize=8, color=INK,
                arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.7},
            )  # fmt: skip
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
