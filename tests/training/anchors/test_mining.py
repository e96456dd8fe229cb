"""Exact mining against brute force, interrupted and gone on with; approximate mining and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecsd.index.engines.faiss.inverted_lists import InvertedLists
from edgecsd.progress import Advance
from edgecsd.training.anchors import list_mining
from edgecsd.training.anchors import mining as mining_module
from edgecsd.training.anchors.making import make_anchors
from edgecsd.training.anchors.stored import Anchors
from edgecsd.training.choices import AnchorKind, Mining

NOTHING = np.empty(0, np.int64)
Floats = NDArray[np.float32]
Rows = list[NDArray[np.int64]]


class Notebook:
    """A reporter that writes down what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.advanced = 0

    def message(self, text: str) -> None:
        self.messages.append(text)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        del name, total, done

        def advance(units: int) -> None:
            self.advanced += units

        yield advance


def unit(seed: int, rows: int, dim: int = 12) -> Floats:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def clustered(seed: int, rows: int, dim: int = 24, clusters: int = 40) -> Floats:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(clusters, dim))
    vectors = centres[random.integers(0, clusters, rows)] + 0.9 * random.normal(size=(rows, dim))
    unit_vectors: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit_vectors


def brute_force(vectors: Floats, gallery: Floats, k: int, own: Rows) -> NDArray[np.int64]:
    rows = []
    for vector, excluded in zip(vectors, own, strict=True):
        cosines = [(float(np.dot(vector.astype(np.float64), g)), -row) for row, g in enumerate(gallery)]
        ranked = [-place for _, place in sorted(cosines, reverse=True) if -place not in excluded]
        rows.append(ranked[:k])
    return np.array(rows)


def test_anchors_are_the_nearest_without_the_image_itself(tmp_path: Path) -> None:
    gallery = unit(0, 40)
    gallery[31] = gallery[4]  # a byte-identical copy of photo 4
    own = [np.array([4, 31]) if t in (4, 31) else np.array([t]) for t in range(40)]
    mined = make_anchors(gallery, gallery, 7, own_rows=own, out=tmp_path / "anchors")
    expected = brute_force(gallery, gallery, 7, own)
    for ids in (found := mined.ids.copy(), expected):
        ids[ids == 31] = 4  # the copies tie, in either order
    np.testing.assert_array_equal(found, expected)
    assert not {4, 31} & set(mined.ids[4].tolist()) and not {4, 31} & set(mined.ids[31].tolist())
    assert (np.diff(mined.similarities.astype(np.float32), axis=1) <= 0).all()


def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, gallery, own = unit(1, 23), unit(2, 30), [NOTHING] * 23
    whole = make_anchors(vectors, gallery, 5, own_rows=own, out=tmp_path / "whole")
    monkeypatch.setattr(mining_module, "BLOCK_VALUES", 30 * 4)
    notebook = Notebook()
    blocks = make_anchors(vectors, gallery, 5, own_rows=own, out=tmp_path / "blocks", reporter=notebook)
    np.testing.assert_array_equal(whole.ids, blocks.ids)
    np.testing.assert_array_equal(whole.ids, brute_force(vectors, gallery, 5, own))
    assert notebook.advanced == 23
    assert sorted(file.name for file in tmp_path.iterdir()) == ["blocks", "whole"]


def test_an_interrupted_mining_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, gallery, own, out = unit(3, 20), unit(4, 30), [NOTHING] * 20, tmp_path / "anchors"
    monkeypatch.setattr(mining_module, "BLOCK_VALUES", 30 * 5)
    real, calls = mining_module.nearest, []

    def interrupted(block: Floats, gallery: Floats, k: int, own: Rows) -> mining_module.Found:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(block, gallery, k, own)

    monkeypatch.setattr(mining_module, "nearest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_anchors(vectors, gallery, 4, own_rows=own, out=out)
    assert not out.exists()
    mined = make_anchors(vectors, gallery, 4, own_rows=own, out=out)
    assert len(calls) == 3 + 2  # two blocks were kept, the one that was interrupted and the last one were made
    np.testing.assert_array_equal(mined.ids, brute_force(vectors, gallery, 4, own))
    make_anchors(vectors, gallery, 4, own_rows=own, out=out)
    assert len(calls) == 5  # a whole result of the same settings is read
    make_anchors(vectors, unit(5, 30), 4, own_rows=own, out=out)
    assert len(calls) == 9  # of another gallery it is not


def mined_in_lists(vectors: Floats, gallery: Floats, k: int, own: Rows, out: Path) -> tuple[Anchors, Notebook]:
    notebook = Notebook()
    made = make_anchors(vectors, gallery, k, own_rows=own, out=out, mining=Mining.IVF, reporter=notebook)
    return made, notebook


def test_approximate_mining_tells_its_recall(tmp_path: Path) -> None:
    gallery = clustered(0, 6000)
    own = [np.array([t, 5000 + t]) for t in range(300)]
    vectors = gallery[:300]
    mined, notebook = mined_in_lists(vectors, gallery, 20, own, tmp_path / "anchors")
    exact = make_anchors(vectors, gallery, 20, own_rows=own, out=tmp_path / "exact")
    sample = np.unique(np.linspace(0, 299, 256).round().astype(int))
    shared = [len(set(mined.ids[t].tolist()) & set(exact.ids[t].tolist())) for t in sample]
    assert mined.recall == pytest.approx(sum(shared) / (20 * len(sample)), abs=1e-9)
    assert mined.recall is not None and 0.9 < mined.recall < 1  # 1 would say that nothing was approximated
    assert any(f"recall@20 {mined.recall:.4f}" in message for message in notebook.messages)
    assert all(not {t, 5000 + t} & set(mined.ids[t].tolist()) for t in range(300))
    cosines = np.take_along_axis(vectors @ gallery.T, mined.ids.astype(np.int64), axis=1)
    np.testing.assert_allclose(mined.similarities, cosines, atol=6e-4)
    assert (np.diff(mined.similarities.astype(np.float32), axis=1) <= 0).all()
    again, silent = mined_in_lists(vectors, gallery, 20, own, tmp_path / "anchors")
    assert again.recall == mined.recall and silent.messages == []  # read, not mined


def test_lists_that_give_too_few_are_filled_up_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One list of many, which holds fewer than K: the exact search answers instead."""
    real = InvertedLists.search

    def one_list(self: InvertedLists, queries: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
        monkeypatch.setattr(self, "probes", 1)
        return real(self, queries, count)

    monkeypatch.setattr(InvertedLists, "search", one_list)
    gallery = clustered(1, 1000)
    own = [np.array([t]) for t in range(12)]
    mined, _ = mined_in_lists(gallery[:12], gallery, 600, own, tmp_path / "anchors")
    np.testing.assert_array_equal(np.sort(mined.ids), np.sort(brute_force(gallery[:12], gallery, 600, own)))
    assert mined.recall == 1.0


def test_more_lists_are_searched_until_the_recall_is_good(tmp_path: Path) -> None:
    """Vectors without any clusters: an eighth of the lists holds far too few of the neighbours."""
    gallery, own = unit(7, 5000, 24), [np.array([t]) for t in range(100)]
    InvertedLists.make(tmp_path / "lists", gallery)
    few = InvertedLists(tmp_path / "lists", 11)
    found, _ = few.search(gallery[:100], 11)
    exact = brute_force(gallery[:20], gallery, 10, own[:20])
    assert np.mean([len(set(exact[t]) & set(found[t])) / 10 for t in range(20)]) < 0.9
    mined, notebook = mined_in_lists(gallery[:100], gallery, 10, own, tmp_path / "anchors")
    assert mined.recall is not None and mined.recall >= 0.95
    assert f"({few.probes} of {few.lists} lists searched)" not in notebook.messages[0]


@pytest.mark.parametrize("k", [1, 28])
def test_approximate_mining_of_a_tiny_gallery_is_exact(k: int, tmp_path: Path) -> None:
    gallery, own = unit(6, 30), [np.array([t, (t + 1) % 30]) for t in range(30)]
    mined, _ = mined_in_lists(gallery, gallery, k, own, tmp_path / "anchors")
    np.testing.assert_array_equal(mined.ids, brute_force(gallery, gallery, k, own))
    assert mined.recall == 1.0


def test_approximate_mining_in_blocks_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, own = clustered(2, 2000), [np.array([t]) for t in range(50)]
    whole, _ = mined_in_lists(gallery[:50], gallery, 10, own, tmp_path / "whole")
    monkeypatch.setattr(list_mining, "BLOCK_VALUES", 11 * 7)
    blocks, _ = mined_in_lists(gallery[:50], gallery, 10, own, tmp_path / "blocks")
    np.testing.assert_array_equal(whole.ids, blocks.ids)


def test_an_interrupted_codebook_is_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecsd.index.engines.faiss import clustering
    from edgecsd.training.anchors import making as anchors_module

    real, calls = clustering.spherical_codebook, []

    def counted(vectors: Floats, k: int, *, seed: int) -> Floats:
        calls.append(1)
        return real(vectors, k, seed=seed)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clustering, "spherical_codebook", counted)
    arguments = {"kind": AnchorKind.CODEBOOK, "own_rows": [NOTHING] * 9, "out": tmp_path / "anchors"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(anchors_module, "products", interrupted)
        make_anchors(unit(0, 9), unit(1, 60), 5, **arguments)  # type: ignore[arg-type]
    made = make_anchors(unit(0, 9), unit(1, 60), 5, **arguments)  # type: ignore[arg-type]
    assert len(calls) == 1
    np.testing.assert_array_equal(made.vectors, real(unit(1, 60), 5, seed=0))
