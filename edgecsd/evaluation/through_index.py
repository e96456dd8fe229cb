"""Retrieval figures of what a gallery index really finds, with its own search, in place of an exact one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.evaluation.benchmark import DEPTHS, Benchmark, RetrievalFigures, judged_rows
from edgecsd.evaluation.ranking import NOWHERE, Ranking
from edgecsd.features.space import require_same_space
from edgecsd.features.store import FeatureStore
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.kinds import IndexType

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
MOST_RESULTS = 10_000  # a query; what is relevant and stands further back counts as not found


def store_rows_of(index: GalleryIndex, store: FeatureStore) -> Rows:
    """(N,) the store's row of each of the index's; both must hold the same items of one embedding space."""
    require_same_space(index.space, store.space, str(index.path), str(store.path))
    rows = np.array([store.row_of.get(item, -1) for item in index.ids], np.int64)
    if len(rows) != store.count or (rows < 0).any():
        raise BadInputError(
            f"{index.path} and {store.path} do not hold the same items ({len(rows)} and {store.count}, "
            f"{int((rows < 0).sum())} of them not in the store); give the index of this very gallery"
        )
    return rows


def score_through(
    index: GalleryIndex,
    store_rows: Rows,
    benchmarks: Sequence[Benchmark],
    name: str,
    queries: Floats,
    depths: Sequence[int] = DEPTHS,
) -> list[RetrievalFigures]:
    """`score_settings`, searched by the index. What it does not give counts as relevant and not found.

    store_rows  (N,) of each of the index's rows the row of the benchmarks' gallery
    """
    targets = judged_rows(benchmarks)
    wanted = max(depths) + max(each.most_junk for each in benchmarks)
    found = _search(index, store_rows, queries, targets, min(wanted, len(store_rows)))
    return [benchmark.figures(name, found, targets, depths) for benchmark in benchmarks]


def _search(index: GalleryIndex, store_rows: Rows, queries: Floats, targets: Sequence[Rows], least: int) -> Ranking:
    most = min(len(store_rows), MOST_RESULTS)
    if index.type is IndexType.HNSW:  # asked for more than ef_search, it searches better than for the app
        most = min(most, index.parameters["ef_search"])
    top = np.full((len(queries), max(least, most)), NOWHERE, np.int64)
    _, rows = index.search(queries, most)
    top[:, : rows.shape[1]] = np.where(rows < 0, NOWHERE, store_rows[rows])
    return Ranking(top, tuple(_places(top[query], rows) for query, rows in enumerate(targets)))


def _places(ranking: Rows, rows: Rows) -> Rows:
    """The 0-based places of the rows in a ranking, NOWHERE for those that are not in it."""
    place = {row: number for number, row in enumerate(ranking.tolist()) if row >= 0}
    return np.array([place.get(row, NOWHERE) for row in rows.tolist()], np.int64)
