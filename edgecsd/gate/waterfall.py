"""Loss attribution: where between the gallery model and the app results are lost; each link exchanges one thing.

Every link is judged by what the gallery model itself finds by exact search. The change of a link is the paired
difference to the link before it, over the same queries, with its bootstrap interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.gate.evidence import Evidence, LinkEvidence
from edgecsd.gate.facts import LinkName
from edgecsd.metrics.bootstrap import Interval, bootstrap_intervals
from edgecsd.metrics.retrieval import average_precision_of, overlap_at, rank_biased_overlap

WORST = 3  # queries named of each link
OVERLAP, RBO, RECALL_1, RECALL_K, MAP = "overlap", "rank_biased_overlap", "recall_1", "recall_k", "map"
Rows = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class LinkFigures:
    """One link's figures, each with its interval, and their change against the link before it (empty for the first).

    values   figure -> (Q,): overlap, rank_biased_overlap, recall_1, recall_k, and map where labels exist
    best     (Q,) cosine of the first hit, -inf where nothing is found
    worst    queries that lost most overlap by this link, the worst first
    """

    name: LinkName
    text: str
    figures: dict[str, Interval]
    change: dict[str, Interval]
    values: dict[str, Values] = field(repr=False)
    best: Values = field(repr=False)
    worst: tuple[int, ...] = ()

    def as_dict(self, queries: tuple[str, ...]) -> dict[str, Any]:
        """Plain values for JSON; the worst queries by id."""
        return {
            "link": str(self.name),
            "text": self.text,
            "figures": {name: vars(interval) for name, interval in self.figures.items()},
            "change": {name: vars(interval) for name, interval in self.change.items()},
            "worst": [queries[query] for query in self.worst],
        }


def waterfall(evidence: Evidence) -> tuple[LinkFigures, ...]:
    """The figures of every measured link, in order, against the gallery model's own exact results."""
    truth, k = evidence.links[0], evidence.facts.k
    values = [_values(link, truth, k, evidence) for link in evidence.links]
    columns: dict[str, Values] = {}
    for number, own in enumerate(values):
        for name, column in own.items():
            columns[f"{number} {name}"] = column
            if number:
                columns[f"{number} {name} change"] = column - values[number - 1][name]
    intervals = bootstrap_intervals(columns)
    result = []
    for number, (link, own) in enumerate(zip(evidence.links, values, strict=True)):
        change = {name: intervals[f"{number} {name} change"] for name in own} if number else {}
        lost = values[number - 1][OVERLAP] - own[OVERLAP] if number else np.zeros(len(own[OVERLAP]))
        result.append(
            LinkFigures(
                link.name,
                link.text,
                {name: intervals[f"{number} {name}"] for name in own},
                change,
                own,
                link.scores[:, 0].astype(np.float64),
                _worst(lost),
            )
        )
    return tuple(result)


def _values(link: LinkEvidence, truth: LinkEvidence, k: int, evidence: Evidence) -> dict[str, Values]:
    first = truth.rows[:, :1]
    values = {
        OVERLAP: overlap_at(link.rows, truth.rows, k),
        RBO: rank_biased_overlap(link.rows[:, :k], truth.rows[:, :k]),
        RECALL_1: (link.rows[:, :1] == first).any(axis=1).astype(np.float64),
        RECALL_K: (link.rows[:, :k] == first).any(axis=1).astype(np.float64),
    }
    precision = _average_precision(link.rows, evidence)
    return values if precision is None or np.isnan(precision).all() else {**values, MAP: precision}


def _average_precision(rows: Rows, evidence: Evidence) -> Values | None:
    """(Q,) trapezoidal AP over the K rows that were kept; of more relevant items than K, K can be found."""
    labels, gallery, relevant = evidence.query_labels, evidence.gallery_labels, evidence.relevant
    if labels is None or gallery is None or relevant is None:
        return None
    result = np.full(len(rows), np.nan)
    for query, found in enumerate(rows):
        right = [row >= 0 and gallery[int(row)] == labels[query] for row in found]
        result[query] = average_precision_of(np.flatnonzero(right), min(int(relevant[query]), rows.shape[1]))
    return result


def _worst(lost: Values) -> tuple[int, ...]:
    order = np.argsort(-lost, kind="stable")[:WORST]
    return tuple(int(query) for query in order if lost[query] > 0)


def blamed(links: tuple[LinkFigures, ...]) -> LinkFigures:
    """Of these links, none of them the first of the waterfall, the one whose change of overlap is the lowest."""
    return min(links, key=lambda link: link.change[OVERLAP].mean)


def relative_loss(before: Values, after: Values) -> Values:
    """(Q,) values whose mean is 1 - mean(after) / mean(before), and whose spread is that ratio's over queries.

    The ratio's linearisation (delta method): L + (before - after - L before) / mean(before).
    """
    measured = ~(np.isnan(before) | np.isnan(after))
    one, other = before[measured], after[measured]
    middle = float(one.mean())
    if middle <= 0:  # nothing was found before: nothing can be lost
        return np.zeros(len(one))
    loss = 1 - float(other.mean()) / middle
    return np.asarray(loss + (one - other - loss * one) / middle, np.float64)
