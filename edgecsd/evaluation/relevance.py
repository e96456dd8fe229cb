"""What is relevant to each query: by labels, by ground truth, or, without either, the gallery model's own first k.

A gallery row that shows the query's very photo is junk: found or not, it says nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.evaluation.benchmark import ALL, OWN_DEPTH, Benchmark
from edgecsd.evaluation.ground_truth import GroundTruth, Setting
from edgecsd.evaluation.ranking import RankedVectors, search
from edgecsd.features.space import require_same_space
from edgecsd.features.store import FeatureStore
from edgecsd.metrics.retrieval import Relevance
from edgecsd.photos.decoding import photo_digest

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


def make_benchmark(
    gallery: FeatureStore,
    queries: FeatureStore,
    *,
    labels: bool | None = None,
    relevance_k: int = 10,
    distractors: Sequence[FeatureStore] = (),
) -> Benchmark:
    """Relevance from labels where both stores have them (or as `labels` says), else the gallery model's first k.

    distractors are searched too and never relevant, which needs labels: without them what the gallery model finds is
    relevant by definition. Raises IncompatibleError (exit 3) for stores of different embedding spaces.
    """
    _require_one_space(gallery, queries, distractors)
    have = gallery.items.labels is not None and queries.items.labels is not None
    if labels and not have:
        raise BadInputError(
            "labels were asked for, but not both stores have them; extract from a CSV list with a 'label' column"
        )
    junk = own_photos(gallery, queries, distractors)
    if have and labels is not False:
        relevance = _by_label(gallery, queries, junk)
        described = "labels: a gallery item of the query's label is relevant"
        return _benchmark(gallery, queries.vectors(), relevance, described, ALL, tuple(distractors))
    if distractors:
        raise BadInputError(
            "`distractors` needs labels in both stores or `ground_truth`: without them whatever the gallery model "
            "finds is relevant, distractors too"
        )
    own = _own_ranking(gallery.vectors(), (), queries.vectors(), junk, relevance_k)
    relevance = tuple(
        Relevance(frozenset([int(p) for p in row if int(p) not in j][:relevance_k]), j)
        for row, j in zip(own, junk, strict=True)
    )
    described = f"no labels: the gallery model's own first {relevance_k} are relevant, so its mAP is 1 by definition"
    return Benchmark(gallery.vectors(), relevance, own, described)


def ground_truth_benchmarks(
    gallery: FeatureStore,
    queries: FeatureStore,
    rows: Sequence[int],
    truth: GroundTruth,
    distractors: Sequence[FeatureStore] = (),
) -> tuple[Benchmark, ...]:
    """A benchmark for each of easy, medium and hard in which some query has a relevant item.

    rows  of the query store, one for each of the ground truth's queries. The query's own photo is junk unless the
          ground truth judges it.
    """
    _require_one_space(gallery, queries, distractors)
    photos, vectors = own_photos(gallery, queries, distractors), queries.vectors()[list(rows)]
    benchmarks = []
    for setting in Setting:
        judged = truth.relevance(setting, gallery.row_of)
        if any(each.ok for each in judged):
            relevance = tuple(
                Relevance(each.ok, each.junk | (photos[row] - each.ok)) for each, row in zip(judged, rows, strict=True)
            )
            described = f"ground truth, {setting}"
            benchmarks.append(_benchmark(gallery, vectors, relevance, described, str(setting), tuple(distractors)))
    if not benchmarks:
        raise BadInputError("the ground truth has no easy and no hard item for any query: nothing can be measured")
    return tuple(benchmarks)


def own_photos(
    gallery: FeatureStore, queries: FeatureStore, distractors: Sequence[FeatureStore] = ()
) -> list[frozenset[int]]:
    """Of each query the rows that show its photo, cropped or whole: same bytes; same id where its digest is unknown."""
    by_digest: dict[str, list[int]] = defaultdict(list)
    first, result = 0, []
    for store in (gallery, *distractors):
        for digest, rows in store.rows_showing(queries.items.digests).items():
            by_digest[digest] += [first + row for row in rows]
        first += store.count
    for item, digest in zip(queries.items.ids, queries.items.digests, strict=True):
        if digest:
            result.append(frozenset(by_digest[photo_digest(digest)]))
        else:
            result.append(frozenset([gallery.row_of[item]] if item in gallery.row_of else []))
    return result


def _require_one_space(gallery: FeatureStore, queries: FeatureStore, distractors: Sequence[FeatureStore]) -> None:
    for store in (queries, *distractors):
        require_same_space(store.space, gallery.space, str(store.path), str(gallery.path))


def _by_label(gallery: FeatureStore, queries: FeatureStore, junk: Sequence[frozenset[int]]) -> tuple[Relevance, ...]:
    """Gallery items of the query's label, its own photo not among them; none for a query without a label."""
    assert gallery.items.labels is not None and queries.items.labels is not None
    by_label: dict[str, set[int]] = {}
    for row, label in enumerate(gallery.items.labels):
        if label:
            by_label.setdefault(label, set()).add(row)
    return tuple(
        Relevance(frozenset(by_label.get(label, set()) - j), j)
        for label, j in zip(queries.items.labels, junk, strict=True)
    )


def _benchmark(
    gallery: FeatureStore,
    queries: Floats,
    relevance: tuple[Relevance, ...],
    described: str,
    setting: str,
    distractors: tuple[FeatureStore, ...],
) -> Benchmark:
    vectors = gallery.vectors()
    own = _own_ranking(vectors, distractors, queries, [each.junk for each in relevance], 0)
    return Benchmark(vectors, relevance, own, described, setting, distractors)


def _own_ranking(
    gallery: Floats, distractors: tuple[FeatureStore, ...], queries: Floats, junk: Sequence[frozenset[int]], k: int
) -> Rows:
    depth = max(OWN_DEPTH, k) + max((len(rows) for rows in junk), default=0)
    return search(queries, RankedVectors(gallery, distractors), [np.empty(0, np.int64)] * len(queries), depth).top
