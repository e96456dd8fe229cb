"""What anchors are chosen from: the gallery and, beside it, cached views of the training photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.features.mapped import FlatViews, Vectors, chosen_views
from edgecsd.photos.decoding import photo_digest
from edgecsd.training.choices import AnchorKind
from edgecsd.training.settings import DistillConfig
from edgecsd.training.training_set import TrainingSet

# Up to so many vectors views are added: a step's product with all of them stays small beside the network's own work,
# and more of them brought nothing (docs/method.md).
POOL_ROWS = 16_384


@dataclass(frozen=True)
class AnchorPool:
    """What K anchors of each training vector are chosen from.

    vectors   (N + T n, D): the gallery's rows, then n views of each of the T training photos
    own_rows  per training vector, image x (1 + V) + view, the rows that show the same photo: they are no anchors of it
    views     n
    """

    vectors: Vectors
    own_rows: list[NDArray[np.int64]]
    views: int

    def count(self, k: int) -> int:
        """Anchors an image: k, or as many as there are beside its own rows."""
        return min(k, len(self.vectors) - max(len(rows) for rows in self.own_rows))


def anchor_pool(data: TrainingSet, config: DistillConfig) -> AnchorPool:
    """The pool of a configuration. Centroids of a codebook are of the gallery alone and nobody's own."""
    train, views_each = data.train, data.features.shape[1]
    if config.anchors is AnchorKind.CODEBOOK:
        return AnchorPool(data.gallery, [np.empty(0, np.int64)] * (len(train) * views_each), 0)
    count = _views(data, config)
    own, vectors = [data.own_rows[t] for t in train], data.gallery
    if count:
        assert isinstance(vectors, np.ndarray)
        every = FlatViews(chosen_views(data.features, train), np.arange(len(train)), 1 + count)
        shown = np.flatnonzero(np.arange(len(every)) % (1 + count))  # the photo itself is not a view of it
        vectors = np.concatenate([vectors, every[shown]])
        own = [np.concatenate([rows, more]) for rows, more in zip(own, _view_rows(data, count), strict=True)]
    return AnchorPool(vectors, [rows for rows in own for _ in range(views_each)], count)


def _views(data: TrainingSet, config: DistillConfig) -> int:
    """How many views of each photo: as many as asked for, or as many as there are and fit."""
    there, held = data.features.shape[1] - 1, isinstance(data.gallery, np.ndarray)
    if config.anchor_views is None:
        return max(0, min(there, (POOL_ROWS - len(data.gallery)) // len(data.train))) if held else 0
    if config.anchor_views > there:
        raise BadInputError(f"`anchor_views` {config.anchor_views}: there are {there} cached views an image")
    if config.anchor_views and not held:
        raise BadInputError(
            f"`anchor_views` {config.anchor_views}: the gallery has {len(data.gallery)} vectors, which stay on disk; "
            f"views are added to galleries in memory only: give 0, or leave it out"
        )
    return config.anchor_views


def _view_rows(data: TrainingSet, count: int) -> list[NDArray[np.int64]]:
    """Of each training photo the rows of its views in the pool, and of those of its byte-identical copies."""
    keys = [photo_digest(data.digests[t]) or data.images.ids[t] for t in data.train]
    places: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    first, numbers = len(data.gallery), np.arange(count)
    return [np.concatenate([first + place * count + numbers for place in places[key]]) for key in keys]
