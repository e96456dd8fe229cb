"""What a report needs of a search: each query's first results and average precision, and which queries to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from edgecsd.evaluation.ranking import RankedVectors
from edgecsd.metrics.retrieval import Relevance, average_precision

Floats = NDArray[np.float32]
Values = NDArray[np.float64]
BLOCK_VALUES = (
    1 << 23
)  # similarities sorted at once: 8 M of them take 130 MB with their order, however large the gallery


@dataclass(frozen=True)
class FoundByModel:
    """What one model's embeddings find. rows: of each query its first gallery rows, junk taken out, best first."""

    rows: tuple[tuple[int, ...], ...]
    best: Values  # (Q,) cosine to the first of them; NaN where there is none
    average_precision: Values  # (Q,); NaN for a query without relevant items

    def overlap(self, other: FoundByModel, k: int) -> Values:
        """(Q,) share of the first k that both found, of as many as there are; NaN where there are none."""
        return np.asarray([_share(a[:k], b[:k]) for a, b in zip(self.rows, other.rows, strict=True)], np.float64)


def _share(left: tuple[int, ...], right: tuple[int, ...]) -> float:
    return len(set(left) & set(right)) / len(left) if left else float("nan")


def search(queries: Floats, gallery: Floats, relevance: Sequence[Relevance], depth: int) -> FoundByModel:
    """Search (Q, D) queries in a gallery (N, D) by falling cosine, ties by row, in blocks of bounded memory."""
    rows: list[tuple[int, ...]] = []
    best, precision = np.full(len(queries), np.nan), np.full(len(queries), np.nan)
    at_once, copies = max(1, BLOCK_VALUES // len(gallery)), RankedVectors(gallery).copies
    for first in range(0, len(queries), at_once):
        cosines = queries[first : first + at_once] @ gallery.T
        copies.align(cosines)
        for offset, ranking in enumerate(np.argsort(-cosines, axis=1, kind="stable")):
            query = first + offset
            junk = relevance[query].junk
            kept = [int(row) for row in ranking[: depth + len(junk)] if int(row) not in junk][:depth]
            rows.append(tuple(kept))
            if kept:
                best[query] = cosines[offset, kept[0]]
            precision[query] = average_precision(ranking, relevance[query])
    return FoundByModel(tuple(rows), best, precision)


class Group(StrEnum):
    """Why a query is shown."""

    WORST = "lost most"
    BETWEEN = "in between"
    BEST = "lost least"


@dataclass(frozen=True)
class Choice:
    """A query's row and why it is shown."""

    query: int
    group: Group


def choose_queries(loss: Values, show: int, *, seed: int = 0) -> tuple[Choice, ...]:
    """A third that lost most, a third that lost least, and one of each stratum between, in falling order of loss.

    loss (Q,): NaN is never chosen. Ties are broken and the strata drawn by `seed`: nobody picks the pretty ones.
    """
    random = np.random.default_rng(seed)
    eligible = random.permutation(np.flatnonzero(~np.isnan(loss)))
    ordered = eligible[np.argsort(-loss[eligible], kind="stable")]
    count = min(show, len(ordered))
    worst, best = -(-count // 3), count // 3
    middle = ordered[worst : len(ordered) - best]
    strata = np.array_split(middle, count - worst - best) if count - worst - best else []
    between = [int(stratum[random.integers(len(stratum))]) for stratum in strata]
    return tuple(
        Choice(int(query), group)
        for group, chosen in (
            (Group.WORST, ordered[:worst]),
            (Group.BETWEEN, between),
            (Group.BEST, ordered[len(ordered) - best :]),
        )
        for query in chosen
    )
