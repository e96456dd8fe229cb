"""Exact search over blocks of unit vectors, in bounded memory: the one that every step uses but two.

evaluation/ranking.py also counts where judged items stand; training/anchors/mining.py wants thousands of neighbours of
every training image, in any order of ties, as fast as a matrix product.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.features.shards import let_go
from edgecsd.features.store import FeatureStore

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]
Blocks = Iterable[tuple[Rows, Floats]]
BLOCK_ROWS = 8_192  # read at once: 16 MB at dimension 512
SUMMED_ROWS = 256  # as float64 at once
NOISE = 1e-5  # what a matrix product of float32 unit vectors may be off, and more


def store_rows(store: FeatureStore, rows: Rows) -> Floats:
    """(n,) rows of a store -> (n, dim) float32, without reading the others."""
    found = np.empty((len(rows), store.space.dim), np.float32)
    for first, block in store.blocks():
        here = np.flatnonzero((rows >= first) & (rows < first + len(block)))
        found[here] = block[rows[here] - first]
    return found


def store_blocks(store: FeatureStore, size: int = BLOCK_ROWS) -> Iterator[tuple[Rows, Floats]]:
    """(rows, vectors as float32) of a whole store, `size` rows at a time; what was read does not stay in memory."""
    for first, shard in store.blocks():
        for start in range(0, len(shard), size):
            block = np.array(shard[start : start + size], np.float32)
            yield np.arange(first + start, first + start + len(block), dtype=np.int64), block
            let_go(shard)


def exact_neighbours(queries: Floats, blocks: Blocks, k: int) -> tuple[Floats, Rows]:
    """(Q, dim) queries -> inner products (Q, k) and rows (Q, k) of the best, best first, ties by row.

    Equal vectors tie, wherever they stand; those of the blocks are of about length 1. The blocks are read once, and
    memory depends on Q, k and one block alone. k is cut to the rows there are. A query that is not finite finds
    nothing: row -1, inner product -inf.
    """
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    asked, count = np.flatnonzero(np.isfinite(queries).all(axis=1)), 0
    noise = NOISE * np.linalg.norm(queries[asked], axis=1, keepdims=True)
    for numbers, block in blocks:
        count += len(numbers)
        found = queries[asked] @ block.T
        hopeful = found >= scores[asked, -1:] - noise  # never so for NaN
        for place in np.flatnonzero(hopeful.any(axis=1)):
            query, columns = asked[place], np.flatnonzero(hopeful[place])
            columns = columns[_among_best(found[place, columns], k, float(noise[place, 0]))]
            exact = products(queries[query], block[columns]) if noise[place, 0] else found[place, columns]  # 0 with all
            _merge(scores[query], rows[query], exact, numbers[columns])
        del found, hopeful, block  # else they are still there when the next block's are made
    return scores[:, :count], rows[:, :count]


def without_own(scores: Floats, rows: Rows, own: Rows, depth: int) -> tuple[Floats, Rows]:
    """(Q, depth + 1) results -> (Q, depth) with each query's own photo (own (Q,), -1: it has none) taken out."""
    kept = (rows != own[:, None]) | (rows < 0)
    order = np.argsort(~kept, axis=1, kind="stable")[:, :depth]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def products(query: Floats, vectors: Floats) -> Floats:
    """(D,), (n, D) -> (n,) inner products, summed in 64 bit: of equal vectors equal ones, unlike a matrix product's."""
    found, wide = np.empty(len(vectors), np.float32), query.astype(np.float64)
    for start in range(0, len(vectors), SUMMED_ROWS):
        found[start : start + SUMMED_ROWS] = (vectors[start : start + SUMMED_ROWS] * wide).sum(axis=1)
    return found


def _among_best(scores: Floats, k: int, noise: float) -> NDArray[np.bool_]:
    """Which of (n,) scores may be among the best k when they are off by up to noise / 2."""
    if len(scores) <= k:
        return np.ones(len(scores), bool)
    hopeful: NDArray[np.bool_] = scores >= np.partition(scores, len(scores) - k)[len(scores) - k] - noise
    return hopeful


def _merge(scores: Floats, rows: Rows, new_scores: Floats, new_rows: Rows) -> None:
    """Put new candidates into one query's sorted results, in place."""
    depth = len(scores)
    known = rows >= 0
    every_score = np.concatenate([scores[known], new_scores])
    every_row = np.concatenate([rows[known], new_rows])
    order = np.lexsort((every_row, -every_score))[:depth]
    scores[: len(order)], rows[: len(order)] = every_score[order], every_row[order]


def unit_rows(vectors: NDArray[Any]) -> Floats:
    """(N, D) float32 rows scaled to length 1; zeros stay zero, what is not finite stays so."""
    rows = np.asarray(vectors, np.float32)
    scaled: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return scaled


def unit(vectors: NDArray[Any]) -> Floats:
    """Rows scaled to length 1; zero and non-finite rows become zero."""
    return unit_rows(np.nan_to_num(np.asarray(vectors, np.float32), nan=0.0, posinf=0.0, neginf=0.0))
