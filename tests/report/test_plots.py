"""Plots with intervals: what is drawn where, what is refused, and files that are the same each time."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from figure_checks import ink
from matplotlib import rcParams

from edgecsd.errors import BadInputError
from edgecsd.report.drawing.plots import dots_with_intervals, histogram, line_with_band, save
from edgecsd.report.drawing.style import DARK_OF, PALETTE, dark, printable


def test_line_with_band_draws_sorted_points_with_a_tick_at_each() -> None:
    figure = line_with_band([1024, 64, 256], [0.7, 0.5, 0.6], [0.68, 0.45, 0.55], [0.72, 0.55, 0.65], log_x=True)
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [64, 256, 1024])
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.5, 0.6, 0.7])
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 0.45 and band[:, 1].max() == 0.72
    assert axes.get_xscale() == "log" and list(axes.get_xticks()) == [64, 256, 1024]


def test_a_second_series_takes_the_next_colour_and_its_ticks_join() -> None:
    first = line_with_band([1, 4], [1, 2], name="KL", log_x=True, reference=1.5, reference_name="ridge")
    both = line_with_band([2, 4], [2, 3], name="L2", log_x=True, onto=first)
    (axes,) = both.axes
    drawn = [line for line in axes.lines if line.get_label() in ("KL", "L2")]
    assert both is first and [line.get_color() for line in drawn] == list(PALETTE[:2])
    assert drawn[0].get_marker() != drawn[1].get_marker()
    assert list(axes.get_xticks()) == [1, 2, 4]
    legend = axes.get_legend()
    assert legend is not None and {text.get_text() for text in legend.get_texts()} == {"KL", "L2", "ridge"}


def test_dots_stand_in_the_order_given_from_the_top() -> None:
    figure = dots_with_intervals(["KL", "L2"], [0.7, 0.6], [0.6, 0.5], [0.8, 0.65], x_label="mAP", reference=0.55)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["KL", "L2"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert [segment.tolist() for segment in axes.collections[0].get_segments()] == [
        [[0.6, 0], [0.8, 0]],
        [[0.5, 1], [0.65, 1]],
    ]
    assert [text.get_text() for text in axes.texts] == ["0.700", "0.600"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (([1, 2], [1.0]), "2 places, but 1, 1, 1 values"),
        (([], []), "0 places"),
        (([1], [float("nan")]), "not a finite number"),
        (([1], [0.5], [0.6], [0.7]), r"\[0.6, 0.7\] does not hold its mean 0.5"),
        (([0], [0.5]), "x = 0 cannot stand on a logarithmic axis"),
    ],
)
def test_what_cannot_be_drawn_is_refused(values: tuple[list[float], ...], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        line_with_band(*values, log_x=True)


def test_histogram_counts() -> None:
    figure = histogram([0.1, 0.1, 0.9], edges=[0, 0.5, 1])
    assert [bar.get_height() for bar in figure.axes[0].patches] == [2, 1]
    assert figure.axes[0].lines[0].get_label() == "mean 0.367"


def test_saved_files_have_ink_and_text_and_are_the_same_each_time(tmp_path: Path) -> None:
    settings = dict(rcParams)
    files = []
    for name in ("one", "two"):
        figure = dots_with_intervals(["cost $5_$", "猫\x00 <b>"], [0.7, 0.6], title="Loss")
        files.append(save(figure, tmp_path / name / "v1.5"))
    assert [file.name for file in files[0]] == ["v1.5.png", "v1.5.svg"]
    assert ink(files[0][0]) > 0.01
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
    svg = files[0][1].read_text()
    texts = ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter() if "text" in element.tag]
    assert "Loss" in texts and "cost $5_$" in texts and "猫? <b>" in texts
    assert dict(rcParams) == settings
    night = dark(svg)
    assert not any(light in night for light in DARK_OF) and any(light in svg for light in DARK_OF)
    assert list(tmp_path.rglob("*.tmp*")) == []


def test_printable_cuts_and_cleans() -> None:
    assert printable("abc\n") == "abc?" and printable("a" * 50, 5) == "aaaa…"
