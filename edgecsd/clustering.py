"""Clusters of gallery vectors: codebooks that serve as anchors, and inverted lists for near neighbours (faiss)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, missing_extra

try:
    import faiss
except ImportError:
    raise missing_extra("faiss", "index") from None

Floats = NDArray[np.float32]
POINTS_PER_LIST = 39  # below this many vectors a list, k-means learns little (faiss warns at the same number)
POINTS_OF_A_LIST = 64  # vectors a list that its making looks at: lists need not be as good as a codebook
LEAST_PROBES = 8  # lists that a query looks at, where there are as many
ADDED_ROWS = 65_536  # at once, as float32: 128 MB at dimension 512
POINTS_PER_CENTROID = 256  # vectors a centroid that k-means looks at: more make it slower and not better (faiss)
LEAST_POINTS = 65_536  # that k-means looks at however few the centroids are


def spherical_codebook(vectors: Floats, k: int, *, seed: int, iterations: int = 20) -> Floats:
    """(K, D) unit centroids of unit vectors (N, D), by spherical k-means (Dhillon and Modha, Machine Learning 2001).

    The same seed gives the same centroids. Of very many vectors (above 256 a centroid and 65,536) it takes a sample.
    """
    if not 1 <= k <= len(vectors):
        raise BadInputError(f"--k {k}: the gallery offers 1 to {len(vectors)} anchors an image")
    centroids = _centroids(vectors, k, spherical=True, seed=_faiss_seed(seed), iterations=iterations)
    norms = np.linalg.norm(centroids, axis=1, keepdims=True)
    unit: Floats = centroids / np.maximum(norms, np.float32(1e-12))
    return unit


def product_codebooks(vectors: Floats, sub_spaces: int, centroids: int, *, seed: int, iterations: int = 20) -> Floats:
    """(M, L, D / M) centroids of a product quantiser of vectors (N, D): k-means in each of M runs of D / M dimensions.

    The sub-vectors are taken as they are, not normalised. Jegou, Douze, Schmid: "Product Quantization for Nearest
    Neighbor Search", PAMI 2011; as anchors: "Structure Similarity Preservation Learning for Asymmetric Image
    Retrieval", 2024 (arXiv 2403.00648).
    """
    count, dim = vectors.shape
    if sub_spaces < 1 or dim % sub_spaces:
        allowed = ", ".join(str(number) for number in range(1, dim + 1) if dim % number == 0)
        raise BadInputError(f"--sub-spaces {sub_spaces}: {dim} dimensions divide into {allowed}")
    if not 1 <= centroids <= count:
        raise BadInputError(f"--centroids {centroids}: the gallery offers 1 to {count} centroids a sub-space")
    seeds = np.random.SeedSequence(seed).generate_state(sub_spaces) >> 1  # faiss: below 2**31
    parts = np.split(vectors, sub_spaces, axis=1)
    books = [
        _centroids(part, centroids, spherical=False, seed=int(own_seed), iterations=iterations)
        for part, own_seed in zip(parts, seeds, strict=True)
    ]
    return np.stack(books)


def _faiss_seed(seed: int) -> int:
    """A seed of any size as faiss takes it: below 2**31."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1)


def _centroids(vectors: Floats, count: int, *, spherical: bool, seed: int, iterations: int) -> Floats:
    """(count, D) k-means centroids. faiss gives the same bits for any number of threads [measured with 1, 2 and 4]."""
    points = max(POINTS_PER_CENTROID, LEAST_POINTS // count)
    means = faiss.Kmeans(
        vectors.shape[1], count, niter=iterations, spherical=spherical, seed=seed,
        min_points_per_centroid=1, max_points_per_centroid=points,  # 1: no warning on stderr for small galleries
    )  # fmt: skip
    means.train(np.ascontiguousarray(vectors, np.float32))
    return np.array(means.centroids, np.float32).reshape(count, -1)


class InvertedLists:
    """Approximate nearest neighbours of unit vectors by cosine. Holds a copy of the gallery, in its own type."""

    def __init__(self, gallery: Floats, depth: int) -> None:
        """Lists over gallery (N, D); `probes` of them are searched, to begin with what `depth` neighbours may need."""
        count, dim = gallery.shape
        self.lists = max(1, min(round(4 * math.sqrt(count)), count // POINTS_PER_LIST))
        # Lists with four times as many vectors as are asked for, and never only a few: whoever needs more doubles it.
        self.probes = min(self.lists, max(LEAST_PROBES, math.ceil(4 * depth * self.lists / count)))
        kept = "SQfp16" if gallery.dtype == np.float16 else "Flat"
        index: Any = faiss.index_factory(dim, f"IVF{self.lists},{kept}", faiss.METRIC_INNER_PRODUCT)
        self._index = index
        self._index.cp.min_points_per_centroid, self._index.cp.max_points_per_centroid = 1, POINTS_OF_A_LIST
        sample = gallery[:: max(1, count // (self.lists * POINTS_OF_A_LIST))]
        self._index.train(np.ascontiguousarray(sample, np.float32))
        for start in range(0, count, ADDED_ROWS):
            self._index.add(np.ascontiguousarray(gallery[start : start + ADDED_ROWS], np.float32))

    def search(self, queries: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
        """(Q, count) gallery rows and cosines of queries (Q, D), nearest first; row -1 where the lists gave too few."""
        self._index.nprobe = self.probes
        cosines, rows = self._index.search(np.ascontiguousarray(queries, np.float32), count)
        return rows, cosines
