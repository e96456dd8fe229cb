"""Exact search in bounded memory: where the judged items stand, and what comes first, without sorting the gallery.

A million vectors need no full ranking: average precision asks only for the places of the relevant and the junk items.
The place of an item is the number of vectors that come before it, which is counted. Ties are broken by row, as a stable
sort breaks them; equal vectors always tie.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgecsd.features.shards import Shard
from edgecsd.features.store import FeatureStore

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
SCORE_ENTRIES = 1 << 25  # similarities held at once: 128 MB
BLOCK_ROWS = 8_192  # gallery vectors multiplied at once
BLOCK_QUERIES = 256  # queries that `rank` sorts at once
NOWHERE = -1  # the place or row of what is not found


@dataclass(frozen=True)
class Copies:
    """rows (C,): those whose vector stands in an earlier row too; firsts (C,): the first row that has it.

    A matrix product gives equal vectors results that differ in the last digits, by where in a block they stand.
    """

    rows: Rows
    firsts: Rows

    @staticmethod
    def among(blocks: Iterable[tuple[int, Floats]]) -> Copies:
        """Those in (first row, (n, D) vectors), found by a hash of 64 bits: 16 bytes a row are held."""
        hashes = [
            np.fromiter((hash(row.tobytes()) for row in block + np.float32(0)), np.int64, len(block))  # 0 is -0
            for _, block in blocks
        ]
        every = np.concatenate(hashes) if hashes else np.empty(0, np.int64)
        order = np.argsort(every, kind="stable")
        anew = np.diff(every[order], prepend=every[order[:1]] - 1) != 0
        return Copies(order[~anew], order[anew][np.cumsum(anew) - 1][~anew])

    def align(self, scores: Floats) -> None:
        """Give each copy the score of its first, in place: (N,) or (Q, N)."""
        scores[..., self.rows] = scores[..., self.firsts]


@dataclass(frozen=True)
class RankedVectors:
    """What is searched: vectors in memory (N, D), then stores that stay on disk; rows count through them in order."""

    vectors: Floats
    stores: tuple[FeatureStore, ...] = ()

    @property
    def count(self) -> int:
        return len(self.vectors) + sum(store.count for store in self.stores)

    @cached_property
    def copies(self) -> Copies:
        """Rows with equal vectors."""
        return Copies.among(self.blocks())

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """(first row, (at most BLOCK_ROWS, D) float32), in row order."""
        first = 0
        whole: Shard
        for whole in (self.vectors, *(shard for store in self.stores for _, shard in store.blocks())):
            for start in range(0, len(whole), BLOCK_ROWS):
                yield first + start, np.asarray(whole[start : start + BLOCK_ROWS], np.float32)
            first += len(whole)


@dataclass(frozen=True)
class Ranking:
    """top (Q, depth): the first rows; places: of each query's targets, in their order, the 0-based places."""

    top: Rows
    places: tuple[Rows, ...]


def search(queries: Floats, searched: RankedVectors, targets: Sequence[Rows], depth: int) -> Ranking:
    """Search (Q, D) queries by falling inner product, ties by row; the same order as `rank`'s.

    targets  of each query the rows whose places are wanted
    depth    how many first rows are wanted; a shorter gallery gives as many as it has

    A query that is not finite finds nothing: NOWHERE throughout. A vector that is not finite comes last.
    """
    depth = min(depth, searched.count)
    top = np.full((len(queries), depth), NOWHERE, np.int64)
    places = [np.full(len(rows), NOWHERE, np.int64) for rows in targets]
    finite = np.asarray(np.isfinite(queries).all(axis=1))
    step = max(1, SCORE_ENTRIES // max(1, searched.count))
    for start in range(0, len(queries), step):
        for query, scores in enumerate(_scores(queries[start : start + step], searched), start):
            if finite[query]:
                searched.copies.align(scores)
                keys = _keys(scores)
                top[query] = _first(keys, depth)
                places[query] = _places(keys, targets[query])
    return Ranking(top, tuple(places))


def rank(queries: Floats, gallery: Floats) -> Rows:
    """(Q, N) gallery rows by falling inner product, ties by row: the whole ranking, for small galleries."""
    copies = RankedVectors(gallery).copies
    ranked = [np.empty((0, len(gallery)), np.int64)]
    for start in range(0, len(queries), BLOCK_QUERIES):
        scores = queries[start : start + BLOCK_QUERIES] @ gallery.T
        copies.align(scores)
        ranked.append(np.argsort(-scores, axis=1, kind="stable"))
    return np.concatenate(ranked)


def _scores(queries: Floats, searched: RankedVectors) -> Floats:
    """(q, N) inner products; those that are not finite become the lowest of all."""
    scores = np.empty((len(queries), searched.count), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for first, block in searched.blocks():
            np.matmul(queries, block.T, out=scores[:, first : first + len(block)])
    np.copyto(scores, -np.inf, where=~np.isfinite(scores))
    return scores


def _keys(scores: Floats) -> NDArray[np.uint64]:
    """(N,) similarities -> unique integers that rise from the best to the worst, equal ones by row.

    The bits of a positive float32 rise with its value, those of a negative one fall; adding 0 makes -0 into 0.
    """
    bits = (scores + np.float32(0)).view(np.uint32)
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (~rising).astype(np.uint64) << np.uint64(32) | np.arange(len(scores), dtype=np.uint64)


def _first(keys: NDArray[np.uint64], depth: int) -> Rows:
    best = np.sort(np.partition(keys, depth - 1)[:depth]) if depth else keys[:0]
    return (best & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _places(keys: NDArray[np.uint64], rows: Rows) -> Rows:
    """How many keys are below that of each of the rows."""
    order = np.argsort(keys[rows])
    wanted = keys[rows][order]
    before = np.bincount(np.searchsorted(wanted, keys, side="right"), minlength=len(rows) + 1)
    places = np.empty(len(rows), np.int64)
    places[order] = np.cumsum(before)[: len(rows)]
    return places
