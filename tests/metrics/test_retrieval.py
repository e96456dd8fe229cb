"""metrics: the protocol's figures to the digit, and against slow formulas written from their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgecsd.errors import BadInputError
from edgecsd.metrics.retrieval import (
    Relevance,
    average_precision,
    mean_of,
    overlap_at,
    precision_at,
    rank_biased_overlap,
    recall_at,
)

TEN = np.arange(10)


def relevance(ok: set[int], junk: set[int] = frozenset()) -> Relevance:  # type: ignore[assignment]
    return Relevance(frozenset(ok), frozenset(junk))


@pytest.mark.parametrize(
    ("ok", "junk", "expected"),
    [
        ({0, 2, 5}, set(), 0.6777777778),
        ({0, 2, 5}, {1, 3}, 0.9027777778),
        ({1}, set(), 0.25),
        ({3}, {0, 1, 2}, 1.0),
        ({0, 6}, {1, 2, 3}, 0.7083333333),
        ({0, 4, 2, 7}, {1}, 0.8110119048),  # medium: easy {0, 4} and hard {2, 7} relevant
        ({0, 4}, {1, 2, 7}, 0.7916666667),  # easy: hard ones are junk
        ({2, 7}, {1, 0, 4}, 0.6625),  # hard: easy ones are junk
    ],
)
def test_average_precision_of_the_protocol(ok: set[int], junk: set[int], expected: float) -> None:
    assert average_precision(TEN, relevance(ok, junk)) == pytest.approx(expected, abs=5e-11)


def slow_average_precision(ranking: list[int], ok: set[int], junk: set[int]) -> float:
    """Area under the precision-recall curve by trapezoids, over the ranking with its junk deleted."""
    clean = [item for item in ranking if item not in junk]
    area, precision, found = 0.0, 1.0, 0
    for place, item in enumerate(clean):
        now = (found + (item in ok)) / (place + 1)
        if item in ok:
            area += (found / place if place else 1.0) / 2 / len(ok) + now / 2 / len(ok)
            found += 1
        precision = now
    assert 0 <= precision <= 1
    return area


@pytest.mark.parametrize("seed", range(12))
def test_figures_against_slow_formulas(seed: int) -> None:
    random = np.random.default_rng(seed)
    ranking = random.permutation(30)[: random.integers(12, 31)]
    chosen = random.permutation(30)
    ok, junk = set(chosen[:6].tolist()), set(chosen[6:11].tolist())
    wanted = relevance(ok, junk)
    clean = [int(item) for item in ranking if item not in junk]
    assert average_precision(ranking, wanted) == pytest.approx(slow_average_precision(ranking.tolist(), ok, junk))
    last = max((place for place, item in enumerate(clean) if item in ok), default=-1) + 1
    for k in (1, 5, 10):
        assert recall_at(ranking, wanted, k) == float(bool(ok & set(clean[:k])))
        depth = min(last, k)
        expected = len(ok & set(clean[:depth])) / depth if depth else 0.0
        assert precision_at(ranking, wanted, k) == pytest.approx(expected)


def test_relevant_items_that_are_not_ranked_add_nothing() -> None:
    assert average_precision(np.array([4]), relevance({4, 9})) == pytest.approx(0.5)
    assert average_precision(np.array([1, 2]), relevance({9})) == 0.0
    assert precision_at(np.array([1, 2]), relevance({9}), 5) == 0.0


def test_a_query_without_relevant_items_leaves_the_mean() -> None:
    nothing = relevance(set(), {1})
    values = [average_precision(TEN, nothing), precision_at(TEN, nothing, 5), recall_at(TEN, nothing, 5)]
    assert all(math.isnan(value) for value in values)
    assert mean_of([0.5, float("nan"), 1.0], "mAP") == 0.75
    with pytest.raises(BadInputError, match="mAP cannot be measured: no query has a relevant gallery item"):
        mean_of([float("nan")] * 2, "mAP")
    with pytest.raises(BadInputError, match="mAP"):
        mean_of([], "mAP")


def test_relevance_that_contradicts_itself_is_refused() -> None:
    relevance({0, 9}, {1}).check(10)
    with pytest.raises(BadInputError, match="position 3 is both relevant and junk"):
        relevance({1, 3}, {3, 4}).check(10)
    with pytest.raises(BadInputError, match="position 10 is outside the gallery of 10"):
        relevance({10}).check(10)
    with pytest.raises(BadInputError, match="position -1 is outside"):
        relevance({0}, {-1}).check(10)


def test_overlap_counts_what_both_found() -> None:
    left = np.array([[0, 1, 2, 3], [5, 6, -1, -1]])
    right = np.array([[3, 0, 9, 8], [6, 7, -1, -1]])
    assert overlap_at(left, right, 2).tolist() == [0.5, 0.5]
    assert overlap_at(left, right, 4).tolist() == [0.5, 0.25]  # -1 is nothing found, not a shared item
    assert overlap_at(left, right, 100).tolist() == [0.5, 0.25]


def slow_rank_biased_overlap(left: list[int], right: list[int], p: float) -> float:
    """(1 - p) sum over all depths of p^(d - 1) A_d, the agreement taken to stay as at the end of the lists."""
    k = len(left)
    agreement = [len(set(left[:d]) & set(right[:d])) / d for d in range(1, k + 1)]
    return (1 - p) * sum(p ** (d - 1) * agreement[min(d, k) - 1] for d in range(1, 3000))


def test_rank_biased_overlap() -> None:
    same = np.arange(7)[None]
    assert rank_biased_overlap(same, same)[0] == pytest.approx(1.0)
    assert rank_biased_overlap(same, same + 7)[0] == pytest.approx(0.0)
    published = rank_biased_overlap(
        np.array([[1, 2, 3, 4, 5]]), np.array([[2, 3, 4, 1, 5]]), 0.9
    )  # other people's 0.828
    assert published[0] == pytest.approx(0.828, abs=5e-4)
    random = np.random.default_rng(0)
    for _ in range(10):
        left, right = random.permutation(15)[:8], random.permutation(15)[:8]
        for p in (0.5, 0.9):
            expected = slow_rank_biased_overlap(left.tolist(), right.tolist(), p)
            assert rank_biased_overlap(left[None], right[None], p)[0] == pytest.approx(expected)
    for persistence in (0.0, 1.0, -1.0):
        with pytest.raises(BadInputError, match="must be between 0 and 1"):
            rank_biased_overlap(same, same, persistence)
