"""Figures of a study's JSON file: dots or lines with intervals, one figure a plot.

{"schema_version": 1, "title": "...", "plots": [
  {"kind": "dots", "title": "Loss", "x_label": "mAP",
   "points": [{"name": "KL", "mean": 0.70, "low": 0.68, "high": 0.72}]},
  {"kind": "line", "title": "Anchors", "x_label": "K", "y_label": "mAP", "log_x": true,
   "points": [{"series": "KL", "x": 64, "mean": 0.66, "low": 0.64, "high": 0.68}]}]}

`low` and `high` may be left out, both or neither; so may a plot's `reference` and `reference_name`, a level to compare
with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecsd.errors import BadInputError, DamagedFileError, validation_text
from edgecsd.files.whole import read_json
from edgecsd.report.drawing.plots import dots_with_intervals, line_with_band


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StudyPoint(_Model):
    """A mean with its interval, at a name (dots) or a number x of a series (line)."""

    mean: float
    low: float | None = None
    high: float | None = None
    name: str = ""
    x: float | None = None
    series: str = ""


class StudyPlot(_Model):
    """One figure."""

    kind: Literal["dots", "line"]
    title: str
    points: Annotated[tuple[StudyPoint, ...], Field(min_length=1)]
    x_label: str = ""
    y_label: str = ""
    log_x: bool = False
    reference: float | None = None
    reference_name: str = ""


class Study(_Model):
    """What a study found, as figures."""

    schema_version: Literal[1]
    plots: Annotated[tuple[StudyPlot, ...], Field(min_length=1)]
    title: str = "Study"


def read_study(file: Path) -> Study:
    """The study in a JSON file; what does not fit is named."""
    try:
        return Study.model_validate(read_json(file))
    except ValidationError as error:
        raise DamagedFileError(f"{file}: not a study's file: {validation_text(error)}") from None


def study_figure(plot: StudyPlot) -> Figure:
    """The figure of one plot."""
    if plot.kind == "dots":
        if plot.log_x:
            raise BadInputError(f"plot {plot.title!r}: log_x belongs to kind 'line'")
        mean, low, high = _columns(plot, plot.points)
        return dots_with_intervals(
            [point.name for point in plot.points],
            mean,
            low,
            high,
            x_label=plot.x_label,
            reference=plot.reference,
            reference_name=plot.reference_name,
        )
    figure: Figure | None = None
    for series in dict.fromkeys(point.series for point in plot.points):
        points = [point for point in plot.points if point.series == series]
        last = series == plot.points[-1].series
        figure = line_with_band(
            _places(plot, points),
            *_columns(plot, points),
            x_label=plot.x_label,
            y_label=plot.y_label,
            log_x=plot.log_x,
            name=series,
            onto=figure,
            reference=plot.reference if last else None,
            reference_name=plot.reference_name,
        )
    assert figure is not None  # a plot has at least one point
    return figure


def _places(plot: StudyPlot, points: list[StudyPoint]) -> list[float]:
    places = [point.x for point in points if point.x is not None]
    if len(places) != len(points):
        raise BadInputError(f"plot {plot.title!r}: kind 'line' needs 'x' in every point")
    return places


def _columns(
    plot: StudyPlot, points: tuple[StudyPoint, ...] | list[StudyPoint]
) -> tuple[list[float], list[float], list[float]]:
    """Means, lows and highs; a point without an interval has none on either side."""
    halves = [point for point in points if (point.low is None) != (point.high is None)]
    if halves:
        raise BadInputError(f"plot {plot.title!r}: a point has only one end of its interval; give 'low' and 'high'")
    mean = [point.mean for point in points]
    low = [point.mean if point.low is None else point.low for point in points]
    high = [point.mean if point.high is None else point.high for point in points]
    return mean, low, high
