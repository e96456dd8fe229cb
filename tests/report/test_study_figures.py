"""A study's file: both kinds of plots, and files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.report.run_page.study_figures import read_study, study_figure

DOTS = {"kind": "dots", "title": "Loss", "points": [{"name": "KL", "mean": 0.7, "low": 0.6, "high": 0.8}]}
LINE = {
    "kind": "line",
    "title": "Anchors",
    "log_x": True,
    "reference": 0.5,
    "reference_name": "ridge",
    "points": [
        {"series": "KL", "x": 64, "mean": 0.6},
        {"series": "L2", "x": 64, "mean": 0.4},
        {"series": "KL", "x": 512, "mean": 0.7},
    ],
}


def study(folder: Path, *plots: dict[str, Any], **changes: Any) -> Path:
    file = folder / "study.json"
    file.write_text(json.dumps({"schema_version": 1, "title": "A study", "plots": plots, **changes}))
    return file


def test_both_kinds_are_drawn(tmp_path: Path) -> None:
    read = read_study(study(tmp_path, DOTS, LINE))
    dots, line = (study_figure(plot) for plot in read.plots)
    assert read.title == "A study" and [text.get_text() for text in dots.axes[0].texts] == ["0.700"]
    legend = line.axes[0].get_legend()
    assert legend is not None and sorted(text.get_text() for text in legend.get_texts()) == ["KL", "L2", "ridge"]
    assert list(line.axes[0].get_xticks()) == [64, 512]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"plots": []}, "plots"),
        ({"plots": [{**DOTS, "colour": "red"}]}, "colour"),
        ({"plots": [{**DOTS, "kind": "pie"}]}, "kind"),
    ],
)
def test_other_files_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match=rf"study.json: not a study's file: .*{message}"):
        read_study(study(tmp_path, DOTS, **changes))


@pytest.mark.parametrize(
    ("plot", "message"),
    [
        ({**DOTS, "log_x": True}, "'Loss': log_x belongs to kind 'line'"),
        ({**DOTS, "points": [{"name": "KL", "mean": 0.7, "low": 0.6}]}, "only one end of its interval"),
        ({**LINE, "points": [{"mean": 0.7}]}, "needs 'x' in every point"),
        ({**LINE, "points": [{"x": 0, "mean": 0.7}]}, "logarithmic axis"),
    ],
)
def test_plots_that_cannot_be_drawn_are_refused(plot: dict[str, Any], message: str, tmp_path: Path) -> None:
    read = read_study(study(tmp_path, plot))
    with pytest.raises(BadInputError, match=message):
        study_figure(read.plots[0])
