"""Anchors of every kind against brute force, without leaks; all ways to contextual similarities against the naive."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgecsd.errors import BadInputError
from edgecsd.index.engines.faiss.clustering import spherical_codebook
from edgecsd.training.anchors import making as anchors
from edgecsd.training.anchors import mining
from edgecsd.training.anchors.making import make_anchors
from edgecsd.training.anchors.similarities import (
    by_image,
    by_unique_anchors,
    by_whole_gallery,
    contextual_similarities,
    products,
)
from edgecsd.training.anchors.stored import Anchors
from edgecsd.training.choices import AnchorKind, Mining

NOTHING = np.empty(0, np.int64)
KINDS = list(AnchorKind)
Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def unit(seed: int, rows: int, dim: int = 12) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def own_of_copies(count: int) -> list[NDArray[np.int64]]:
    """Each its own row; photo 31 is a byte-identical copy of photo 4."""
    return [np.array([4, 31]) if t in (4, 31) else np.array([t]) for t in range(count)]


def require_cosines(anchors: Anchors, vectors: NDArray[np.float32]) -> None:
    """Similarities are the fp16 cosines of the vectors to what the ids point at, in that order."""
    assert anchors.ids.dtype == np.int32 and anchors.similarities.dtype == np.float16
    assert anchors.ids.shape == anchors.similarities.shape == (len(vectors), anchors.ids.shape[1])
    for t in range(len(vectors)):
        for place, row in enumerate(anchors.ids[t]):
            expected = sum(float(a) * float(b) for a, b in zip(vectors[t], anchors.vectors[row], strict=True))
            assert abs(float(anchors.similarities[t, place]) - expected) < 6e-4  # half a unit of fp16 below 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 7, 38])  # 38: all of the gallery but two copies
def test_no_image_is_its_own_anchor(kind: AnchorKind, k: int, tmp_path: Path) -> None:
    gallery = unit(0, 40)
    gallery[31] = gallery[4]
    own = own_of_copies(40)
    anchors = make_anchors(gallery, gallery, k, kind=kind, own_rows=own, out=tmp_path / "anchors")
    require_cosines(anchors, gallery)
    assert anchors.recall is None and [file.name for file in tmp_path.iterdir()] == ["anchors"]
    for ids, excluded in zip(anchors.ids.tolist(), own, strict=True):
        assert len(set(ids)) == k
        assert kind is AnchorKind.CODEBOOK or not set(ids) & set(excluded.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_anchors_and_another_seed_others(kind: AnchorKind, tmp_path: Path) -> None:
    vectors, gallery, own = unit(1, 9), unit(2, 30), [NOTHING] * 9

    def made(name: str, seed: int) -> Anchors:
        out = tmp_path / name
        return make_anchors(vectors, gallery, 6, kind=kind, own_rows=own, out=out, seed=seed)

    first, again, other = made("first", 5), made("again", 5), made("other", 6)
    read, read_other = made("first", 5), made("first", 6)
    for same in (again, read):
        for name in ("vectors", "ids", "similarities"):
            np.testing.assert_array_equal(getattr(first, name), getattr(same, name))
    np.testing.assert_array_equal(other.similarities, read_other.similarities)
    assert np.array_equal(first.similarities, other.similarities) == (kind is AnchorKind.TOPK)


def test_random_anchors_differ_by_image_and_do_not_depend_on_the_others(tmp_path: Path) -> None:
    gallery = unit(2, 5000)
    own = [np.array([t]) for t in range(8)]
    kind = AnchorKind.RANDOM
    many = make_anchors(gallery[:8], gallery, 20, kind=kind, own_rows=own, out=tmp_path / "many", seed=3)
    few = make_anchors(gallery[:3], gallery, 20, kind=kind, own_rows=own[:3], out=tmp_path / "few", seed=3)
    np.testing.assert_array_equal(many.ids[:3], few.ids)
    assert len(np.unique(many.ids)) > 100  # of 160 draws out of 5000
    require_cosines(many, gallery[:8])


def test_random_anchors_are_drawn_evenly(tmp_path: Path) -> None:
    own = [np.array([0, 5])] * 3000
    anchors = make_anchors(
        unit(0, 3000, 2), unit(1, 12, 2), 3, kind=AnchorKind.RANDOM, own_rows=own, out=tmp_path / "anchors"
    )
    counts = np.bincount(anchors.ids.ravel(), minlength=12)
    assert counts[[0, 5]].tolist() == [0, 0]
    assert np.abs(counts[counts > 0] / 900 - 1).max() < 0.15  # 900 each, standard deviation 25


def test_fixed_anchors_are_one_order_without_each_images_own_rows(tmp_path: Path) -> None:
    gallery, own = unit(0, 40), own_of_copies(40)
    every = make_anchors(
        gallery[:1], gallery, 40, kind=AnchorKind.FIXED, own_rows=[NOTHING], out=tmp_path / "a", seed=9
    )
    order = every.ids[0].tolist()
    some = make_anchors(gallery, gallery, 15, kind=AnchorKind.FIXED, own_rows=own, out=tmp_path / "b", seed=9)
    assert sorted(order) == list(range(40)) and order != sorted(order)
    for ids, excluded in zip(some.ids.tolist(), own, strict=True):
        assert ids == [row for row in order if row not in excluded][:15]


@pytest.mark.parametrize("kind", [AnchorKind.FIXED, AnchorKind.CODEBOOK])
def test_anchors_that_are_alike_for_all_are_held_once(kind: AnchorKind, tmp_path: Path) -> None:
    arguments = {"kind": kind, "own_rows": [NOTHING] * 30, "out": tmp_path / "anchors"}
    for _ in range(2):  # made, then read
        anchors = make_anchors(unit(3, 30), unit(4, 50), 8, **arguments)  # type: ignore[arg-type]
        assert anchors.ids.shape == (30, 8) and anchors.ids.strides[0] == 0
        require_cosines(anchors, unit(3, 30))


def test_codebook_anchors_are_the_centroids_of_the_gallery(tmp_path: Path) -> None:
    gallery, own = unit(4, 50), [np.array([0, 1, 2])] * 5
    anchors = make_anchors(gallery[:5], gallery, 50, kind=AnchorKind.CODEBOOK, own_rows=own, out=tmp_path / "all")
    np.testing.assert_allclose(anchors.vectors, gallery, atol=1e-6)  # as many centroids as vectors; own rows stay
    few = make_anchors(gallery[:5], gallery, 6, kind=AnchorKind.CODEBOOK, own_rows=own, out=tmp_path / "few", seed=8)
    np.testing.assert_array_equal(few.vectors, spherical_codebook(gallery, 6, seed=8))
    assert few.ids.tolist() == [list(range(6))] * 5


@pytest.mark.parametrize("kind", [AnchorKind.TOPK, AnchorKind.RANDOM, AnchorKind.FIXED])
def test_more_anchors_than_the_gallery_offers(kind: AnchorKind, tmp_path: Path) -> None:
    own = [np.array([0, 1, 1]), NOTHING]
    make_anchors(unit(0, 2), unit(1, 10), 8, kind=kind, own_rows=own, out=tmp_path / "a")
    with pytest.raises(BadInputError, match="`k` 9: the gallery offers 1 to 8 anchors an image"):
        make_anchors(unit(0, 2), unit(1, 10), 9, kind=kind, own_rows=own, out=tmp_path / "b")
    with pytest.raises(BadInputError, match="`k` 0: the gallery offers 1 to 8 anchors an image"):
        make_anchors(unit(0, 2), unit(1, 10), 0, kind=kind, own_rows=own, out=tmp_path / "c")


def test_a_codebook_larger_than_the_gallery(tmp_path: Path) -> None:
    arguments = {"kind": AnchorKind.CODEBOOK, "own_rows": [np.array([0])] * 2, "out": tmp_path / "a"}
    with pytest.raises(BadInputError, match="`k` 11: the gallery offers 1 to 10 anchors an image"):
        make_anchors(unit(0, 2), unit(1, 10), 11, **arguments)  # type: ignore[arg-type]


def test_runs_that_share_a_folder_make_its_anchors_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, made = unit(0, 40), list[int]()

    def slowly(*arguments: Any, **more: Any) -> int:
        made.append(1)
        time.sleep(1)
        return mining.mine(*arguments, **more)

    monkeypatch.setattr(anchors, "mine", slowly)

    def make(_: int) -> Anchors:
        return make_anchors(gallery, gallery, 5, own_rows=own_of_copies(40), out=tmp_path / "anchors")

    with ThreadPoolExecutor(4) as runs:
        results = list(runs.map(make, range(4)))
    assert made == [1] and all(np.array_equal(results[0].ids, each.ids) for each in results)


def test_what_was_made_under_other_settings_or_is_damaged_is_made_again(tmp_path: Path) -> None:
    vectors, gallery, out = unit(1, 9), unit(2, 80), tmp_path / "anchors"
    own: list[NDArray[np.int64]] = [NOTHING] * 9
    first = np.array(make_anchors(vectors, gallery, 4, own_rows=own, out=out).ids)
    ids = (out / "ids.npy").read_bytes()
    (out / "ids.npy").write_bytes(ids[:-1] + bytes([ids[-1] ^ 1]))
    np.testing.assert_array_equal(make_anchors(vectors, gallery, 4, own_rows=own, out=out).ids, first)
    excluded = [first[t, :1].astype(np.int64) for t in range(9)]
    second = make_anchors(vectors, gallery, 4, own_rows=excluded, out=out)
    np.testing.assert_array_equal(second.ids[:, :3], first[:, 1:])
    assert make_anchors(vectors, gallery, 3, own_rows=own, out=out).ids.shape == (9, 3)
    assert make_anchors(vectors, unit(3, 80), 4, own_rows=own, out=out).ids.tolist() != first.tolist()
    assert make_anchors(vectors, gallery, 4, own_rows=own, out=out, mining=Mining.IVF).recall == 1.0
    assert make_anchors(vectors, gallery, 4, own_rows=own, out=out, mining=Mining.IVF).recall == 1.0  # from the file
    assert make_anchors(vectors, gallery, 4, own_rows=own, out=out).recall is None


@pytest.mark.parametrize("way", [by_whole_gallery, by_unique_anchors, by_image, products])
def test_every_way_is_the_naive_product_with_its_gradient(way: Way) -> None:
    gallery, own = torch.tensor(unit(0, 50)), torch.tensor(unit(1, 6))
    ids = torch.tensor(np.random.default_rng(2).integers(0, 50, (6, 9)))
    weights = torch.tensor(np.random.default_rng(3).normal(size=(6, 9)).astype(np.float32))
    fast = torch.tensor(unit(4, 6), requires_grad=True)
    naive = fast.detach().clone().requires_grad_()
    result, expected = way(fast, gallery, ids), torch.einsum("bd,bkd->bk", naive, gallery[ids])
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
    gradients = [torch.autograd.grad((r * weights).sum(), q)[0] for r, q in ((result, fast), (expected, naive))]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=0)
    whole = contextual_similarities(fast, own, gallery, ids)
    anchors = torch.cat([own[:, None], gallery[ids]], dim=1)  # (B, K + 1, D)
    torch.testing.assert_close(whole, torch.einsum("bd,bkd->bk", fast, anchors), atol=1e-6, rtol=0)


def test_the_way_image_by_image_passes_a_numerical_gradient_check() -> None:
    gallery, ids = torch.tensor(unit(0, 20)).double(), torch.tensor([[3, 3, 0], [19, 1, 2]])
    queries = torch.tensor(unit(1, 2)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda q: by_image(q, gallery, ids), (queries,))


@pytest.mark.parametrize(
    ("count", "batch", "k", "shared", "expected"),
    [
        (100, 32, 90, False, "by_whole_gallery"),
        (5000, 32, 8, False, "by_image"),
        (5000, 32, 500, True, "by_unique_anchors"),  # the whole batch has the same anchors
    ],
)
def test_the_way_is_chosen_by_size(
    count: int, batch: int, k: int, shared: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecsd.training.anchors import similarities as module

    called: list[str] = []
    for name in ("by_whole_gallery", "by_unique_anchors", "by_image"):
        real: Way = getattr(module, name)

        def spied(q: Tensor, g: Tensor, i: Tensor, name: str = name, real: Way = real) -> Tensor:
            called.append(name)
            return real(q, g, i)

        monkeypatch.setattr(module, name, spied)
    random = np.random.default_rng(2)
    ids = [random.choice(count, k, replace=False) for _ in range(1 if shared else batch)]
    products(torch.tensor(unit(0, batch)), torch.tensor(unit(1, count)), torch.tensor(np.array(ids)).expand(batch, k))
    assert called == [expected]
