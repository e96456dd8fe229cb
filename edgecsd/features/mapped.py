"""Vectors that stay on disk: rows of a store's memory-mapped shards, as float32 where they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecsd.features.shards import Rows, Shard, read_into
from edgecsd.features.store import FeatureStore
from edgecsd.photos.views import ViewRecipe

HELD_VALUES = 1 << 26  # vectors up to so many values are held as float32 (256 MB), more are left on disk
HASHED_ROWS = 65_536  # as float32 at once

Floats: TypeAlias = NDArray[np.float32]


class MappedVectors:
    """The rows of several memory-mapped arrays as one, (N, D): a slice or row numbers give float32 (rows, D)."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = tuple(shards)
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])
        self.shape = (int(self._starts[-1]), shards[0].shape[1])
        self.dtype = shards[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Rows) -> Floats:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                return self[np.arange(start, stop, step)]
            out = np.empty((max(0, stop - start), self.shape[1]), np.float32)
            self.fill(out, start)
            return out
        rows = np.asarray(rows, np.int64)
        out = np.empty((len(rows), self.shape[1]), np.float32)
        of = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(of):
            here = of == number
            out[here] = self._shards[number][rows[here] - self._starts[number]]
        return out

    def fill(self, out: Floats, start: int) -> None:
        """Write the rows from `start` on into out (rows, D)."""
        for first, shard in zip(self._starts, self._shards, strict=False):
            begin, end = max(start, int(first)), min(start + len(out), int(first) + len(shard))
            if begin < end:
                read_into(out[begin - start : end - start], shard, begin - int(first))


class MappedViews:
    """The vectors of photos and their cached views, (T, n, D), the photo itself first; left on disk."""

    def __init__(self, own: MappedVectors, views: MappedVectors, of_each: int, rows: NDArray[np.int64], n: int) -> None:
        """rows (T,): of `own`, whose row i has the `of_each` rows of `views` from i * of_each on."""
        self._own, self._views, self._of_each, self._rows = own, views, of_each, rows
        self.shape = (len(rows), n, own.shape[1])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, chosen: tuple[NDArray[np.int64], NDArray[np.int64] | int]) -> Floats:
        """(B, D) float32: of images (B,) the views (B,), or one view of all."""
        images, views = chosen
        rows, views = self._rows[images], np.broadcast_to(views, len(images))
        out, shown = np.empty((len(rows), self.shape[2]), np.float32), views > 0
        out[~shown] = self._own[rows[~shown]]
        if shown.any():
            out[shown] = self._views[rows[shown] * self._of_each + views[shown] - 1]
        return out

    def of(self, images: NDArray[np.int64]) -> MappedViews:
        """The views of only these images."""
        return MappedViews(self._own, self._views, self._of_each, self._rows[images], self.shape[1])


class FlatViews:
    """All views of some images one after the other, (len(images) * n, ...), of an array or MappedViews (T, n, ...)."""

    def __init__(self, source: NDArray[Any] | MappedViews, images: NDArray[np.int64], first: int | None = None) -> None:
        """first: only so many views of each."""
        self._source, self._images, self._n = source, images, source.shape[1] if first is None else first
        self.shape = (len(images) * self._n, *source.shape[2:])

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Rows) -> NDArray[Any]:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        images, views = np.divmod(np.asarray(rows, np.int64), self._n)
        return np.asarray(self._source[self._images[images], views])


Vectors: TypeAlias = Floats | MappedVectors  # (N, D)
Queries: TypeAlias = Floats | MappedVectors | FlatViews  # (T, D)
Views: TypeAlias = Floats | MappedViews  # (T, n, D)


def chosen_views(views: Views, images: NDArray[np.int64]) -> Views:
    """Those of some images: copied where they are held, left on disk where they are not."""
    return views.of(images) if isinstance(views, MappedViews) else views[images]


def gallery_vectors(store: FeatureStore) -> Vectors:
    """(N, D) vectors of a store: held as float32, or left on disk where there are many."""
    if store.count * store.space.dim <= HELD_VALUES:
        return store.vectors()
    return MappedVectors([block for _, block in store.blocks()])


def view_vectors(store: FeatureStore, rows: NDArray[np.int64], recipe: ViewRecipe) -> Views:
    """(T, 1 + V, D) of the store's rows (T,) with the first V = recipe.count of their cached views; held if few."""
    stored = store.count * (1 + store.views.count) * store.space.dim
    if stored <= HELD_VALUES:
        held: Floats = store.view_vectors()[rows, : 1 + recipe.count]
        return held
    own = MappedVectors([block for _, block in store.blocks()])
    views = MappedVectors([block for _, block in store.view_blocks()]) if store.views.count else own
    return MappedViews(own, views, store.views.count, rows, 1 + recipe.count)


def fill(out: Floats, source: Queries, start: int) -> None:
    """Write the rows of (N, D) from `start` on into out (rows, D), without a copy beside it."""
    if isinstance(source, MappedVectors):
        source.fill(out, start)
    else:
        out[...] = source[start : start + len(out)]


def digest(vectors: Queries) -> str:
    """SHA-256 of the values as float32: the same whether they are held or on disk."""
    found = hashlib.sha256()
    for start in range(0, len(vectors), HASHED_ROWS):
        found.update(np.ascontiguousarray(vectors[start : start + HASHED_ROWS], np.float32).data)
    return found.hexdigest()
