"""Gates: when a figure passes, fails or is undecided; thresholds by precision, file and command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecsd.errors import BadInputError
from edgecsd.gate.gates import FEWEST, Gate, Judgement, Kind, Verdict, exact_gate, sampled_gate
from edgecsd.gate.thresholds import DEFAULT_THRESHOLDS, choose_thresholds, read_thresholds
from edgecsd.metrics.bootstrap import bootstrap_interval


def sampled(values: np.ndarray, threshold: float, **options: Any) -> Gate:
    return sampled_gate("figure", values, bootstrap_interval(values), threshold, "do this", **options)


def test_an_interval_decides() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 100)
    interval = bootstrap_interval(values)
    assert sampled(values, interval.low - 1e-6).verdict is Verdict.PASSED
    assert sampled(values, interval.high + 1e-6).verdict is Verdict.FAILED
    for inside in (interval.low + 1e-6, interval.high - 1e-6):
        assert sampled(values, inside).verdict is Verdict.UNDECIDED
    assert sampled(values, interval.high + 1e-6, at_most=True).verdict is Verdict.PASSED
    assert sampled(values, interval.low - 1e-6, at_most=True).verdict is Verdict.FAILED


def test_an_undecided_gate_says_how_many_queries_would_decide() -> None:
    """n = ((1.96 + 0.8416) s / d)^2, by hand."""
    values = np.random.default_rng(0).normal(0.5, 0.3, 50)
    threshold = float(values.mean()) + 0.02
    gate = sampled(values, threshold)
    expected = ((1.959964 + 0.841621) * values.std(ddof=1) / 0.02) ** 2
    assert gate.verdict is Verdict.UNDECIDED and gate.passed
    assert gate.queries_needed == int(np.ceil(expected)) and f"about {gate.queries_needed} would" in gate.message
    assert "If it is: do this" in gate.message  # the figure itself is on the wrong side
    assert "do this" not in sampled(values, threshold - 0.04).message


def test_values_that_are_all_equal_are_decided_but_a_handful_passes_nothing() -> None:
    assert sampled(np.zeros(5), 0.3).verdict is Verdict.FAILED
    assert sampled(np.zeros(FEWEST), 0.005, at_most=True).verdict is Verdict.PASSED
    few = sampled(np.zeros(FEWEST - 1), 0.005, at_most=True)
    assert few.verdict is Verdict.UNDECIDED and few.queries_needed == FEWEST and f"about {FEWEST} would" in few.message
    assert sampled(np.ones(1), 0.3).verdict is Verdict.UNDECIDED  # one query has no interval


def test_an_exact_figure_passes_or_fails() -> None:
    def verdict(figure: float, *, at_most: bool) -> Verdict:
        return exact_gate("figure", Kind.NUMERICS, figure, 0.5, "do this", at_most=at_most).verdict

    assert verdict(0.5, at_most=True) is verdict(0.5, at_most=False) is Verdict.PASSED
    assert verdict(0.51, at_most=True) is verdict(0.49, at_most=False) is Verdict.FAILED
    assert verdict(float("nan"), at_most=True) is verdict(float("nan"), at_most=False) is Verdict.FAILED


def judgement(*verdicts: Verdict, strict: bool = False) -> Judgement:
    gates = tuple(Gate("figure", Kind.RETRIEVAL, 0.5, 0.5, verdict) for verdict in verdicts)
    return Judgement(gates, (), {}, DEFAULT_THRESHOLDS["fp32"], strict=strict)  # type: ignore[index]


def test_the_verdict_of_all() -> None:
    passed, failed, undecided = Verdict.PASSED, Verdict.FAILED, Verdict.UNDECIDED
    assert judgement(passed, passed).verdict is passed
    assert judgement(passed, undecided).verdict is undecided and judgement(passed, undecided).passed
    assert not judgement(passed, undecided, strict=True).passed and judgement(passed, strict=True).passed
    assert judgement(undecided, failed).verdict is failed and not judgement(undecided, failed).passed


def test_the_later_the_stronger(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text("[all]\nmin_overlap = 0.4\nmin_cosine = 0.5\n[w8a8]\nmin_cosine = 0.6\nmax_overlap_loss = 0.2\n")
    sections = read_thresholds(file)
    w8a8 = choose_thresholds("w8a8", sections, {"max_overlap_loss": 0.3})
    assert (w8a8.min_overlap, w8a8.min_cosine, w8a8.max_overlap_loss) == (0.4, 0.6, 0.3)
    fp16 = choose_thresholds("fp16", sections)
    assert (fp16.min_overlap, fp16.min_cosine, fp16.max_overlap_loss) == (0.4, 0.5, 0.01)
    assert choose_thresholds("fp16") == DEFAULT_THRESHOLDS["fp16"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[int8]\nmin_overlap = 0.4", r"'int8' is no section of it; there are: all, fp32, fp16, w8a32, w8a8"),
        ("min_overlap = 0.4", r"'min_overlap' is no section of it"),
        ("[fp32]\nmin_overlap = 4", r"thresholds: min_overlap = 4: Input should be less than or equal to 1"),
        ("[w8a8]\nmin_overlop = 0.4", r"thresholds: min_overlop = 0\.4: Extra inputs are not permitted"),
        ("[all]\nmin_overlap = true", r"thresholds: min_overlap = True: Input should be a valid number"),
        ("[all]\nmin_calibration = true", r"thresholds: min_calibration = True: Input should be a valid integer"),
        ("[all", r"not readable as TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(BadInputError, match=said):
        read_thresholds(tmp_path / "t.toml")
    with pytest.raises(BadInputError, match="no such file"):
        read_thresholds(tmp_path / "none.toml")
