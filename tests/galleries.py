"""Feature stores of clustered vectors, and indexes over them that are broken behind a manifest in perfect order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.index.engines.faiss.folder import open_folder, write_items, write_manifest
from edgecsd.index.engines.faiss.index import make_engine
from edgecsd.index.engines.faiss.storing import MAIN, write_faiss
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.kinds import IndexType

DIM, COUNT = 32, 600


def clustered(seed: int = 0, count: int = COUNT) -> np.ndarray:
    """Unit vectors about 30 centres, as photos of things are."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(30, DIM))
    vectors = centres[random.integers(0, 30, count)] + 0.6 * random.normal(size=(count, DIM))
    return unit(vectors)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_store(path: Path, vectors: np.ndarray, *, dtype: str = "float16", **space: Any) -> FeatureStore:
    ids = tuple(f"item-{row:04d}" for row in range(len(vectors)))
    transform = space.pop("transform", None)
    made = EmbeddingSpace(gallery_model="acme-v7", dim=DIM, whitening=transform and transform.digest, **space)
    digests = tuple(f"{row:064x}" for row in range(len(vectors)))
    return write_store(path, made, Items(ids, digests), vectors, whitening=transform, dtype=dtype)


def forge(
    store: FeatureStore,
    out: Path,
    vectors: np.ndarray | None = None,
    *,
    ids: tuple[str, ...] | None = None,
    kind: IndexType = IndexType.FLAT,
    made: Any = None,
    **parameters: int,
) -> GalleryIndex:
    """An index folder with a manifest in perfect order, whatever its contents: what somebody's own script writes."""
    held = store.vectors() if vectors is None else vectors.astype(np.float32)
    index = make_engine(kind, parameters, DIM).main if made is None else made
    if not index.is_trained:
        index.train(held)
    index.add(held)
    named = store.items.ids[: len(held)] if ids is None else ids
    out.mkdir(parents=True)
    write_faiss(index, out / MAIN)
    write_items(out, named, [""] * len(named))
    write_manifest(out, kind, parameters, store.space, len(held))
    return open_folder(out)
