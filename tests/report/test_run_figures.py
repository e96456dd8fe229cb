"""Figures of a run's stages and steps."""

from __future__ import annotations

import numpy as np

from edgecsd.report.run_page.run_figures import stages_figure, steps_figure


def test_stages_stand_side_by_side() -> None:
    figure = stages_figure([("closed-form start", 0.46, 0.71), ("head", 0.48, -0.1)], 10)
    overlap, cosine = figure.axes
    assert overlap.get_title("left") == "held-out overlap@10"
    assert [text.get_text() for text in overlap.texts] == ["0.460", "0.480"]
    assert [text.get_text() for text in cosine.texts] == ["0.710", "-0.100"]
    assert [label.get_text() for label in overlap.get_yticklabels()] == ["closed-form start", "head"]
    assert cosine.get_xlim()[0] <= -0.1


def test_steps_of_stages_follow_one_another() -> None:
    records = [
        {"stage": "head", "step": 0, "loss": None, "held_out_overlap": 0.3},
        {"stage": "head", "step": 50, "loss": 0.2, "held_out_overlap": 0.4},
        {"stage": "network", "step": 0, "loss": None, "held_out_overlap": 0.4},
        {"stage": "network", "step": 30, "loss": float("nan"), "held_out_overlap": 0.5},
        {"something": "else"},
    ]
    figure = steps_figure(records)
    assert figure is not None
    loss, overlap = figure.axes
    drawn = {line.get_label(): line for line in overlap.lines}
    np.testing.assert_array_equal(drawn["head"].get_xydata(), [[0, 0.3], [50, 0.4]])
    np.testing.assert_array_equal(drawn["network"].get_xydata(), [[50, 0.4], [80, 0.5]])
    np.testing.assert_array_equal({line.get_label(): line for line in loss.lines}["head"].get_xydata(), [[50, 0.2]])


def test_nothing_recorded_is_no_figure() -> None:
    assert steps_figure([]) is None and steps_figure([{"step": 3}]) is None
