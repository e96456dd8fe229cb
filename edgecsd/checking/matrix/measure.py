"""One artifact searched in one index: figures a query; and what an update from one artifact to another changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecsd.checking.matrix.result import Pairing, Update, Values
from edgecsd.features.exact import without_own
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.metrics.bootstrap import bootstrap_interval, bootstrap_intervals, paired_difference, queries_needed
from edgecsd.metrics.retrieval import Relevance, average_precision, overlap_at

DEPTH = 100  # results asked of an index for mAP; relevant items beyond them count as not found
NAMED = 10  # flipped queries that a result names

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """An index and the queries put to it.

    ids     (Q) of the query photos; a gallery item of the same id is the photo itself and left out
    truth   (Q, D) the gallery model's own vectors of them
    labels  item id -> label, of gallery items and queries; None where there are none
    """

    index: GalleryIndex
    ids: tuple[str, ...]
    truth: Floats
    labels: dict[str, str] | None
    query_labels: tuple[str, ...] | None


def measure(name: str, artifact: str, vectors: Floats, judged: Judged, k: int) -> Pairing:
    """Search (Q, D) embeddings in the index, and compare with the gallery model's own results there."""
    found, own = search(judged, vectors, max(k, DEPTH)), search(judged, judged.truth, k)
    values: dict[str, Values] = {"overlap": overlap_at(found, own, k)}
    if judged.labels is None or judged.query_labels is None:
        values["right"] = ((found[:, 0] == own[:, 0]) & (found[:, 0] >= 0)).astype(np.float64)
    else:
        relevance = _relevance(judged)
        values["average_precision"] = np.array(
            [average_precision(row[row >= 0], each) for row, each in zip(found, relevance, strict=True)]
        )
        first = [int(row[0]) in each.ok if each.ok else np.nan for row, each in zip(found, relevance, strict=True)]
        values["right"] = np.array(first, np.float64)
    intervals = bootstrap_intervals(values)
    return Pairing(
        artifact, name, True, "", intervals["overlap"], intervals["right"], intervals.get("average_precision"), values
    )


def search(judged: Judged, vectors: Floats, depth: int) -> Rows:
    """(Q, <= depth) rows that the index finds, the photo itself left out, -1 where it finds no more."""
    index = judged.index
    own = np.array([index.row_of.get(item, -1) for item in judged.ids], np.int64)
    depth = min(depth, len(index.ids) - 1)
    return without_own(*index.search(vectors, depth + 1), own, depth)[1]


def _relevance(judged: Judged) -> list[Relevance]:
    """Gallery items of the query's label, the photo itself not among them; none for a query without a label."""
    assert judged.labels is not None and judged.query_labels is not None
    by_label: dict[str, set[int]] = {}
    for row, item in enumerate(judged.index.ids):
        by_label.setdefault(judged.labels.get(item, ""), set()).add(row)
    by_label.pop("", None)
    return [
        Relevance(frozenset(by_label.get(label, set()) - {judged.index.row_of.get(item, -1)}))
        for item, label in zip(judged.ids, judged.query_labels, strict=True)
    ]


def update_between(old: Pairing, new: Pairing, ids: Sequence[str]) -> Update:
    """What changes for the queries when apps go from one artifact to the other, in the same index.

    Negative flips as in Yan et al. 2021; the criterion as in Shen et al. 2020, on mAP where labels exist.
    """
    before, after = old.values["right"], new.values["right"]
    unknown = np.isnan(before) | np.isnan(after)
    lost, won = (
        np.where(unknown, np.nan, (first == 1) & (second == 0)) for first, second in ((before, after), (after, before))
    )
    figure = "average_precision" if "average_precision" in new.values else "overlap"
    pair = new.values[figure], old.values[figure]
    flipped = [ids[query] for query in np.flatnonzero(lost == 1).tolist()]
    return Update(
        old.index,
        old.artifact,
        new.artifact,
        bootstrap_interval(lost),
        bootstrap_interval(won),
        len(flipped),
        tuple(flipped[:NAMED]),
        figure,
        paired_difference(*pair),
        queries_needed(*pair),
    )
