"""Vectors left on disk give what vectors in memory give: read, compared, mined and distilled with."""

from __future__ import annotations

import json
from pathlib import Path

import distillations
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from edgecsd.features import mapped as mapped_vectors
from edgecsd.features.mapped import FlatViews, MappedVectors, MappedViews, digest
from edgecsd.features.shards import from_int8, read_shard, to_int8
from edgecsd.features.store import FeatureStore
from edgecsd.index.engines.faiss import inverted_lists as neighbour_search
from edgecsd.training import training_set
from edgecsd.training.anchors import mining, similarities
from edgecsd.training.anchors.making import make_anchors
from edgecsd.training.anchors.similarities import products
from edgecsd.training.choices import AnchorKind, Mining

Floats = NDArray[np.float32]


def unit(seed: int, rows: int, dim: int = 12) -> Floats:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def in_shards(vectors: Floats, sizes: tuple[int, ...], folder: Path, dtype: str = "float32") -> MappedVectors:
    shards = []
    for number, block in enumerate(np.split(vectors, np.cumsum(sizes)[:-1])):
        np.save(folder / f"{number}.npy", to_int8(block) if dtype == "int8" else block.astype(dtype))
        shards.append(read_shard(folder / f"{number}.npy"))
    return MappedVectors(shards)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_rows_of_several_shards_are_one_array(dtype: str, tmp_path: Path) -> None:
    vectors = unit(0, 30)
    stored = in_shards(vectors, (11, 1, 18), tmp_path, dtype)
    vectors = from_int8(to_int8(vectors)) if dtype == "int8" else vectors.astype(dtype).astype(np.float32)
    assert len(stored) == 30 and stored.shape == (30, 12)
    for rows in (slice(None), slice(3, 25), slice(10, 13), slice(40, 50), slice(1, 29, 7), slice(-4, None)):
        np.testing.assert_array_equal(stored[rows], vectors[rows])
    chosen = np.array([29, 0, 11, 11, 10, 12])
    np.testing.assert_array_equal(stored[chosen], vectors[chosen])
    assert digest(stored) == digest(vectors) != digest(unit(1, 30))


def test_views_of_chosen_images(tmp_path: Path) -> None:
    own, views = unit(0, 8), unit(1, 24)
    (tmp_path / "views").mkdir()
    rows, whole = np.array([5, 0, 7]), np.concatenate([own[:, None], views.reshape(8, 3, 12)], axis=1)
    stored = MappedViews(in_shards(own, (3, 5), tmp_path), in_shards(views, (10, 14), tmp_path / "views"), 3, rows, 3)
    held = whole[rows][:, :3]
    assert stored.shape == held.shape == (3, 3, 12)
    images, shown = np.array([2, 2, 0, 1]), np.array([0, 2, 1, 2])
    np.testing.assert_array_equal(stored[images, shown], held[images, shown])
    np.testing.assert_array_equal(stored[images, 0], held[images, 0])
    np.testing.assert_array_equal(stored.of(np.array([2]))[np.array([0]), 1], held[[2], 1])
    for source in (stored, held):
        flat = FlatViews(source, np.array([2, 0]))
        np.testing.assert_array_equal(flat[1:5], held[[2, 0]].reshape(6, 12)[1:5])
        np.testing.assert_array_equal(FlatViews(source, np.array([2, 0]), 1)[:], held[[2, 0], 0])


@pytest.mark.parametrize("most", [10**6, 0])  # rows gathered at once, or image by image
def test_products_with_anchors_on_disk(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, ids = unit(2, 50), torch.from_numpy(np.random.default_rng(3).integers(0, 50, (4, 9)))
    monkeypatch.setattr(similarities, "GATHERED_VALUES", most)
    found, gradients = [], []
    for source in (torch.from_numpy(gallery), in_shards(gallery, (20, 30), tmp_path)):
        queries = torch.from_numpy(unit(4, 4)).requires_grad_()
        result = products(queries, source, ids)
        (result**2).sum().backward()  # type: ignore[no-untyped-call]
        assert queries.grad is not None
        found.append(result.detach().numpy())
        gradients.append(queries.grad.numpy())
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-5)


@pytest.mark.parametrize("kind", list(AnchorKind))
@pytest.mark.parametrize("many", [False, True])  # several blocks of the gallery
def test_anchors_out_of_a_gallery_on_disk(
    kind: AnchorKind, many: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if many:
        monkeypatch.setattr(mining, "GALLERY_ROWS", 16)
        monkeypatch.setattr(mining, "GALLERY_VALUES", 16 * 12)
    gallery = unit(5, 60)
    own = [np.array([t, 59 - t]) for t in range(20)]
    made = [
        make_anchors(source[:20], source, 7, kind=kind, own_rows=own, out=tmp_path / name)
        for name, source in (("held", gallery), ("disk", in_shards(gallery, (13, 30, 17), tmp_path)))
    ]
    np.testing.assert_array_equal(made[0].ids, made[1].ids)
    np.testing.assert_array_equal(made[0].similarities, made[1].similarities)


@pytest.mark.parametrize("mining_by", list(Mining))
def test_anchors_out_of_int8_vectors_on_disk(
    mining_by: Mining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mining, "GALLERY_ROWS", 100)
    gallery, own = unit(5, 400), [np.array([t]) for t in range(20)]
    stored = in_shards(gallery, (130, 100, 170), tmp_path, "int8")
    held = from_int8(to_int8(gallery))
    made = make_anchors(held[:20], stored, 7, own_rows=own, out=tmp_path / "disk", mining=mining_by)
    exact = make_anchors(held[:20], held, 7, own_rows=own, out=tmp_path / "held")
    shared = np.mean([len(np.intersect1d(a, b)) / 7 for a, b in zip(made.ids, exact.ids, strict=True)])
    assert shared == 1 if mining_by is Mining.EXACT else shared >= 0.95
    cosines = np.take_along_axis(held[:20] @ held.T, made.ids.astype(np.int64), axis=1)
    np.testing.assert_allclose(made.similarities, cosines, atol=6e-4)


def test_compressed_lists_compare_their_best_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour_search, "COMPRESSED_FROM", 1000)
    centres = unit(6, 40, 24)
    noise = np.random.default_rng(7).normal(size=(3000, 24)) * 0.1
    vectors = (centres[np.arange(3000) % 40] + noise).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gallery, own = in_shards(vectors, (1000, 2000), tmp_path), [np.array([t]) for t in range(60)]
    mined = make_anchors(vectors[:60], gallery, 10, own_rows=own, out=tmp_path / "pq", mining=Mining.IVF_PQ)
    exact = make_anchors(vectors[:60], gallery, 10, own_rows=own, out=tmp_path / "exact")
    shared = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(mined.ids, exact.ids, strict=True)])
    assert mined.recall == pytest.approx(shared) and mined.recall >= 0.95
    cosines = np.take_along_axis(vectors[:60] @ vectors.T, mined.ids.astype(np.int64), axis=1)
    np.testing.assert_allclose(mined.similarities, cosines, atol=6e-4)  # not those of the codes


def test_a_distillation_from_disk_is_the_same(
    photos: Path, pixel_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = distillations.config(anchor_views=0)  # from disk there are none
    distillations.run(photos, pixel_store.path, tmp_path / "held", config=settings)
    monkeypatch.setattr(mapped_vectors, "HELD_VALUES", 0)
    monkeypatch.setattr(mining, "GALLERY_ROWS", 10)
    monkeypatch.setattr(training_set, "BLOCK_ROWS", 7)
    distillations.run(photos, pixel_store.path, tmp_path / "disk", config=settings)
    held, disk = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("held", "disk")
    )
    for one, two in zip(held, disk, strict=True):
        assert two["held_out_overlap"] == pytest.approx(one["held_out_overlap"], abs=1e-6)
        assert one["loss"] == two["loss"] or two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    ours, theirs = (load_file(tmp_path / name / "query_model.safetensors") for name in ("disk", "held"))
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours[name], tensor, atol=2e-4, err_msg=name)
