"""Where embeddings lie on a map: as scikit-learn's PCA puts them, the same for a seed, without what is broken."""

from __future__ import annotations

import numpy as np
import pytest
from saved_evidence import unit
from sklearn.decomposition import PCA

from edgecsd.gate import evidence as embedding_places
from edgecsd.gate.evidence import EmbeddingPlaces, find_places


def vectors(rows: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(rows, 12)) * np.arange(1, 13))


def test_the_axes_are_those_of_the_gallery_model() -> None:
    gallery, one, other = vectors(60, 1), vectors(20, 2), vectors(20, 3)
    found = find_places(gallery, one, other)
    assert found is not None
    fitted = PCA(n_components=2, svd_solver="full").fit(np.concatenate([gallery, one]).astype(np.float64))
    for places, block in ((found.gallery, gallery), (found.by_gallery_model, one), (found.by_file, other)):
        np.testing.assert_allclose(np.abs(places), np.abs(fitted.transform(block)), atol=1e-5)
    assert found.share == pytest.approx(fitted.explained_variance_ratio_.sum())
    np.testing.assert_array_equal(found.queries, np.arange(20))


def test_a_sample_keeps_pairs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_places, "PAIR_POINTS", 5)
    gallery, one = vectors(30, 1), vectors(20, 2)
    found, again = (find_places(gallery, one, one, seed=4) for _ in range(2))
    assert found is not None and again is not None and len(found.queries) == 5
    np.testing.assert_array_equal(found.by_file, found.by_gallery_model)
    np.testing.assert_array_equal(found.queries, again.queries)
    other = find_places(gallery, one, one, seed=5)
    assert other is not None and not np.array_equal(other.queries, found.queries)


def test_what_is_not_finite_stands_nowhere() -> None:
    gallery, one, other = vectors(30, 1), vectors(20, 2), vectors(20, 3)
    other[3, 0], gallery[5, 1] = np.nan, np.inf
    found = find_places(gallery, one, other)
    assert found is not None and 3 not in found.queries and len(found.queries) == 19 and len(found.gallery) == 29
    assert all(np.isfinite(block).all() for block in (found.gallery, found.by_gallery_model, found.by_file))
    assert find_places(gallery, one, np.full_like(other, np.nan)) is None


def test_arrays_and_back() -> None:
    found = find_places(vectors(30, 1), vectors(4, 2), vectors(4, 3))
    assert found is not None
    again = EmbeddingPlaces.of_arrays(found.arrays())
    assert again is not None and again.share == found.share
    np.testing.assert_array_equal(again.by_file, found.by_file)
    assert EmbeddingPlaces.of_arrays({}) is None
