"""What anchors are chosen from: gallery rows first, then views of the training photos, nobody's own among them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distillations import config
from doubles import PixelGallery

from edgecsd.errors import BadInputError
from edgecsd.features.store import FeatureStore
from edgecsd.gallery.extract import extract
from edgecsd.photos.finding import find_images
from edgecsd.training import anchor_pool as module
from edgecsd.training.anchor_pool import anchor_pool
from edgecsd.training.choices import HeldOutBy
from edgecsd.training.settings import make_config
from edgecsd.training.training_set import TrainingSet, make_training_set


def make(photos: Path, store: FeatureStore) -> TrainingSet:
    return make_training_set(find_images(photos), store, None, share=0.25, limit=100, overlap_k=5, by=HeldOutBy.KINDS)


@pytest.mark.parametrize(("asked", "views"), [(None, 2), (0, 0), (1, 1), (2, 2)])
def test_views_of_the_training_photos_stand_behind_the_gallery(
    photos: Path, pixel_store: FeatureStore, asked: int | None, views: int
) -> None:
    data = make(photos, pixel_store)
    pool, rows = anchor_pool(data, config(anchor_views=asked)), len(data.gallery)
    vectors = np.asarray(pool.vectors[:])
    assert (pool.views, vectors.shape) == (views, (rows + views * len(data.train), 16))
    np.testing.assert_array_equal(vectors[:rows], data.gallery[:])
    assert len(pool.own_rows) == 3 * len(data.train)
    for place, image in enumerate(data.train):
        own = [*data.own_rows[image].tolist(), *(rows + place * views + number for number in range(views))]
        for view in range(3):
            assert pool.own_rows[3 * place + view].tolist() == own
        for number in range(views):
            np.testing.assert_array_equal(vectors[rows + place * views + number], data.features[image, 1 + number])
    assert pool.count(10**6) == len(vectors) - 1 - views and pool.count(4) == 4


def test_views_of_byte_identical_copies_are_own_too(photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    for item in find_images(photos).ids[:8]:
        shutil.copy(photos / item, folder / f"copy-of-{Path(item).name}")
    data = make(folder, extract(find_images(folder), PixelGallery(), tmp_path / "store", views=1))
    pool, rows = anchor_pool(data, config()), len(data.gallery)
    digests = [data.digests[image] for image in data.train]
    for place in range(len(data.train)):
        alike = {rows + other for other, digest in enumerate(digests) if digest == digests[place]}
        assert {row for row in pool.own_rows[2 * place].tolist() if row >= rows} == alike
    assert any(digests.count(digest) == 2 for digest in digests)


def test_as_many_views_as_fit(photos: Path, pixel_store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make(photos, pixel_store)
    for room, views in ((len(data.train), 1), (len(data.train) - 1, 0), (-5, 0), (10**6, 2)):
        monkeypatch.setattr(module, "POOL_ROWS", len(data.gallery) + room)
        assert anchor_pool(data, config()).views == views


def test_centroids_are_of_the_gallery_alone(photos: Path, pixel_store: FeatureStore) -> None:
    data = make(photos, pixel_store)
    pool = anchor_pool(data, config(anchors="codebook"))
    assert pool.vectors is data.gallery and pool.count(24) == 24


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"anchor_views": 1, "anchors": "codebook"}, "`anchor_views`: `anchors` codebook are centroids"),
        ({"anchor_views": 1, "loss": "regression"}, "`anchor_views`: `loss` regression does not use it"),
        ({"anchor_views": -1}, "`anchor_views` -1"),
    ],
)
def test_what_has_no_use_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInputError, match=told):
        make_config(None, options)


def test_more_views_than_there_are(photos: Path, pixel_store: FeatureStore) -> None:
    with pytest.raises(BadInputError, match="`anchor_views` 3: there are 2 cached views an image"):
        anchor_pool(make(photos, pixel_store), config(anchor_views=3))


def test_a_gallery_on_disk_gets_no_views(
    photos: Path, pixel_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecsd.features.mapped.HELD_VALUES", 0)
    data = make(photos, pixel_store)
    assert anchor_pool(data, config()).vectors is data.gallery
    with pytest.raises(BadInputError, match="`anchor_views` 1: the gallery has 24 vectors, which stay on disk"):
        anchor_pool(data, config(anchor_views=1))
