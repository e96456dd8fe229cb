"""Searching in blocks against a slow search, and the choice of queries: seeded, from both ends, never NaN."""

from __future__ import annotations

import numpy as np
import pytest

from edgecsd.metrics.retrieval import Relevance, average_precision
from edgecsd.report.run_page import search as search_module
from edgecsd.report.run_page.search import FoundByModel, Group, choose_queries, search


def some(rows: int, seed: int) -> np.ndarray:
    """Unit vectors of few values, so that cosines tie."""
    vectors = np.random.default_rng(seed).integers(-1, 2, (rows, 4)).astype(np.float32) + 0.5
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("values_at_once", [1, 100, 1 << 20])
def test_blocks_find_what_a_slow_search_finds(values_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "BLOCK_VALUES", values_at_once)
    random = np.random.default_rng(1)
    queries, gallery = some(11, 2), np.repeat(some(15, 3), 2, axis=0)
    relevance = []
    for query in range(11):
        rows = random.permutation(30)
        relevance.append(Relevance(frozenset(rows[: query % 4].tolist()), frozenset(rows[4 : 4 + query % 3].tolist())))
    found = search(queries, gallery, relevance, 6)
    for query, rel in enumerate(relevance):
        cosine = {row: float(queries[query] @ gallery[row]) for row in range(30)}
        order = sorted(cosine, key=lambda row: -round(cosine[row], 5))  # stable: ties by row
        clean = [row for row in order if row not in rel.junk]
        assert [round(cosine[row], 5) for row in found.rows[query]] == [round(cosine[row], 5) for row in clean[:6]]
        assert not set(found.rows[query]) & rel.junk
        assert found.best[query] == pytest.approx(cosine[clean[0]], abs=1e-6)
        if rel.ok:
            assert 0 < found.average_precision[query] <= 1
        else:
            assert np.isnan(found.average_precision[query])


def test_equal_vectors_stand_by_row() -> None:
    random = np.random.default_rng(5)
    vectors = random.normal(size=(2502, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = search(
        vectors[:64], np.concatenate([vectors, vectors])[:5003], [Relevance(frozenset(), frozenset())] * 64, 2
    )
    assert found.rows == tuple((row, row + 2502) for row in range(64))


def test_average_precision_is_that_of_metrics() -> None:
    gallery = np.eye(4, dtype=np.float32)
    query = np.array([[0.8, 0.5, 0.3, 0.1]], np.float32)
    relevance = Relevance(frozenset({1, 3}), frozenset({0}))
    found = search(query, gallery, [relevance], 2)
    assert found.rows == ((1, 2),) and found.best[0] == pytest.approx(0.5)
    assert found.average_precision[0] == average_precision(np.array([0, 1, 2, 3]), relevance)


def test_overlap_is_the_share_of_the_first_k() -> None:
    nothing = np.zeros(3)
    one, other = (FoundByModel(rows, nothing, nothing) for rows in (((1, 2, 3), (4, 5), ()), ((3, 2, 9), (6, 7), ())))
    np.testing.assert_array_equal(one.overlap(other, 3), [2 / 3, 0, np.nan])
    np.testing.assert_array_equal(one.overlap(other, 2), [1 / 2, 0, np.nan])


def test_the_choice_takes_both_ends_and_the_middle() -> None:
    loss = np.linspace(-0.2, 0.8, 30)
    loss[7] = np.nan
    chosen = choose_queries(loss, 9, seed=4)
    groups = {group: [c.query for c in chosen if c.group is group] for group in Group}
    assert groups[Group.WORST] == [29, 28, 27] and groups[Group.BEST] == [2, 1, 0]
    middle = groups[Group.BETWEEN]
    assert middle == sorted(middle, reverse=True) and len(middle) == 3 and set(middle) <= set(range(3, 27)) - {7}
    assert [c.query for c in chosen] == [*groups[Group.WORST], *middle, *groups[Group.BEST]]


def test_the_choice_is_the_seeds() -> None:
    ties = np.zeros(100)
    assert choose_queries(ties, 10, seed=1) == choose_queries(ties, 10, seed=1)
    assert choose_queries(ties, 10, seed=1) != choose_queries(ties, 10, seed=2)


@pytest.mark.parametrize(("show", "expected"), [(1, 1), (2, 2), (3, 3), (5, 5), (6, 5), (50, 5)])
def test_few_queries_are_each_shown_once(show: int, expected: int) -> None:
    chosen = choose_queries(np.array([0.1, np.nan, 0.3, 0.2, 0.2, 0.0]), show)
    assert len(chosen) == len({c.query for c in chosen}) == expected and chosen[0].query == 2
