"""Which gallery rows become anchors: the nearest, exactly or through inverted lists, or drawn ones; in blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgecsd.anchor_kinds import Mining
from edgecsd.distributed import ALONE, Ranks
from edgecsd.files import Parts
from edgecsd.progress import SILENT, Reporter

BLOCK_VALUES = 32_000_000  # similarities held at once while mining: 128 MB
FEW = 8  # where fewer than one in so many similarities can matter, picking them beats sorting
GALLERY_ROWS = 32_768  # of which as float32: 64 MB at dimension 512
RECALL_SAMPLE = 256  # vectors that approximate mining is compared with exact mining on
LEAST_RECALL = 0.95  # on them: until it is reached, twice as many lists are searched

RANDOM_STREAM, FIXED_STREAM = 1 << 40, 1 << 41  # of a seed's random numbers: apart from those of training

Floats = NDArray[np.float32]
Rows = Sequence[NDArray[np.int64]]
Found = tuple[NDArray[np.int32], NDArray[np.float16]]


def mine(
    vectors: Floats,
    gallery: Floats,
    k: int,
    own_rows: Rows,
    parts: Parts,
    *,
    mining: Mining,
    everyone: Ranks = ALONE,
    reporter: Reporter = SILENT,
) -> tuple[Found, float | None]:
    """Ids and cosines (T, K) of the gallery rows nearest to vectors (T, D), nearest first; and the recall, if measured.

    Either may be a memory-mapped file, of float16 too: exact mining holds blocks of them, whatever their number.
    own_rows[t] never stand among the anchors of vector t. What is done is kept in `parts`, which the processes of
    `everyone` fill, each its share, and all read.
    """
    if mining is Mining.IVF:
        return _mine_in_lists(vectors, gallery, k, own_rows, parts, everyone, reporter)

    def make(block: slice) -> dict[str, NDArray[Any]]:
        return _named(nearest(vectors[block], gallery, k, own_rows[block]))

    found = in_blocks(make, len(vectors), _rows_at_once(gallery), parts, "mining anchors", reporter, everyone)
    return (found["ids"], found["similarities"]), None


def nearest(vectors: Floats, gallery: Floats, k: int, own_rows: Rows) -> Found:
    """Exact ids and cosines (B, K) for vectors (B, D), nearest first, without each vector's own rows.

    The gallery (N, D) goes through memory block by block, once; K of it and what may displace them are kept.
    """
    queries = torch.from_numpy(np.asarray(vectors, np.float32))
    values, ids = torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(gallery), GALLERY_ROWS):
        block = torch.from_numpy(np.array(gallery[start : start + GALLERY_ROWS])).float()
        similarities = queries @ block.T
        for row, own in enumerate(own_rows):
            here = own[(own >= start) & (own < start + len(block))] - start
            if len(here):
                similarities[row, torch.from_numpy(here)] = -torch.inf
        new_values, new_ids = _candidates(similarities, values, k)
        merged, order = torch.cat([values, new_values], dim=1).topk(min(k, values.shape[1] + new_values.shape[1]))
        values, ids = merged, torch.cat([ids, new_ids + start], dim=1).gather(1, order)
    return ids.to(torch.int32).numpy(), values.to(torch.float16).numpy()


def _candidates(similarities: Tensor, best: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns of similarities (B, G) that may be among the k best, beside those (B, k or fewer) so far.

    Rows with fewer than others are filled up with -inf, column 0. After the first blocks few values beat the k-th
    best, and picking those is cheaper than sorting all.
    """
    batch, columns = similarities.shape
    if best.shape[1] == k:
        places = np.flatnonzero((similarities > best[:, -1:]).numpy())  # row by row: far faster than torch's nonzero
        rows = places // columns
        counts = np.bincount(rows, minlength=batch)
        most = int(counts.max())
        if FEW * most <= columns:
            within = np.arange(len(rows)) - (counts.cumsum() - counts)[rows]
            values, ids = (
                similarities.new_full((batch, most), -torch.inf),
                torch.zeros((batch, most), dtype=torch.int64),
            )
            flat = torch.from_numpy(rows * most + within)
            values.view(-1)[flat] = similarities.view(-1)[torch.from_numpy(places)]
            ids.view(-1)[flat] = torch.from_numpy(places - rows * columns)
            return values, ids
    found = similarities.topk(min(k, similarities.shape[1]), dim=1)
    return found.values, found.indices


def _rows_at_once(gallery: Floats) -> int:
    """Vectors whose similarities to a block of the gallery are held at once."""
    return max(1, BLOCK_VALUES // min(len(gallery), GALLERY_ROWS))


def _mine_in_lists(
    vectors: Floats, gallery: Floats, k: int, own_rows: Rows, parts: Parts, everyone: Ranks, reporter: Reporter
) -> tuple[Found, float]:
    from edgecsd.clustering import InvertedLists  # faiss: only where it is asked for

    most_own = max((len(rows) for rows in own_rows), default=0)
    lists = InvertedLists(gallery, k + most_own)

    def search(of: slice | NDArray[np.int64]) -> Found:
        asked = np.arange(len(vectors))[of]
        ids, cosines = lists.search(vectors[asked], k + most_own)
        return _without_own(ids, cosines, vectors[asked], gallery, k, [own_rows[t] for t in asked])

    sample = np.unique(np.linspace(0, len(vectors) - 1, min(RECALL_SAMPLE, len(vectors))).round().astype(np.int64))
    exact = _nearest_in_blocks(sample, vectors, gallery, k, own_rows)
    while lists.probes < lists.lists and _recall(search(sample)[0], exact) < LEAST_RECALL:
        lists.probes = min(lists.lists, 2 * lists.probes)
    rows = max(1, BLOCK_VALUES // (8 * (k + most_own)))
    found = in_blocks(
        lambda block: _named(search(block)), len(vectors), rows, parts, "mining anchors", reporter, everyone
    )
    recall = _recall(found["ids"][sample], exact)
    reporter.message(
        f"approximate mining: recall@{k} {recall:.4f} against exact mining, on {len(sample)} vectors "
        f"({lists.probes} of {lists.lists} lists searched)"
    )
    return (found["ids"], found["similarities"]), recall


def _without_own(
    ids: NDArray[np.int64], cosines: Floats, vectors: Floats, gallery: Floats, k: int, own_rows: Rows
) -> Found:
    """The first K of each row of ids (B, K + own) that are not the vector's own; exact where the lists gave fewer."""
    kept = np.empty((len(ids), k), np.int32)
    similarities = np.empty((len(ids), k), np.float16)
    for row, own in enumerate(own_rows):
        places = np.flatnonzero((ids[row] >= 0) & ~np.isin(ids[row], own))[:k]
        if len(places) == k:
            kept[row], similarities[row] = ids[row, places], cosines[row, places]
        else:
            only = slice(row, row + 1)
            exact = nearest(vectors[only], gallery, k, own_rows[only])
            kept[row], similarities[row] = exact[0][0], exact[1][0]
    return kept, similarities


def _nearest_in_blocks(
    sample: NDArray[np.int64], vectors: Floats, gallery: Floats, k: int, own_rows: Rows
) -> NDArray[np.int32]:
    """(S, K) exact anchors of the sampled vectors."""
    rows = _rows_at_once(gallery)
    blocks = [sample[start : start + rows] for start in range(0, len(sample), rows)]
    return np.concatenate([nearest(vectors[b], gallery, k, [own_rows[t] for t in b])[0] for b in blocks])


def _recall(ids: NDArray[np.int32], exact: NDArray[np.int32]) -> float:
    """Share of the exact anchors (S, K) that are among ids (S, K), row by row."""
    found = sum(len(np.intersect1d(own, best)) for own, best in zip(ids, exact, strict=True))
    return found / exact.size


def drawn_for_each(count: int, k: int, own_rows: Rows, seed: int) -> NDArray[np.int32]:
    """(T, K): for each vector K different rows below `count` and none of its own: a pure function of (seed, vector)."""
    ids = np.empty((len(own_rows), k), np.int32)
    for row, own in enumerate(own_rows):
        random = np.random.Generator(np.random.Philox(key=[seed, RANDOM_STREAM | row]))
        candidates = random.choice(count, k + len(own), replace=False)
        ids[row] = candidates[~np.isin(candidates, own)][:k]
    return ids


def drawn_for_all(count: int, k: int, own_rows: Rows, seed: int) -> NDArray[np.int32]:
    """(T, K): for each vector the first K of one random order of all rows that are not its own."""
    order = np.random.Generator(np.random.Philox(key=[seed, FIXED_STREAM])).permutation(count).astype(np.int32)
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
) -> dict[str, NDArray[Any]]:
    """What `make` gives for every block of `rows` of `count` rows, joined; blocks that are in `parts` are not made.

    Each process of `everyone` makes its share, and reads all.
    """
    starts = range(0, count, rows)
    sizes = [min(rows, count - start) for start in starts]
    missing = [number for number in range(len(starts)) if not parts.has(number)]
    everyone.meet()  # nobody begins before all have seen what is missing
    own = everyone.share(missing)
    total = sum(sizes[number] for number in own)
    told, done = (count, count - total) if everyone.count == 1 else (total, 0)
    with reporter.task(name, told, done) as advance:
        for number in own:
            parts.write(number, **make(slice(starts[number], starts[number] + sizes[number])))
            advance(sizes[number])
    everyone.meet()
    read = [parts.read(number) for number in range(len(starts))]
    return {key: np.concatenate([part[key] for part in read]) for key in read[0]}


def _named(found: Found) -> dict[str, NDArray[Any]]:
    return {"ids": found[0], "similarities": found[1]}
