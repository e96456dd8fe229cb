"""Codebooks against the conditions that k-means ends in, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.index.engines.faiss.clustering import product_codebooks, spherical_codebook
from edgecsd.index.engines.faiss.inverted_lists import InvertedLists

Floats = NDArray[np.float32]


def groups(seed: int, count: int, size: int, dim: int = 16) -> tuple[Floats, NDArray[np.int64]]:
    """Unit vectors around `count` orthogonal directions, `size` of each, and the direction that each belongs to."""
    random = np.random.default_rng(seed)
    label = np.repeat(np.arange(count), size)
    vectors = np.eye(dim)[label] + 0.03 * random.normal(size=(len(label), dim))
    unit: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit, label


@pytest.fixture
def threads() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    yield
    faiss.omp_set_num_threads(before)


def test_spherical_centroids_are_the_unit_means_of_what_is_nearest_to_them() -> None:
    vectors, _ = groups(0, 12, 40)
    centroids = spherical_codebook(vectors, 20, seed=1, iterations=100)
    assert centroids.shape == (20, 16) and centroids.dtype == np.float32
    nearest = [max(range(20), key=lambda c: float(np.dot(v, centroids[c]))) for v in vectors]
    assert set(nearest) == set(range(20))
    for number in range(20):
        mean = np.mean([v for v, c in zip(vectors, nearest, strict=True) if c == number], axis=0)
        np.testing.assert_allclose(centroids[number], mean / np.linalg.norm(mean), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-6)


def test_one_centroid_is_the_direction_of_the_mean() -> None:
    vectors, _ = groups(3, 5, 200)
    mean = vectors.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(spherical_codebook(vectors, 1, seed=0)[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_a_codebook_of_everything_is_the_gallery_and_copies_do_no_harm() -> None:
    vectors, _ = groups(4, 6, 3)
    np.testing.assert_allclose(spherical_codebook(vectors, 18, seed=0), vectors, atol=1e-6)
    centroids = spherical_codebook(np.repeat(vectors[:2], 10, axis=0), 7, seed=0)  # 2 different vectors, 7 centroids
    assert np.isfinite(centroids).all()
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-6)


@pytest.mark.usefixtures("threads")
def test_the_seed_decides_whatever_the_number_of_threads() -> None:
    vectors, _ = groups(5, 10, 60)
    spherical, product = [], []
    for count in (1, 2, 3):
        faiss.omp_set_num_threads(count)
        spherical.append(spherical_codebook(vectors, 15, seed=2**40 + 3))
        product.append(product_codebooks(vectors, 4, 9, seed=2**40 + 3))
    for books in (spherical, product):
        np.testing.assert_array_equal(books[0], books[1])
        np.testing.assert_array_equal(books[0], books[2])
    assert not np.array_equal(spherical[0], spherical_codebook(vectors, 15, seed=4))
    assert not np.array_equal(product[0], product_codebooks(vectors, 4, 9, seed=4))


def test_product_centroids_are_the_means_of_the_raw_sub_vectors() -> None:
    vectors, _ = groups(6, 8, 50)
    books = product_codebooks(vectors, 4, 5, seed=0, iterations=100)
    assert books.shape == (4, 5, 4) and books.dtype == np.float32
    for number, book in enumerate(books):
        part = vectors[:, 4 * number : 4 * number + 4]
        nearest = np.array([min(range(5), key=lambda c: float(((v - book[c]) ** 2).sum())) for v in part])
        for centroid in range(5):
            np.testing.assert_allclose(book[centroid], part[nearest == centroid].mean(axis=0), atol=1e-4)
    assert not np.allclose(np.linalg.norm(books, axis=2), 1, atol=0.1)  # lengths are kept


def test_bad_counts_name_their_option() -> None:
    vectors, _ = groups(7, 4, 3)
    for k in (0, 13):
        with pytest.raises(BadInputError, match=f"`k` {k}: the gallery offers 1 to 12 anchors"):
            spherical_codebook(vectors, k, seed=0)
    for parts in (0, 3, 32):
        with pytest.raises(BadInputError, match=f"`sub_spaces` {parts}: 16 dimensions divide into 1, 2, 4, 8, 16"):
            product_codebooks(vectors, parts, 2, seed=0)
    for count in (0, 13):
        with pytest.raises(BadInputError, match=f"`centroids` {count}: the gallery offers 1 to 12 centroids"):
            product_codebooks(vectors, 4, count, seed=0)


def test_inverted_lists_look_at_enough_lists(tmp_path: Path) -> None:
    vectors, _ = groups(8, 16, 250)
    InvertedLists.make(tmp_path / "lists", vectors)
    few, many, all_ = (InvertedLists(tmp_path / "lists", depth) for depth in (10, 500, 4000))
    assert few.lists == many.lists == 4000 // 39
    assert few.probes < many.probes < all_.probes == all_.lists
    rows, cosines = all_.search(vectors[:3], 4000)
    assert (np.sort(rows) == np.arange(4000)).all()
    np.testing.assert_allclose(np.take_along_axis(vectors[:3] @ vectors.T, rows, axis=1), cosines, atol=1e-5)
