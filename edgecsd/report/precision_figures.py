"""Figures of a precision search: size against what retrieval loses, and what each layer costs in 8 bit."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from edgecsd.report.style import INK, MARKERS, MUTED, PALETTE, VERMILLION, look, new_figure

LAYERS_SHOWN = 20


def pareto_figure(points: Sequence[tuple[str, str, float, float, float, float]], chosen: str, most: float) -> Figure:
    """(name, precision, megabytes, loss, low, high) of each trial; losses are shares. most: the limit."""
    precisions = list(dict.fromkeys(point[1] for point in points))
    with look():
        figure = new_figure(3.4)
        axes = figure.subplots()
        for number, precision in enumerate(precisions):
            mine = [point for point in points if point[1] == precision]
            sizes, losses = [point[2] for point in mine], [100 * point[3] for point in mine]
            axes.vlines(sizes, [100 * p[4] for p in mine], [100 * p[5] for p in mine], color=PALETTE[number], alpha=0.5)
            axes.plot(sizes, losses, MARKERS[number], color=PALETTE[number], label=precision)
        axes.axhline(100 * most, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.1, label=f"limit {most:.1%}")
        for name, _, size, loss, _, _ in points:
            if name == chosen:
                axes.annotate(
                    "chosen", (size, 100 * loss), (8, 8), textcoords="offset points", fontsize=8, color=INK,
                    arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.7},
                )  # fmt: skip
        axes.set_xlabel("size of the file, MB")
        axes.set_ylabel("overlap@10 lost, %")
        axes.set_xlim(left=0)
        axes.legend(loc="best")
    return figure


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
