"""Which gallery rows become anchors: the nearest, exactly or through inverted lists, or drawn ones; in blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgecsd.distributed import ALONE, Ranks
from edgecsd.features.mapped import Queries, Vectors, fill
from edgecsd.files.whole import Parts
from edgecsd.progress import SILENT, Reporter

BLOCK_VALUES = 32_000_000  # similarities held at once while mining: 128 MB
QUERY_ROWS = 4096  # of a large gallery, that each of its blocks is compared with
GALLERY_ROWS = 32_768  # up to so many, one matrix product gives all similarities
GALLERY_VALUES = 1 << 26  # of a larger gallery, that are compared at once: 256 MB as float32

RANDOM_STREAM, FIXED_STREAM = 1 << 40, 1 << 41  # of a seed's random numbers: apart from those of training

Floats = NDArray[np.float32]
Rows = Sequence[NDArray[np.int64]]
Found = tuple[NDArray[np.int32], NDArray[np.float16]]


def mine(
    vectors: Queries,
    gallery: Vectors,
    k: int,
    own_rows: Rows,
    parts: Parts,
    *,
    everyone: Ranks = ALONE,
    reporter: Reporter = SILENT,
) -> int:
    """Ids and cosines (T, K) of the gallery rows nearest to vectors (T, D), nearest first, as that many parts.

    Memory depends neither on T nor on N where vectors and gallery are on disk: blocks of both are held.
    own_rows[t] never stand among the anchors of vector t. What is done is kept in `parts`, which the processes of
    `everyone` fill, each its share.
    """

    def make(block: slice) -> dict[str, NDArray[Any]]:
        return named(nearest(vectors[block], gallery, k, own_rows[block]))

    return in_blocks(make, len(vectors), rows_at_once(len(gallery), k), parts, "mining anchors", reporter, everyone)


def nearest(vectors: Floats, gallery: Vectors, k: int, own_rows: Rows) -> Found:
    """Exact ids and cosines (B, K) for vectors (B, D), nearest first, without each vector's own rows.

    Ties are in any order. Where nothing else remains a cosine is -inf. The gallery (N, D) goes through memory block by
    block, once.
    """
    queries = np.ascontiguousarray(vectors, np.float32)
    if len(gallery) > GALLERY_ROWS:
        return _nearest_of_many(queries, gallery, k, own_rows)
    similarities = torch.from_numpy(queries) @ torch.from_numpy(np.require(gallery[:], np.float32, "W")).T
    for row, own in enumerate(own_rows):
        similarities[row, torch.from_numpy(own)] = -torch.inf
    found = similarities.topk(k)
    return found.indices.to(torch.int32).numpy(), found.values.to(torch.float16).numpy()


def _nearest_of_many(queries: Floats, gallery: Vectors, k: int, own_rows: Rows) -> Found:
    """`nearest` by faiss, whose search of a block is about as fast as the matrix product inside it."""
    from edgecsd.index.engines.faiss.inverted_lists import nearest_in  # faiss: only where it is needed

    rows = max(GALLERY_ROWS, GALLERY_VALUES // gallery.shape[1])
    buffer = np.empty((min(rows, len(gallery)), gallery.shape[1]), np.float32)
    values, ids = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(gallery), rows):
        block = buffer[: min(rows, len(gallery) - start)]
        fill(block, gallery, start)
        here = [own[(own >= start) & (own < start + len(block))] - start for own in own_rows]
        cosines, found = nearest_in(block, queries, k + max((len(own) for own in here), default=0))
        for row, own in enumerate(here):
            if len(own):
                cosines[row, np.isin(found[row], own)] = -np.inf
        if not start and not any(map(len, here)):
            values, ids = torch.from_numpy(cosines), torch.from_numpy(found)
            continue
        values = torch.cat([values, torch.from_numpy(cosines)], dim=1)
        ids = torch.cat([ids, torch.from_numpy(found) + start], dim=1)
        values, order = values.topk(min(k, values.shape[1]))
        ids = ids.gather(1, order)
    return ids.to(torch.int32).numpy(), values.to(torch.float16).numpy()


def rows_at_once(gallery: int, k: int) -> int:
    """Vectors that are compared at once with a gallery of so many."""
    if gallery <= GALLERY_ROWS:
        return max(1, BLOCK_VALUES // gallery)
    return max(1, min(QUERY_ROWS, BLOCK_VALUES // (2 * k)))


def drawn_for_each(count: int, k: int, own_rows: Rows, seed: int, first: int = 0) -> NDArray[np.int32]:
    """(T, K): for each vector K different rows below `count` and none of its own: a pure function of (seed, vector).

    first: the number of the first of these vectors among all.
    """
    ids = np.empty((len(own_rows), k), np.int32)
    for row, own in enumerate(own_rows):
        random = np.random.Generator(np.random.Philox(key=[seed, RANDOM_STREAM | (first + row)]))
        candidates = random.choice(count, k + len(own), replace=False)
        ids[row] = candidates[~np.isin(candidates, own)][:k]
    return ids


def drawn_order(count: int, seed: int) -> NDArray[np.int32]:
    """All `count` rows in one random order."""
    return np.random.Generator(np.random.Philox(key=[seed, FIXED_STREAM])).permutation(count).astype(np.int32)


def first_of(order: NDArray[np.int32], k: int, own_rows: Rows) -> NDArray[np.int32]:
    """(T, K): for each vector the first K of the order that are not its own; a broadcast view where all are alike."""
    ids = np.broadcast_to(order[:k], (len(own_rows), k))
    affected = [row for row, own in enumerate(own_rows) if np.isin(own, order[:k]).any()]
    if affected:
        ids = ids.copy()
    for row in affected:
        candidates = order[: k + len(own_rows[row])]
        ids[row] = candidates[~np.isin(candidates, own_rows[row])][:k]
    return ids


def in_blocks(
    make: Callable[[slice], dict[str, NDArray[Any]]],
    count: int,
    rows: int,
    parts: Parts,
    name: str,
    reporter: Reporter,
    everyone: Ranks = ALONE,
) -> int:
    """What `make` gives for every block of `rows` of `count` rows, as that many parts; those there are not made again.

    Each process of `everyone` makes its share; when this returns, all are there.
    """
    starts = range(0, count, rows)
    sizes = [min(rows, count - start) for start in starts]
    missing = [number for number in range(len(starts)) if not parts.has(number)]
    everyone.meet()  # nobody begins before all have seen what is missing
    own = everyone.share(missing)
    total = sum(sizes[number] for number in own)
    shown, done = (count, count - total) if everyone.count == 1 else (total, 0)
    with reporter.task(name, shown, done) as advance:
        for number in own:
            parts.write(number, **make(slice(starts[number], starts[number] + sizes[number])))
            advance(sizes[number])
    everyone.meet()
    return len(starts)


def named(found: Found) -> dict[str, NDArray[Any]]:
    """Ids and similarities as a part holds them."""
    return {"ids": found[0], "similarities": found[1]}
