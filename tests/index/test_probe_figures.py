"""What the probes measure with: recall against brute force, distant queries, vectors read back out of an index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from galleries import clustered, make_store, unit

from edgecsd.checking.probes.recall import distant
from edgecsd.checking.probes.run import run_probes
from edgecsd.features.exact import exact_neighbours, store_blocks, store_rows
from edgecsd.features.store import FeatureStore
from edgecsd.index.engines.faiss import index as faiss_index
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.stored_vectors import StoredVectors


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """faiss's threads wait by spinning: beside other programs on two cores that takes 30 s instead of one."""
    before = faiss_index.faiss.omp_get_max_threads()
    faiss_index.faiss.omp_set_num_threads(1)
    yield
    faiss_index.faiss.omp_set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return make_store(tmp_path_factory.mktemp("probes") / "gallery.store", clustered())


def test_recall_against_brute_force(store: FeatureStore, tmp_path: Path) -> None:
    index = build_index(store, tmp_path / "x.index", type="ivf", nlist=20, nprobe=1)
    result = run_probes(index, store=store, queries=clustered(0)[:40], sample=40)
    (given,) = [probe for probe in result.probes if probe.name == "recall, given queries"]
    cosines = unit(clustered(0)[:40]) @ store.vectors().T
    truth = np.argsort(-cosines, axis=1, kind="stable")[:, :10]
    found = index.search(clustered(0)[:40], 10)[1]
    shares = [len(set(a) & set(b)) / 10 for a, b in zip(truth.tolist(), found.tolist(), strict=True)]
    assert given.figure == pytest.approx(np.mean(shares)) and given.figure < 1


def test_distant_queries_have_the_wanted_cosine() -> None:
    vectors = clustered()[:64]
    moved = distant(vectors, np.random.default_rng(0), 0.75)
    np.testing.assert_allclose((moved * vectors).sum(1), 0.75, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)


def test_exact_neighbours_and_reading_back(store: FeatureStore, tmp_path: Path) -> None:
    index = build_index(store, tmp_path / "x.index", type="ivf", nlist=5, nprobe=1)
    stored = StoredVectors(index)
    rows = np.array([599, 3, 3, 200])
    np.testing.assert_array_equal(stored.index.read(rows), store.vectors()[rows])
    np.testing.assert_array_equal(store_rows(store, rows), store.vectors()[rows])
    pieces = [(np.arange(a, b), store.vectors()[a:b]) for a, b in ((0, 40), (40, 45), (45, 600))]
    queries = np.concatenate([clustered(8)[:5], store.vectors()[:3]])
    wanted = np.argsort(-(queries @ store.vectors().T), axis=1, kind="stable")[:, :7]
    for blocks in (pieces, store_blocks(store), stored.blocks()):
        scores, found = exact_neighbours(queries, blocks, 7)
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_allclose(scores[-1, 0], 1, atol=1e-3)


def test_equal_vectors_are_found_by_row_in_whatever_blocks() -> None:
    """Each of 60 vectors stands in some 80 rows, where a matrix product gives it several values."""
    random, queries = np.random.default_rng(3), unit(np.random.default_rng(4).normal(size=(37, 513)))
    kinds = random.integers(0, 60, 5003)
    different = unit(random.normal(size=(60, 513)))
    exact = queries.astype(np.float64) @ different.astype(np.float64).T
    wanted = np.argsort(-exact[:, kinds], axis=1, kind="stable")[:, :100]
    for size in (5003, 1000, 37):
        blocks = [(np.arange(a, min(a + size, 5003)), different[kinds[a : a + size]]) for a in range(0, 5003, size)]
        for at_once in (37, 1):
            for start in range(0, 37, at_once):
                scores, found = exact_neighbours(queries[start : start + at_once], blocks, 100)
                np.testing.assert_array_equal(found, wanted[start : start + at_once])
                expected = np.take_along_axis(exact[start : start + at_once], kinds[found], axis=1)
                np.testing.assert_allclose(scores, expected, atol=1e-7)
    scores, found = exact_neighbours(np.zeros((2, 513), np.float32), blocks, 5)
    assert found.tolist() == [[0, 1, 2, 3, 4]] * 2 and not scores.any()


def test_a_large_gallery_is_sampled_in_blocks(store: FeatureStore, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("edgecsd.index.stored_vectors.BLOCK_ROWS", 50)
    index = build_index(store, tmp_path / "x.index")
    blocks = list(StoredVectors(index).blocks(150))
    assert [rows[0] for rows, _ in blocks] == [0, 300, 550] and sum(len(rows) for rows, _ in blocks) == 150
    assert run_probes(index, store=store).passed
