"""What a distillation learns from: matching, the split, and whose neighbours count."""

from __future__ import annotations

import hashlib
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from doubles import PixelGallery

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.gallery.extract import extract
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.training.anchors import mining
from edgecsd.training.choices import HeldOutBy
from edgecsd.training.training_set import TrainingSet, make_training_set


def make(
    images: ImageSet, gallery: FeatureStore, features: FeatureStore | None = None, **options: float | HeldOutBy
) -> TrainingSet:
    settings = {"share": 0.25, "limit": 100, "overlap_k": 5, "by": HeldOutBy.KINDS, **options}
    return make_training_set(images, gallery, features, **settings)  # type: ignore[arg-type]


def halves(store: FeatureStore) -> np.ndarray:
    return store.vectors().astype(np.float16)


def test_photos_are_matched_with_their_features(photos: Path, pixel_store: FeatureStore) -> None:
    images = find_images(photos)
    data = make(images.subset(range(2, 24)), pixel_store)
    assert data.images.ids == images.ids[2:] and len(data.digests) == 22
    views = pixel_store.view_vectors()
    np.testing.assert_array_equal(data.features, views[[pixel_store.row_of[item] for item in images.ids[2:]]])
    assert data.features.shape == (22, 3, 16) and data.gallery.shape == (24, 16)
    assert [rows.tolist() for rows in data.own_rows] == [[row] for row in range(2, 24)]
    assert sorted([*data.train, *data.held_out]) == list(range(22))
    assert len(data.held_out) == round(0.25 * 22)


def test_the_split_belongs_to_the_photos_not_to_the_list(photos: Path, pixel_store: FeatureStore) -> None:
    images = find_images(photos)
    whole = make(images, pixel_store)
    held = {whole.images.ids[p] for p in whole.held_out}
    again = make(images.subset(range(23, -1, -1)), pixel_store)
    assert {again.images.ids[p] for p in again.held_out} == held
    larger = make(images, pixel_store, share=0.5)
    assert held < {larger.images.ids[p] for p in larger.held_out}
    assert len(make(images, pixel_store, share=0.5, limit=4).held_out) == 4


def test_single_photos_are_held_out_by_their_bytes(photos: Path, pixel_store: FeatureStore) -> None:
    """Not clusters: the six of 24 photos whose hashes come first, as a slow loop sorts them."""
    images = find_images(photos)
    digests = {item: hashlib.sha256((photos / item).read_bytes()).hexdigest() for item in images.ids}
    hashes = {item: hashlib.sha256(f"held-out {digests[item]}".encode()).hexdigest() for item in images.ids}
    data = make(images, pixel_store, by=HeldOutBy.PHOTOS)
    assert {images.ids[p] for p in data.held_out} == set(sorted(hashes, key=hashes.__getitem__)[:6])
    assert set(data.held_out) != set(make(images, pixel_store).held_out)


@pytest.mark.parametrize("by", HeldOutBy)
def test_copies_stay_on_one_side_and_are_own_rows_of_each_other(photos: Path, tmp_path: Path, by: HeldOutBy) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    ids = find_images(photos).ids
    for item in ids[:8]:
        shutil.copy(photos / item, folder / f"copy-of-{Path(item).name}")
    store = extract(find_images(folder), PixelGallery(), tmp_path / "store")
    data = make(find_images(folder), store, by=by)
    side = {data.images.ids[p]: "train" for p in data.train} | {data.images.ids[p]: "held" for p in data.held_out}
    for item in ids[:8]:
        copy = f"copy-of-{Path(item).name}"
        assert side[item] == side[copy]
        rows = sorted([store.row_of[item], store.row_of[copy]])
        assert data.own_rows[data.images.ids.index(item)].tolist() == rows
    for row, position in enumerate(data.held_out):
        assert not set(data.held_out_neighbours[row].tolist()) & set(data.own_rows[position].tolist()) - {-1}


@pytest.mark.parametrize("by", HeldOutBy)
def test_crops_of_a_photo_stay_on_one_side(
    photos: Path, pixel_store: FeatureStore, tmp_path: Path, by: HeldOutBy
) -> None:
    digests = tuple(f"{number // 2:064x}[0,0,{1 + number % 2},9]" for number in range(24))
    store = write_store(tmp_path / "s", pixel_store.space, Items(pixel_store.items.ids, digests), halves(pixel_store))
    data = make(find_images(photos), store, by=by)
    sides = [{p // 2 for p in side} for side in (data.train, data.held_out)]
    assert sides[1] and not sides[0] & sides[1]


def test_a_namesake_with_other_bytes_is_not_the_photo_itself(
    photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    items = pixel_store.items
    digests = ("f" * 64, *items.digests[1:-1], "")
    gallery = write_store(tmp_path / "g", pixel_store.space, Items(items.ids, digests), halves(pixel_store))
    data = make(find_images(photos), gallery, pixel_store)
    assert data.own_rows[0].tolist() == []  # other bytes
    assert data.own_rows[23].tolist() == [23]  # unknown bytes: the name decides


def test_neighbours_against_brute_force(photos: Path, pixel_store: FeatureStore) -> None:
    data = make(find_images(photos), pixel_store)
    embeddings = np.random.default_rng(0).normal(size=(len(data.held_out), 16)).astype(np.float32)
    found = data.neighbours(embeddings, 24)
    assert (found[:, -1] == -1).all()  # the photo itself is nobody's neighbour
    for row, position in enumerate(data.held_out):
        cosines = {n: float(embeddings[row] @ data.gallery[n]) for n in range(24) if n != position}
        assert found[row, :23].tolist() == sorted(cosines, key=lambda n: -cosines[n])
    own = data.features[data.held_out, 0]
    assert data.held_out_overlap(own, 5) == 1.0
    slow = np.mean([len(set(a[:5]) & set(b[:5])) / 5 for a, b in zip(found, data.neighbours(own, 24), strict=True)])
    assert data.held_out_overlap(embeddings, 5) == pytest.approx(slow)


@pytest.mark.parametrize(("rows_at_once", "values"), [(1 << 15, 1 << 26), (100, 16 * 700), (100, 16 * 2500)])
def test_neighbours_in_a_gallery_of_many_blocks(
    photos: Path, pixel_store: FeatureStore, monkeypatch: pytest.MonkeyPatch, rows_at_once: int, values: int
) -> None:
    monkeypatch.setattr(mining, "GALLERY_ROWS", rows_at_once)
    monkeypatch.setattr(mining, "GALLERY_VALUES", values)
    data, random = make(find_images(photos), pixel_store), np.random.default_rng(1)
    own = tuple(np.array(sorted({n, 700 + n, 1999 - n})) for n in range(24))
    data = replace(data, gallery=random.normal(size=(2000, 16)).astype(np.float32), own_rows=own)
    embeddings = random.normal(size=(len(data.held_out), 16)).astype(np.float32)
    found = data.neighbours(embeddings, 2000)
    for row, position in enumerate(data.held_out):
        order = np.argsort(-(data.gallery.astype(np.float64) @ embeddings[row].astype(np.float64)))
        assert found[row].tolist() == [n for n in order if n not in own[position]] + [-1] * 3
    np.testing.assert_array_equal(data.neighbours(embeddings, 10), found[:, :10])
    assert (data.neighbours(np.full_like(embeddings, np.nan), 10) == -1).all()


def test_neighbours_in_a_large_gallery_are_not_a_whole_ranking(photos: Path, pixel_store: FeatureStore) -> None:
    data, random = make(find_images(photos), pixel_store), np.random.default_rng(1)
    held_out = np.zeros(100, np.int64)
    data = replace(data, gallery=random.normal(size=(40_000, 16)).astype(np.float32), held_out=held_out)
    embeddings = random.normal(size=(100, 16)).astype(np.float32)
    data.neighbours(embeddings, 10)  # what it needs is imported
    tracemalloc.start()
    data.neighbours(embeddings, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 40_000 * 4  # the similarities alone


def test_photos_from_elsewhere_with_a_store_of_their_own(
    photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    space, items = pixel_store.space, Items(tuple(f"shop-{n}" for n in range(24)), ("",) * 24)
    gallery = write_store(tmp_path / "gallery", space, items, halves(pixel_store))
    with pytest.raises(BadInputError, match=r"none of the 24 images .* 'shop-0', here .*`features`"):
        make(find_images(photos), gallery)
    data = make(find_images(photos), gallery, pixel_store)
    assert all(len(rows) == 0 for rows in data.own_rows) and data.store is pixel_store


def test_what_does_not_fit_is_refused(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    images = find_images(photos)
    other = extract(find_images(photos), PixelGallery(seed=8), tmp_path / "other")
    with pytest.raises(IncompatibleError, match="different embedding spaces"):
        make(images, other, pixel_store)
    with pytest.raises(BadInputError, match=r"6 training images, 2 held out .* too few: at least 8, 2 and 7"):
        make(images.subset(range(8)), pixel_store)
    with pytest.raises(BadInputError, match="gallery of 24 are too few: at least 8, 2 and 25"):
        make(images, pixel_store, overlap_k=23)
