"""Stores of labelled clusters, and a model, for evaluations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from doubles import PixelGallery

from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store

SPACE = EmbeddingSpace(gallery_model="acme-v7", dim=16)


def clusters(rows: int, seed: int, noise: float = 0.25) -> tuple[np.ndarray, tuple[str, ...]]:
    """Unit vectors around 5 centres, and their centres as labels."""
    centres = np.random.default_rng(0).normal(size=(5, 16))
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, rows)
    vectors = centres[labels] + random.normal(scale=noise, size=(rows, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), tuple(str(label) for label in labels)


def store(
    path: Path, rows: int, seed: int, *, labelled: bool = True, digests: tuple[str, ...] | None = None
) -> FeatureStore:
    vectors, labels = clusters(rows, seed)
    ids = tuple(f"{path.name}-{row}" for row in range(rows))
    items = Items(ids, digests or ("",) * rows, labels if labelled else None)
    return write_store(path, SPACE, items, vectors, dtype="float32")


class PixelGalleryEmbedder(PixelGallery):
    dim = 16
