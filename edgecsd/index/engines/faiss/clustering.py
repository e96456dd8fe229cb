"""Clusters of gallery vectors: codebooks that serve as anchors, and centroids of a product quantiser (faiss)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, missing_extra
from edgecsd.features.exact import unit_rows
from edgecsd.features.mapped import MappedVectors, Vectors

try:
    import faiss
except ImportError:
    raise missing_extra("faiss", "index") from None

Floats = NDArray[np.float32]
POINTS_PER_CENTROID = 256  # vectors a centroid that k-means looks at: more make it slower and not better (faiss)
LEAST_POINTS = 65_536  # that k-means looks at however few the centroids are


def spherical_codebook(vectors: Vectors, k: int, *, seed: int, iterations: int = 20) -> Floats:
    """(K, D) unit centroids of unit vectors (N, D), by spherical k-means (Dhillon and Modha, Machine Learning 2001).

    The same seed gives the same centroids. Of very many vectors (above 256 a centroid and 65,536) it takes a sample.
    """
    if not 1 <= k <= len(vectors):
        raise BadInputError(f"`k` {k}: the gallery offers 1 to {len(vectors)} anchors an image")
    held = _held(vectors, k, seed)
    centroids = _centroids(held, k, spherical=True, seed=_faiss_seed(seed), iterations=iterations)
    return unit_rows(centroids)


def require_sub_spaces(sub_spaces: int, dim: int) -> None:
    """Raise BadInputError unless vectors of `dim` numbers divide into so many parts of one width."""
    if sub_spaces < 1 or dim % sub_spaces:
        allowed = ", ".join(str(number) for number in range(1, dim + 1) if dim % number == 0)
        raise BadInputError(f"`sub_spaces` {sub_spaces}: {dim} dimensions divide into {allowed}")


def product_codebooks(vectors: Vectors, sub_spaces: int, centroids: int, *, seed: int, iterations: int = 20) -> Floats:
    """(M, L, D / M) centroids of a product quantiser of vectors (N, D): k-means in each of M runs of D / M dimensions.

    The sub-vectors are taken as they are, not normalised. Jegou, Douze, Schmid: "Product Quantization for Nearest
    Neighbor Search", PAMI 2011; as anchors: "Structure Similarity Preservation Learning for Asymmetric Image
    Retrieval", 2024 (arXiv 2403.00648).
    """
    count, dim = vectors.shape
    require_sub_spaces(sub_spaces, dim)
    if not 1 <= centroids <= count:
        raise BadInputError(f"`centroids` {centroids}: the gallery offers 1 to {count} centroids a sub-space")
    seeds = np.random.SeedSequence(seed).generate_state(sub_spaces) >> 1  # faiss: below 2**31
    parts = np.split(_held(vectors, centroids, seed), sub_spaces, axis=1)
    books = [
        _centroids(part, centroids, spherical=False, seed=int(own_seed), iterations=iterations)
        for part, own_seed in zip(parts, seeds, strict=True)
    ]
    return np.stack(books)


def _held(vectors: Vectors, centroids: int, seed: int) -> Floats:
    """The vectors; of those that are left on disk, where there are more than k-means looks at, as many as it does."""
    if not isinstance(vectors, MappedVectors):
        return vectors
    points = min(len(vectors), centroids * _points_of_each(centroids))
    return vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), points, replace=False))]


def _points_of_each(centroids: int) -> int:
    """Vectors a centroid that k-means looks at."""
    return max(POINTS_PER_CENTROID, LEAST_POINTS // centroids)


def _faiss_seed(seed: int) -> int:
    """A seed of any size as faiss takes it: below 2**31."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1)


def _centroids(vectors: Floats, count: int, *, spherical: bool, seed: int, iterations: int) -> Floats:
    """(count, D) k-means centroids. faiss gives the same bits for any number of threads [measured with 1, 2 and 4]."""
    means = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=iterations,
        spherical=spherical,
        seed=seed,
        min_points_per_centroid=1,  # no warning on stderr for small galleries
        max_points_per_centroid=_points_of_each(count),
    )
    means.train(np.ascontiguousarray(vectors, np.float32))
    return np.array(means.centroids, np.float32).reshape(count, -1)
