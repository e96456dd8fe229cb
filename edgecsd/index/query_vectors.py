"""Query photos as two models see them: what an index or a code is tuned and judged with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.features.space import EmbeddingSpace, require_same_space
from edgecsd.features.store import FeatureStore
from edgecsd.models.embedding import Embedder, embed_store_items
from edgecsd.photos.images import ImageSet
from edgecsd.progress import SILENT, Reporter

SPLIT_SEED = 20
FEWEST = 20  # queries, half of which are tuned on

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class QueryVectors:
    """query_model, gallery_model (Q, D): unit vectors of the same photos by each.

    own   (Q,) the gallery row of the query's own photo, which is left out of its results; -1 where it has none
    """

    query_model: Floats
    gallery_model: Floats
    own: Rows

    @property
    def digest(self) -> str:
        parts = (self.query_model, self.gallery_model, self.own)
        return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()

    def halves(self) -> tuple[Rows, Rows]:
        """Positions to tune on, and held-out ones to report on: the same for the same number of queries."""
        order = np.random.default_rng(SPLIT_SEED).permutation(len(self.own)).astype(np.int64)
        middle = len(order) // 2
        return np.sort(order[:middle]), np.sort(order[middle:])


def load_query_vectors(
    gallery: FeatureStore,
    queries: FeatureStore,
    *,
    images: ImageSet | None = None,
    run: Path | None = None,
    artifact: Path | None = None,
    embeddings: Path | None = None,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> QueryVectors:
    """Embed the photos of a query store by the query model (run or artifact), or read what it gave from a .npy file.

    Raises IncompatibleError where stores or model live in different embedding spaces.
    """
    given = [name for name, value in (("`run`", run), ("`artifact`", artifact), ("`embeddings`", embeddings)) if value]
    if len(given) != 1:
        raise BadInputError(
            f"one of `run`, `artifact` and `embeddings` must say what the query model gives ({len(given)} are given): "
            "queries to come are vectors of the query model, which lie elsewhere than the gallery model's own"
        )
    require_same_space(queries.space, gallery.space, str(queries.path), str(gallery.path))
    if queries.count < FEWEST:
        raise BadInputError(f"{queries.path}: {queries.count} queries; {FEWEST} or more are needed, better 500")
    if embeddings is not None:
        vectors = _read(embeddings, queries)
    else:
        if images is None:
            raise BadInputError("`images` is needed: the photos of the query store, for the query model to embed")
        embedder, space = _embedder(run, artifact)
        require_same_space(space, gallery.space, given[0], str(gallery.path))
        vectors = embed_store_items(images, queries, embedder, name="query photos", workers=workers, reporter=reporter)
    _require_unit(vectors, queries, given[0])
    shown = gallery.rows_of(queries.items.ids, queries.items.digests)
    own = np.array([rows[0] if len(rows) else -1 for rows in shown], np.int64)
    return QueryVectors(np.ascontiguousarray(vectors), queries.vectors(), own)


def _read(file: Path, queries: FeatureStore) -> Floats:
    try:
        vectors = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInputError(f"`embeddings` {file}: cannot be read as .npy: {error}") from None
    wanted = (queries.count, queries.space.dim)
    if not isinstance(vectors, np.ndarray) or vectors.shape != wanted or vectors.dtype.kind != "f":
        found = getattr(vectors, "shape", "several arrays")
        raise BadInputError(f"`embeddings` {file}: holds {found}; floats {wanted}, a row an item of {queries.path}")
    return np.asarray(vectors, np.float32)


def _embedder(run: Path | None, artifact: Path | None) -> tuple[Embedder, EmbeddingSpace]:
    if run is not None:
        from edgecsd.models.query import QueryModelEmbedder, load_query_model

        model = load_query_model(run)
        return QueryModelEmbedder(model), model.config.space
    from edgecsd.targets.artifact import ArtifactEmbedder

    assert artifact is not None
    exported = ArtifactEmbedder(artifact)
    return exported, exported.metadata.space


def _require_unit(vectors: Floats, queries: FeatureStore, source: str) -> None:
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = ~(np.abs(lengths - 1) < 0.01)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise BadInputError(
            f"{source}: the vector of {queries.items.ids[row]} has length {lengths[row]:.3f}, not 1 "
            f"({int(wrong.sum())} such)"
        )
