"""Anchors against brute force, and both ways to the contextual similarities against the naive (B, K + 1, D) product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgecsd import anchors as anchors_module
from edgecsd.anchors import contextual_similarities, mine_anchors
from edgecsd.errors import BadInputError

NOTHING = np.empty(0, np.int64)


def unit(seed: int, rows: int, dim: int = 12) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(vectors: np.ndarray, gallery: np.ndarray, k: int, own: list[np.ndarray]) -> np.ndarray:
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
    mined = mine_anchors(gallery, gallery, 7, own_rows=own, out=tmp_path / "anchors.npz")
    assert mined.ids.dtype == np.int32 and mined.similarities.dtype == np.float16
    expected = brute_force(gallery, gallery, 7, own)
    for ids in (found := mined.ids.copy(), expected):
        ids[ids == 31] = 4  # the copies tie, in either order
    np.testing.assert_array_equal(found, expected)
    assert not {4, 31} & set(mined.ids[4].tolist()) and not {4, 31} & set(mined.ids[31].tolist())
    cosines = np.take_along_axis(gallery @ gallery.T, mined.ids.astype(np.int64), axis=1)
    np.testing.assert_allclose(mined.similarities, cosines, atol=1e-3)
    assert (np.diff(mined.similarities.astype(np.float32), axis=1) <= 0).all()


def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, gallery = unit(1, 23), unit(2, 30)
    own = [NOTHING] * 23
    whole = mine_anchors(vectors, gallery, 5, own_rows=own, out=tmp_path / "whole.npz")
    monkeypatch.setattr(anchors_module, "BLOCK_VALUES", 30 * 4)
    blocks = mine_anchors(vectors, gallery, 5, own_rows=own, out=tmp_path / "blocks.npz")
    np.testing.assert_array_equal(whole.ids, blocks.ids)
    np.testing.assert_array_equal(whole.ids, brute_force(vectors, gallery, 5, own))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["blocks.npz", "whole.npz"]


def test_an_interrupted_mining_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, gallery = unit(3, 20), unit(4, 30)
    monkeypatch.setattr(anchors_module, "BLOCK_VALUES", 30 * 5)
    real, calls = anchors_module._nearest, []

    def interrupted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(anchors_module, "_nearest", interrupted)
    arguments = {"own_rows": [NOTHING] * 20, "out": tmp_path / "anchors.npz"}
    with pytest.raises(KeyboardInterrupt):
        mine_anchors(vectors, gallery, 4, **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "anchors.npz").exists()
    mined = mine_anchors(vectors, gallery, 4, **arguments)  # type: ignore[arg-type]
    assert len(calls) == 3 + 2  # two blocks were kept, the one that was interrupted and the last one were made
    np.testing.assert_array_equal(mined.ids, brute_force(vectors, gallery, 4, [NOTHING] * 20))
    mine_anchors(vectors, gallery, 4, **arguments)  # type: ignore[arg-type]
    assert len(calls) == 5  # a whole result of the same settings is read
    other = mine_anchors(vectors, unit(5, 30), 4, **arguments)  # type: ignore[arg-type]
    assert len(calls) == 9 and not np.array_equal(other.ids, mined.ids)  # of another gallery it is not


def test_more_anchors_than_the_gallery_offers(tmp_path: Path) -> None:
    own = [np.array([0, 1]), NOTHING]
    mine_anchors(unit(0, 2), unit(1, 10), 8, own_rows=own, out=tmp_path / "a.npz")
    with pytest.raises(BadInputError, match="--anchors 9: the gallery offers 1 to 8 anchors an image"):
        mine_anchors(unit(0, 2), unit(1, 10), 9, own_rows=own, out=tmp_path / "b.npz")
    with pytest.raises(BadInputError, match="--anchors 0"):
        mine_anchors(unit(0, 2), unit(1, 10), 0, own_rows=own, out=tmp_path / "c.npz")


@pytest.mark.parametrize("factor", [0, 1000])
def test_both_routes_are_the_naive_product(factor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors_module, "WHOLE_GALLERY_FACTOR", factor)
    gallery, own = torch.tensor(unit(0, 50)), torch.tensor(unit(1, 6))
    ids = torch.tensor(np.random.default_rng(2).integers(0, 50, (6, 9)))
    weights = torch.tensor(np.random.default_rng(3).normal(size=(6, 10)).astype(np.float32))
    fast = torch.tensor(unit(4, 6), requires_grad=True)
    naive = fast.detach().clone().requires_grad_()
    result = contextual_similarities(fast, own, gallery, ids)
    anchors = torch.cat([own[:, None], gallery[ids]], dim=1)  # (B, K + 1, D)
    expected = torch.einsum("bd,bkd->bk", naive, anchors)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
    (result * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(fast.grad, naive.grad, atol=1e-5, rtol=0)
