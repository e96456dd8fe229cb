"""Retrieval figures from rankings: mAP, mP@k, recall@k, overlap@k, rank-biased overlap. NumPy only.

A ranking is an array of gallery positions, best first. mAP and mP@k follow the revisited Oxford/Paris protocol
(Radenovic et al., CVPR 2018) to the digit: trapezoidal AP, junk ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


def require_depth(k: int, gallery: int, option: str = "`k`") -> None:
    """BadInputError unless 1 <= k < gallery: the first k of fewer are all of them, whatever the model."""
    if not 1 <= k < gallery:
        raise BadInputError(f"{option} {k}: the gallery offers 1 to {gallery - 1}")


def relevant_positions(ranking: Rows, relevance: Relevance) -> Rows:
    """0-based positions of the relevant items that were ranked, each lowered by the junk ranked before it."""
    ok = np.isin(ranking, np.fromiter(relevance.ok, np.int64, len(relevance.ok)))
    junk = np.isin(ranking, np.fromiter(relevance.junk, np.int64, len(relevance.junk)))
    return without_junk(np.flatnonzero(ok), np.flatnonzero(junk))


def without_junk(ok: Rows, junk: Rows) -> Rows:
    """Places of the relevant and of the junk items in one ranking -> rising places once the junk is taken out."""
    places = np.sort(ok)
    return np.asarray(places - np.searchsorted(np.sort(junk), places), np.int64)


def average_precision(ranking: Rows, relevance: Relevance) -> float:
    """Trapezoidal AP; NaN for a query without relevant items. Relevant items that are not ranked add 0."""
    return average_precision_of(relevant_positions(ranking, relevance), len(relevance.ok))


def average_precision_of(positions: Rows, relevant: int) -> float:
    """AP from the rising 0-based positions of those of the `relevant` items that were ranked, junk taken out."""
    if not relevant:
        return float("nan")
    j = np.arange(len(positions))
    before = np.where(positions == 0, 1.0, j / np.maximum(positions, 1))
    return float((before + (j + 1) / (positions + 1)).sum() / (2 * relevant))


def precision_at(ranking: Rows, relevance: Relevance, k: int) -> float:
    """P@k with the protocol's denominator: min(1-based position of the last relevant item, k); NaN without any."""
    return precision_of(relevant_positions(ranking, relevance), len(relevance.ok), k)


def precision_of(positions: Rows, relevant: int, k: int) -> float:
    """P@k from positions, as `average_precision_of` takes them."""
    if not relevant:
        return float("nan")
    if not len(positions):
        return 0.0
    depth = min(int(positions.max()) + 1, k)
    return float((positions < depth).sum() / depth)


def recall_at(ranking: Rows, relevance: Relevance, k: int) -> float:
    """1 if any of the first k (junk taken out) is relevant, else 0; NaN for a query without relevant items."""
    return recall_of(relevant_positions(ranking, relevance), len(relevance.ok), k)


def recall_of(positions: Rows, relevant: int, k: int) -> float:
    """Recall@k from positions, as `average_precision_of` takes them."""
    return float((positions < k).any()) if relevant else float("nan")


def mean_of(values: Sequence[float] | NDArray[np.float64], name: str) -> float:
    """The mean over queries that have a relevant item; a clear error if none has."""
    array = np.asarray(values, np.float64)
    if np.isnan(array).all():
        raise BadInputError(f"{name} cannot be measured: no query has a relevant gallery item")
    return float(np.nanmean(array))


def cosines(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) cosines of the rows of two (n, D) arrays; NaN where one is not finite, 0 where one is zero."""
    one, other = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        return np.asarray((one * other).sum(1) / np.maximum(lengths, 1e-12), np.float64)


def overlap_at(left: Rows, right: Rows, k: int) -> NDArray[np.float64]:
    """(Q, >= k) rankings -> (Q,) share of the first k that both rankings hold. -1 (not found) never counts."""
    depth = min(k, left.shape[1], right.shape[1])
    shared = [len(set(a[:depth].tolist()) & set(b[:depth].tolist()) - {-1}) for a, b in zip(left, right, strict=True)]
    return np.asarray([count / depth for count in shared], np.float64)


def share_kept(found: Rows, expected: Rows, k: int) -> NDArray[np.float64]:
    """(Q, >= k) rankings -> (Q,) share of the first k of `expected`, -1 apart, that the first k of `found` hold.

    1 where nothing was expected: nothing is lost.
    """
    wanted = overlap_at(expected, expected, k)
    return np.divide(overlap_at(found, expected, k), wanted, out=np.ones_like(wanted), where=wanted > 0)


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
