"""Figures of a run: what each stage reached, and loss and held-out overlap on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from edgecsd.report.drawing.style import INK, MARKERS, MUTED, PALETTE, look, new_figure


def stages_figure(stages: Sequence[tuple[str, float, float]], overlap_k: int) -> Figure:
    """(name, overlap, cosine) of each stage, in order: overlap and cosine side by side, with their values."""
    names = [name for name, _, _ in stages]
    panels = ((f"held-out overlap@{overlap_k}", 1), ("held-out cosine to g", 2))
    rows = list(range(len(stages)))
    with look():
        figure = new_figure(1.0 + 0.35 * len(stages))
        for number, (axes, (title, column)) in enumerate(zip(figure.subplots(1, 2, sharey=True), panels, strict=True)):
            values = [float(stage[column]) for stage in stages]
            axes.plot(values, rows, MARKERS[number], color=PALETTE[number])
            axes.hlines(rows, 0, values, color=PALETTE[number], alpha=0.35, linewidth=2)
            for row, value in zip(rows, values, strict=True):
                axes.annotate(
                    f"{value:.3f}", (value, row), (6, 0), textcoords="offset points", va="center", fontsize=8, color=INK
                )
            axes.set_yticks(rows, names)
            axes.set_xlim(min(0.0, *values), max(1.0, *values) * 1.18)
            axes.grid(visible=False, axis="y")
            axes.set_title(title)
        axes.set_ylim(len(stages) - 0.5, -0.5)
    return figure


def steps_figure(records: Sequence[dict[str, Any]]) -> Figure | None:
    """Loss above held-out overlap, over the steps of all stages one after another; None where nothing was recorded.

    records: lines of metrics.jsonl: stage, step, loss (None before the first step), held_out_overlap.
    """
    stages = list(dict.fromkeys(str(record["stage"]) for record in records if "stage" in record and "step" in record))
    if not stages:
        return None
    panels = (("loss", "training loss"), ("held_out_overlap", "held-out overlap"))
    with look():
        figure = new_figure(4.4)
        axes_of = figure.subplots(2, 1, sharex=True)
        begin = 0.0
        for number, stage in enumerate(stages):
            lines = [record for record in records if record.get("stage") == stage]
            for axes, (key, _) in zip(axes_of, panels, strict=True):
                _draw_stage(axes, lines, key, begin, number, stage)
            begin += max(float(record.get("step", 0)) for record in lines)
            if stage != stages[-1]:
                for axes in axes_of:
                    axes.axvline(begin, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        for axes, (_, name) in zip(axes_of, panels, strict=True):
            axes.set_ylabel(name)
        axes_of[1].set_xlabel("steps, the stages one after another")
        axes_of[0].legend(loc="best")
    return figure


def _draw_stage(axes: Axes, lines: Sequence[dict[str, Any]], key: str, begin: float, number: int, stage: str) -> None:
    points = [
        (begin + float(record["step"]), float(record[key]))
        for record in lines
        if isinstance(record.get(key), int | float) and math.isfinite(record[key])
    ]
    number %= len(PALETTE)
    axes.plot(
        [x for x, _ in points], [y for _, y in points], color=PALETTE[number], marker=MARKERS[number], label=stage
    )
