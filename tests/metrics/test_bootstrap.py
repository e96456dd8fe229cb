"""bootstrap: coverage and uniform p-values on data whose truth is known; SciPy's and hand-made values beside ours."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from edgecsd.errors import BadInputError
from edgecsd.metrics import bootstrap
from edgecsd.metrics.bootstrap import (
    Interval,
    bootstrap_interval,
    bootstrap_intervals,
    paired_difference,
    queries_needed,
    with_interval,
)

NAN = float("nan")


def skewed(random: np.random.Generator, count: int) -> np.ndarray:
    """Values as AP has them: most of them near 1 (mean 5/6.5)."""
    return random.beta(5, 1.5, count)


def test_an_interval_in_words() -> None:
    assert with_interval(Interval(0.7006, 0.6671, 0.7333)) == "0.701 [0.667, 0.733]"
    assert with_interval(Interval(-0.02, -0.03, -0.01), "+.2f") == "-0.02 [-0.03, -0.01]"
    assert with_interval(bootstrap_interval(np.array([0.25])), "+.2f") == "+0.25"


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    for level in (0.8, 0.95):
        inside = 0
        for trial in range(400):
            interval = bootstrap_interval(skewed(random, 40), level=level, resamples=1000, seed=trial)
            inside += interval.low <= 5 / 6.5 <= interval.high
        assert inside / 400 == pytest.approx(level, abs=3 * math.sqrt(level * (1 - level) / 400) + 0.015)


def test_scipys_interval_is_the_same() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = skewed(np.random.default_rng(2), 60) ** 4
    for level in (0.9, 0.95):
        ours = bootstrap_interval(values, level=level, resamples=40_000)
        theirs = stats.bootstrap(
            (values,), np.mean, confidence_level=level, n_resamples=40_000, method="BCa", random_state=3
        ).confidence_interval
        width = ours.high - ours.low
        assert ours.mean == values.mean()
        assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=0.03 * width)


def test_queries_without_a_value_are_left_out_and_figures_share_their_resamples() -> None:
    values = skewed(np.random.default_rng(4), 30)
    holes = np.insert(values, [0, 7, 30], NAN)
    assert bootstrap_interval(holes) == bootstrap_interval(values)
    other = values**2
    both = bootstrap_intervals({"a": values, "b": other, "c": holes[:30]})
    assert vars(both["a"]) == pytest.approx(vars(bootstrap_interval(values)))
    assert vars(both["b"]) == pytest.approx(vars(bootstrap_interval(other)))
    assert list(both) == ["a", "b", "c"] and both["c"].mean == pytest.approx(np.nanmean(holes[:30]))


def test_the_seed_decides_and_chunks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values = skewed(np.random.default_rng(5), 25)
    whole = bootstrap_interval(values, seed=7), paired_difference(values, values[::-1], seed=7)
    assert bootstrap_interval(values, seed=8) != whole[0]
    monkeypatch.setattr(bootstrap, "CHUNK_ENTRIES", 25 * 300)
    chunked = bootstrap_interval(values, seed=7), paired_difference(values, values[::-1], seed=7)
    assert vars(chunked[0]) == pytest.approx(vars(whole[0]))
    assert [chunked[1].low, chunked[1].high] == pytest.approx([whole[1].low, whole[1].high])
    assert chunked[1].p_value == pytest.approx(whole[1].p_value, abs=0.02)


def test_no_spread_and_too_few_queries() -> None:
    same = bootstrap_interval(np.full(9, 0.3))
    assert same.low == same.mean == same.high == pytest.approx(0.3)
    one = bootstrap_interval(np.array([NAN, 0.4]))
    assert one.mean == 0.4 and math.isnan(one.low) and math.isnan(one.high)
    with pytest.raises(BadInputError, match="no query has a value"):
        bootstrap_interval(np.array([NAN, NAN]))
    for level in (0.0, 1.0, 95):
        with pytest.raises(BadInputError, match="must be between 0 and 1"):
            bootstrap_interval(np.ones(3), level=level)
    with pytest.raises(BadInputError, match="0 resamples"):
        bootstrap_interval(np.ones(3), resamples=0)


def test_p_is_uniform_where_there_is_no_difference() -> None:
    random = np.random.default_rng(6)
    p_values = []
    for trial in range(400):
        common = skewed(random, 30)
        a, b = (common + random.normal(scale=0.1, size=30) for _ in range(2))
        p_values.append(paired_difference(a, b, resamples=400, seed=trial).p_value)
    for level in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=0.07)


def test_p_against_all_sign_flips() -> None:
    differences = np.random.default_rng(7).normal(0.4, 1.0, 10)
    observed = abs(differences.sum())
    flips = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=10)]
    exact = np.mean(np.array(flips) >= observed - 1e-12)
    found = paired_difference(differences, np.zeros(10), resamples=20_000)
    assert found.p_value == pytest.approx(exact, abs=0.015) and 0.02 < exact < 0.9
    assert found.mean == pytest.approx(differences.mean()) and found.queries == 10


def test_a_clear_and_an_absent_difference() -> None:
    b = skewed(np.random.default_rng(8), 50)
    clear = paired_difference(b + np.random.default_rng(9).normal(0.1, 0.05, 50), b)
    assert clear.p_value < 0.001 and 0 < clear.low < clear.mean < clear.high
    mirrored = paired_difference(b, b + np.random.default_rng(9).normal(0.1, 0.05, 50))
    assert mirrored.mean == pytest.approx(-clear.mean) and mirrored.p_value == clear.p_value
    none = paired_difference(b, b)
    assert (none.mean, none.low, none.high, none.p_value) == (0, 0, 0, 1)
    holes = np.where(np.arange(50) % 2, b, NAN)
    assert paired_difference(holes, b).queries == 25


def test_what_cannot_be_compared() -> None:
    with pytest.raises(BadInputError, match="compared on the same queries"):
        paired_difference(np.ones(3), np.ones(4))
    with pytest.raises(BadInputError, match="no query has a value in both"):
        paired_difference(np.array([NAN, 1.0]), np.array([1.0, NAN]))


def test_the_queries_that_would_be_needed_give_the_power_that_was_planned() -> None:
    random = np.random.default_rng(10)
    pilot = random.normal(size=4000)
    pilot = 0.1 + 0.3 * (pilot - pilot.mean()) / pilot.std(ddof=1)
    needed = queries_needed(pilot, np.zeros(4000))
    assert needed is not None
    assert needed == math.ceil(((1.959964 + 0.841621) * 0.3 / 0.1) ** 2) == 71
    shown = [
        paired_difference(random.normal(0.1, 0.3, needed), np.zeros(needed), resamples=300).p_value < 0.05
        for _ in range(300)
    ]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.08)
    assert queries_needed(pilot, pilot) is None
    assert queries_needed(np.array([0.3, 0.1]), np.array([0.1, 0.3 + 1e-16])) is None  # rounding, no difference
