"""A feature store of ten items with labels and two views, and what it is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import Items, write_store
from edgecsd.photos.views import ViewRecipe

SPACE = EmbeddingSpace(gallery_model="acme-v7", dim=4)


def unit(count: int, dim: int = 4, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def items(count: int, labels: bool = False) -> Items:
    ids = tuple(f"item {number:04d} ü.jpg" for number in range(count))
    return Items(ids, ("",) * count, tuple(f"label {n % 3}" for n in range(count)) if labels else None)


def write_ten(folder: Path) -> Path:
    write_store(
        folder, SPACE, items(10, labels=True), unit(10), views=ViewRecipe(count=2), view_vectors=unit(20, seed=1)
    )
    return folder
