"""Benchmark: queries, gallery and what is relevant between them; scores any embeddings, query by query.

Figures are means over queries and carry the values they are means of, and bootstrap intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.evaluation.ranking import RankedVectors, Ranking, search
from edgecsd.features.store import FeatureStore
from edgecsd.metrics.bootstrap import Interval, bootstrap_intervals
from edgecsd.metrics.retrieval import (
    Relevance,
    average_precision_of,
    mean_of,
    precision_of,
    rank_biased_overlap,
    recall_of,
    without_junk,
)

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Values = NDArray[np.float64]
DEPTHS = (1, 5, 10)
OWN_DEPTH = 1_000  # of the gallery model's own ranking this much is kept, and the junk in it
ALL = "all"  # the one setting of a benchmark without easy, medium and hard


def mean_name(value: str) -> str:
    """The name of a figure's mean: AP -> mAP, P@10 -> mP@10; the others keep theirs."""
    return f"m{value}" if value.startswith(("AP", "P@")) else value


@dataclass(frozen=True)
class RetrievalFigures:
    """What one way of searching reached; every figure is a mean over queries with a relevant item.

    overlap        share of the gallery model's own first k that were found, by k; overlap_error: its standard error
    setting        easy, medium, hard, or all
    values         figure (AP, P@k, recall@k, overlap@k, RBO) -> (Q,) values, NaN where it cannot be measured
    found          (Q, k) the first rows, junk taken out, -1 where there is none; relevant (Q,): how many items are
    """

    name: str
    mean_average_precision: float
    precision: dict[int, float]
    recall: dict[int, float]
    overlap: dict[int, float]
    overlap_error: dict[int, float]
    rank_biased_overlap: float
    setting: str = ALL
    values: dict[str, Values] = field(default_factory=dict, repr=False, compare=False)
    found: Rows = field(default_factory=lambda: np.empty((0, 0), np.int64), repr=False, compare=False)
    relevant: Rows = field(default_factory=lambda: np.empty(0, np.int64), repr=False, compare=False)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """mAP, mP@k, ... -> mean and 95 % interval; made when first asked for."""
        return bootstrap_intervals({mean_name(name): values for name, values in self.values.items()})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without those of single queries."""
        return {
            "name": self.name,
            "setting": self.setting,
            "mean_average_precision": self.mean_average_precision,
            "precision": self.precision,
            "recall": self.recall,
            "overlap": self.overlap,
            "overlap_error": self.overlap_error,
            "rank_biased_overlap": self.rank_biased_overlap,
            "intervals": {name: vars(interval) for name, interval in self.intervals.items()},
        }


@dataclass(frozen=True)
class Benchmark:
    """Queries and gallery with the relevance between them; ranks and scores any embeddings.

    gallery       (N, D) the gallery model's vectors
    relevance     of each query
    own_ranking   (Q, at least the depth of every overlap plus the most junk) the first rows the gallery model finds
    described     what is relevant, in words
    distractors   stores searched behind the gallery: rows N and up, never relevant
    """

    gallery: Floats
    relevance: tuple[Relevance, ...]
    own_ranking: Rows
    described: str
    setting: str = ALL
    distractors: tuple[FeatureStore, ...] = ()

    def __post_init__(self) -> None:
        for relevance in self.relevance:
            relevance.check(self.searched.count)

    @cached_property
    def searched(self) -> RankedVectors:
        return RankedVectors(self.gallery, self.distractors)

    @cached_property
    def most_junk(self) -> int:
        return max((len(relevance.junk) for relevance in self.relevance), default=0)

    def score(
        self, name: str, queries: Floats, gallery: Floats | None = None, depths: Sequence[int] = DEPTHS
    ) -> RetrievalFigures:
        """Figures of (Q, D) query embeddings searched in the gallery model's vectors, or in others (N, D').

        A query embedding with NaN or infinity finds nothing and counts as 0.
        """
        return score_settings([self], name, queries, gallery, depths)[0]

    def figures(self, name: str, found: Ranking, targets: Sequence[Rows], depths: Sequence[int]) -> RetrievalFigures:
        """Figures from a search whose targets hold every relevant and junk row of each query."""
        values: dict[str, list[float]] = {}
        first = np.full((len(self.relevance), max(depths)), -1, np.int64)
        for query, rows in enumerate(targets):
            measured, top = self._query(query, found, rows, depths)
            first[query, : len(top)] = top
            for figure, value in measured.items():
                values.setdefault(figure, []).append(value)
        arrays = {figure: np.array(column) for figure, column in values.items()}
        relevant = np.array([len(relevance.ok) for relevance in self.relevance], np.int64)
        return _figures(name, self.setting, arrays, first, relevant, depths)

    def _query(self, query: int, found: Ranking, targets: Rows, depths: Sequence[int]) -> tuple[dict[str, float], Rows]:
        """The figures of one query, and its first rows without junk."""
        relevance, places, deepest = self.relevance[query], found.places[query], max(depths)
        ok, junk = (_places_of(rows, targets, places) for rows in (relevance.ok, relevance.junk))
        positions, count = without_junk(ok, junk), len(relevance.ok)
        top, own = (self._first(query, ranking[query], deepest) for ranking in (found.top, self.own_ranking))
        measured = {"AP": average_precision_of(positions, count)}
        measured |= {f"P@{k}": precision_of(positions, count, k) for k in depths}
        measured |= {f"recall@{k}": recall_of(positions, count, k) for k in depths}
        measured |= {f"overlap@{k}": _overlap(top[:k], own[:k]) for k in depths}
        measured["RBO"] = float(rank_biased_overlap(top[None], own[None])[0]) if len(own) else float("nan")
        return measured, top

    def _first(self, query: int, ranking: Rows, depth: int) -> Rows:
        """The first rows of a query's ranking without its junk, `depth` of them or as many as can be found at all."""
        junk = self.relevance[query].junk
        clean = ranking[~np.isin(ranking, np.fromiter(junk, np.int64, len(junk)))]
        wanted = min(depth, self.searched.count - len(junk))
        if len(clean) < wanted:
            raise BadInputError(
                f"depth {depth}: only {len(clean)} of the gallery model's own results are known; ask for fewer"
            )
        return np.asarray(clean[:wanted])


def score_settings(
    benchmarks: Sequence[Benchmark],
    name: str,
    queries: Floats,
    gallery: Floats | None = None,
    depths: Sequence[int] = DEPTHS,
) -> list[RetrievalFigures]:
    """`Benchmark.score` for benchmarks that differ in relevance alone (easy, medium, hard), by one search."""
    first = benchmarks[0]
    if gallery is not None and first.distractors:
        raise BadInputError("distractors have no vectors of another gallery model than their own; leave them out")
    if len(queries) != len(first.relevance):
        raise BadInputError(f"{len(queries)} query embeddings for {len(first.relevance)} queries")
    searched = first.searched if gallery is None else RankedVectors(gallery)
    if searched.count != first.searched.count:
        raise BadInputError(f"a gallery of {searched.count} vectors where {first.searched.count} are judged")
    targets = judged_rows(benchmarks)
    found = search(queries, searched, targets, max(depths) + max(each.most_junk for each in benchmarks))
    return [benchmark.figures(name, found, targets, depths) for benchmark in benchmarks]


def judged_rows(benchmarks: Sequence[Benchmark]) -> list[Rows]:
    """Of each query the rows that are relevant or junk in any of the benchmarks, ascending."""
    judged = zip(*(benchmark.relevance for benchmark in benchmarks), strict=True)
    return [np.array(sorted(set().union(*(r.ok | r.junk for r in each))), np.int64) for each in judged]


def _places_of(rows: frozenset[int], targets: Rows, places: Rows) -> Rows:
    """Places of the rows, all of which stand in the sorted targets; those that were not found are left out."""
    taken = places[np.searchsorted(targets, np.fromiter(rows, np.int64, len(rows)))]
    return np.asarray(taken[taken >= 0])


def _overlap(top: Rows, own: Rows) -> float:
    """Share of `own` that `top` holds; NaN where nothing can be found."""
    return float(np.isin(own, top[top >= 0]).sum() / len(own)) if len(own) else float("nan")


def _figures(
    name: str, setting: str, values: dict[str, Values], found: Rows, relevant: Rows, depths: Sequence[int]
) -> RetrievalFigures:
    means = {figure: mean_of(column, mean_name(figure)) for figure, column in values.items()}
    overlaps = {k: values[f"overlap@{k}"] for k in depths}
    return RetrievalFigures(
        name,
        means["AP"],
        {k: means[f"P@{k}"] for k in depths},
        {k: means[f"recall@{k}"] for k in depths},
        {k: means[f"overlap@{k}"] for k in depths},
        {k: float(np.nanstd(each) / (~np.isnan(each)).sum() ** 0.5) for k, each in overlaps.items()},
        means["RBO"],
        setting,
        values,
        found,
        relevant,
    )
