"""ranking: counting gives to the digit what sorting gives, with ties, in blocks, through stores on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecsd.evaluation import ranking
from edgecsd.evaluation.ranking import NOWHERE, RankedVectors, rank, search
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store


def coarse(rows: int, seed: int, dim: int = 6) -> np.ndarray:
    """Vectors of small whole numbers: their products are exact, so that ties are ties in every block."""
    return np.random.default_rng(seed).integers(-1, 2, (rows, dim)).astype(np.float32)


def sorted_by_hand(queries: np.ndarray, gallery: np.ndarray) -> list[list[int]]:
    scores = queries.astype(np.float64) @ gallery.T.astype(np.float64)
    return [sorted(range(len(gallery)), key=lambda row, s=line: (-s[row], row)) for line in scores]


@pytest.mark.parametrize("block_rows", [8192, 7])
@pytest.mark.parametrize("entries", [1 << 25, 200])
def test_counting_is_sorting(block_rows: int, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(ranking, "SCORE_ENTRIES", entries)
    queries, gallery, random = coarse(17, 1), coarse(90, 2), np.random.default_rng(3)
    expected = sorted_by_hand(queries, gallery)
    targets = [random.permutation(90)[: random.integers(0, 91)] for _ in queries]
    found = search(queries, RankedVectors(gallery), targets, depth=25)
    assert found.top.tolist() == [line[:25] for line in expected]
    for line, rows, places in zip(expected, targets, found.places, strict=True):
        assert places.tolist() == [line.index(row) for row in rows]
    assert len({tuple(line) for line in expected}) > 10
    assert search(queries, RankedVectors(gallery), targets, depth=1000).top.tolist() == expected


def test_the_whole_ranking_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery = coarse(21, 4), coarse(60, 5)
    whole = rank(queries, gallery)
    assert whole.tolist() == sorted_by_hand(queries, gallery)
    monkeypatch.setattr(ranking, "BLOCK_QUERIES", 4)
    np.testing.assert_array_equal(rank(queries, gallery), whole)


def test_real_numbers_of_both_signs_and_zero() -> None:
    """Scores -0.0 and 0.0 are equal, and the smallest differences count."""
    gallery = np.array(
        [[0.0], [1.0], [-0.0], [-1.0], [np.nextafter(np.float32(1), np.float32(2))], [1e-45]], np.float32
    )
    found = search(np.array([[1.0], [-1.0]], np.float32), RankedVectors(gallery), [np.arange(6)] * 2, depth=6)
    assert found.top.tolist() == [[4, 1, 5, 0, 2, 3], [3, 0, 2, 5, 1, 4]]
    assert found.places[0].tolist() == [3, 1, 4, 5, 0, 2]


def copied(rows: int, of: int, dim: int) -> np.ndarray:
    """Real unit vectors, each there many times: what BLAS makes of them depends on where in a block they stand."""
    random = np.random.default_rng(9)
    different = random.normal(size=(of, dim)).astype(np.float32)
    different[0] = 0
    different /= np.maximum(np.linalg.norm(different, axis=1, keepdims=True), 1e-12)
    return different[random.integers(0, of, rows)]


def test_equal_vectors_stand_by_row_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, queries = copied(5003, 60, 513), copied(37, 37, 513)[::-1].copy()
    gallery[gallery == 0] = np.where(np.arange((gallery == 0).sum()) % 2, np.float32(0), np.float32(-0.0))
    queries[:] += np.random.default_rng(10).normal(size=queries.shape).astype(np.float32) / 30
    first = {vector.tobytes(): row for row, vector in reversed(list(enumerate(gallery + np.float32(0))))}
    kinds = np.array([first[vector.tobytes()] for vector in gallery + np.float32(0)])
    exact = np.stack([np.round(queries.astype(np.float64) @ gallery[row].astype(np.float64), 12) for row in kinds], 1)
    expected = np.argsort(-exact, axis=1, kind="stable")
    assert len(set(kinds.tolist())) == 60

    np.testing.assert_array_equal(rank(queries, gallery), expected)
    monkeypatch.setattr(ranking, "BLOCK_ROWS", 1000)
    for at_once in (37, 1):
        for start in range(0, 37, at_once):
            asked = slice(start, start + at_once)
            found = search(queries[asked], RankedVectors(gallery), [np.arange(5003)] * at_once, depth=200)
            np.testing.assert_array_equal(found.top, expected[asked, :200])
            for places, order in zip(found.places, expected[asked], strict=True):
                np.testing.assert_array_equal(places[order], np.arange(5003))


def test_without_vectors_there_are_no_copies() -> None:
    assert len(RankedVectors(np.empty((0, 4), np.float32)).copies.rows) == 0
    assert rank(np.empty((0, 6), np.float32), coarse(5, 1)).shape == (0, 5)


def test_what_is_not_finite_finds_nothing_and_is_found_last() -> None:
    gallery, queries = coarse(20, 6), coarse(3, 7)
    queries[1, 2] = np.nan
    gallery[5] = np.inf
    gallery[9, 0] = np.nan
    found = search(queries, RankedVectors(gallery), [np.arange(20)] * 3, depth=20)
    assert set(found.top[1]) == {NOWHERE} and set(found.places[1]) == {NOWHERE}
    assert set(found.top[0, -2:]) == set(found.top[2, -2:]) == {5, 9} and sorted(found.top[2]) == list(range(20))


def small_store(path: Path, vectors: np.ndarray) -> FeatureStore:
    items = Items(tuple(f"{path.name}-{n}" for n in range(len(vectors))), ("",) * len(vectors))
    return write_store(path, EmbeddingSpace(gallery_model="acme", dim=8), items, vectors, dtype="float32")


def test_stores_on_disk_follow_the_vectors_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecsd.features.shards.SHARD_ROWS", 10)
    unit = [np.repeat(np.eye(8, dtype=np.float32), 3, axis=0) * sign for sign in (1, -1, 1)]
    stores = (small_store(tmp_path / "a", unit[1]), small_store(tmp_path / "b", unit[2]))
    searched, joined = RankedVectors(unit[0], stores), np.concatenate(unit)
    assert searched.count == 72 and len(stores[0].manifest["shards"]) == 3
    queries = coarse(9, 8, dim=8)
    found = search(queries, searched, [np.array([0, 30, 71])] * 9, depth=72)
    assert found.top.tolist() == sorted_by_hand(queries, joined) == rank(queries, joined).tolist()
    assert found.places[0].tolist() == [found.top[0].tolist().index(row) for row in (0, 30, 71)]
