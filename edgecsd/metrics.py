"""Retrieval figures from rankings: mAP, mP@k, recall@k, overlap@k, rank-biased overlap. NumPy only.

A ranking is an array of gallery positions, best first. mAP and mP@k follow the revisited Oxford/Paris protocol
(Radenovic et al., CVPR 2018) to the digit: trapezoidal AP, junk ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Relevance:
    """What counts for one query: `ok` gallery positions are relevant, `junk` ones are ignored."""

    ok: frozenset[int]
    junk: frozenset[int] = frozenset()

    def check(self, gallery_size: int) -> None:
        """Raise BadInputError if ok and junk overlap or point outside the gallery."""
        if self.ok & self.junk:
            raise BadInputError(f"gallery position {min(self.ok & self.junk)} is both relevant and junk")
        outside = [p for p in self.ok | self.junk if not 0 <= p < gallery_size]
        if outside:
            raise BadInputError(f"gallery position {outside[0]} is outside the gallery of {gallery_size}")


def _relevant_positions(ranking: Rows, relevance: Relevance) -> NDArray[np.int64]:
    """0-based positions of the relevant items that were ranked, each lowered by the junk ranked before it."""
    ok = np.isin(ranking, np.fromiter(relevance.ok, np.int64, len(relevance.ok)))
    junk = np.isin(ranking, np.fromiter(relevance.junk, np.int64, len(relevance.junk)))
    places = np.flatnonzero(ok)
    return np.asarray(places - np.cumsum(junk)[places], np.int64)


def average_precision(ranking: Rows, relevance: Relevance) -> float:
    """Trapezoidal AP; NaN for a query without relevant items. Relevant items that are not ranked add 0."""
    if not relevance.ok:
        return float("nan")
    total = 0.0
    for j, position in enumerate(_relevant_positions(ranking, relevance)):
        before = 1.0 if position == 0 else j / position
        total += before + (j + 1) / (position + 1)
    return float(total / (2 * len(relevance.ok)))


def precision_at(ranking: Rows, relevance: Relevance, k: int) -> float:
    """P@k with the protocol's denominator: min(1-based position of the last relevant item, k); NaN without any."""
    if not relevance.ok:
        return float("nan")
    positions = _relevant_positions(ranking, relevance) + 1
    if not len(positions):
        return 0.0
    depth = min(int(positions.max()), k)
    return float((positions <= depth).sum() / depth)


def recall_at(ranking: Rows, relevance: Relevance, k: int) -> float:
    """1 if any of the first k (junk taken out) is relevant, else 0; NaN for a query without relevant items."""
    if not relevance.ok:
        return float("nan")
    return float((_relevant_positions(ranking, relevance) < k).any())


def mean_of(values: Sequence[float], name: str) -> float:
    """The mean over queries that have a relevant item; a clear error if none has."""
    array = np.asarray(values, np.float64)
    if np.isnan(array).all():
        raise BadInputError(f"{name} cannot be measured: no query has a relevant gallery item")
    return float(np.nanmean(array))


def overlap_at(left: Rows, right: Rows, k: int) -> NDArray[np.float64]:
    """(Q, >= k) rankings -> (Q,) share of the first k that both rankings hold. -1 (not found) never counts."""
    depth = min(k, left.shape[1], right.shape[1])
    shared = [len(set(a[:depth].tolist()) & set(b[:depth].tolist()) - {-1}) for a, b in zip(left, right, strict=True)]
    return np.asarray([count / depth for count in shared], np.float64)


def rank_biased_overlap(left: Rows, right: Rows, persistence: float = 0.9) -> NDArray[np.float64]:
    """(Q, k) rankings -> (Q,) extrapolated RBO (Webber et al., TOIS 2010, eq. 32 where both have length k)."""
    if not 0 < persistence < 1:
        raise BadInputError(f"persistence {persistence}: must be between 0 and 1")
    depth = min(left.shape[1], right.shape[1])
    result = np.empty(len(left))
    for query, (a, b) in enumerate(zip(left, right, strict=True)):
        seen_a: set[int] = set()
        seen_b: set[int] = set()
        total, shared = 0.0, 0
        for d in range(1, depth + 1):
            seen_a.add(int(a[d - 1]))
            seen_b.add(int(b[d - 1]))
            shared = len(seen_a & seen_b - {-1})
            total += shared / d * persistence**d
        result[query] = shared / depth * persistence**depth + (1 - persistence) / persistence * total
    return result
