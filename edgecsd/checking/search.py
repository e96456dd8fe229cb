"""Every link's search: exact over the gallery's vectors in bounded memory, and through the actual index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np

from edgecsd.errors import BadInputError
from edgecsd.features.exact import exact_neighbours, store_blocks, store_rows, without_own
from edgecsd.features.store import FeatureStore
from edgecsd.files.columns import Column
from edgecsd.gate.evidence import LinkEvidence
from edgecsd.gate.facts import LinkName
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.kinds import SEARCH_PARAMETER, IndexType
from edgecsd.index.stored_vectors import Floats, Rows, StoredVectors

SCORE_ENTRIES = 1 << 24  # similarities held at once: 64 MB
FEWEST_ROWS, MOST_ROWS = 256, 16_384  # gallery vectors multiplied at once
FEWEST_KEPT = 100  # results kept a query, or ten times k


class VectorSource(Protocol):
    """The gallery's vectors, to be searched exactly; item numbers count through `ids`."""

    @property
    def ids(self) -> Sequence[str]: ...

    def number(self, item: str) -> int:
        """The number of a gallery item, -1 for what is none."""
        ...

    def blocks(self, most: int) -> Iterator[tuple[Rows, Floats]]:
        """(n,) numbers of gallery items and their (n, D) vectors, at most `most` at once, each item once."""
        ...


class IndexVectors:
    """The vectors that an index holds; numbers are its rows. An index of compressed vectors raises BadInputError."""

    def __init__(self, index: GalleryIndex) -> None:
        if not index.exact:
            raise BadInputError(
                f"{index.path}: an index of type {index.type} holds compressed vectors, so what compression costs "
                "cannot be seen from it; give the store that it was built from with `gallery` STORE"
            )
        self.ids, self._index = Column.of(index.ids), index

    def number(self, item: str) -> int:
        return self._index.row_of.get(item, -1)

    def blocks(self, most: int) -> Iterator[tuple[Rows, Floats]]:
        return StoredVectors(self._index).blocks(size=most)


class StoreVectors:
    """The vectors of a feature store; an item's number is its row in the index, or counts on from its end."""

    def __init__(self, store: FeatureStore, index: GalleryIndex) -> None:
        self._store, self._row_of, items = store, index.row_of, store.items.ids
        strangers = [item for item in items if item not in index.row_of]
        self.ids = Column.of(chain(index.ids, strangers) if strangers else index.ids)
        self._beyond = {item: row for row, item in enumerate(strangers, len(index.ids))}
        self._numbers = np.fromiter((self.number(item) for item in items), np.int64, len(items))

    def number(self, item: str) -> int:
        found = self._row_of.get(item)
        return self._beyond.get(item, -1) if found is None else found

    def blocks(self, most: int) -> Iterator[tuple[Rows, Floats]]:
        for rows, block in store_blocks(self._store, most):
            yield self._numbers[rows], block


def exact_search(queries: Floats, source: VectorSource, depth: int) -> tuple[Floats, Rows]:
    """(Q, D) queries -> cosines (Q, depth) and item numbers (Q, depth), best first, ties by number; -1: no more items.

    The gallery is read once, in blocks: memory depends on Q and depth alone. A query that is not finite finds nothing.
    """
    most = min(MOST_ROWS, max(FEWEST_ROWS, SCORE_ENTRIES // max(1, len(queries))))
    return exact_neighbours(queries, source.blocks(most), depth)


def sample_gallery(index: GalleryIndex, store: FeatureStore | None, most: int, *, seed: int = 0) -> Floats:
    """At most `most` vectors (n, D) of the gallery, drawn by `seed`; the others are not read."""
    count = index.held if store is None else store.count
    rows = np.sort(np.random.default_rng(seed).choice(count, min(most, count), replace=False))
    return index.read(rows) if store is None else store_rows(store, rows)


@dataclass(frozen=True)
class EmbeddedQueries:
    """The queries' vectors (Q, D) of one link, and what it exchanges, in words."""

    name: LinkName
    text: str
    vectors: Floats


def search_links(
    index: GalleryIndex, store: FeatureStore | None, embedded: Sequence[EmbeddedQueries], queries: Sequence[str], k: int
) -> tuple[tuple[LinkEvidence, ...], Sequence[str]]:
    """Every link's results, the last one's vectors once more through the actual index; and the ids of the item numbers.

    Exact results come from the store, or without one from the index's own vectors. The photo of a query itself (same
    id) is left out. Raises BadInputError for an index of compressed vectors without a store.
    """
    exact_already = store is None and index.type is IndexType.FLAT and index.exact
    source = IndexVectors(index) if store is None else StoreVectors(store, index)
    own = np.array([source.number(item) for item in queries], np.int64)
    depth = _depth(index, len(source.ids), k)
    stacked = np.concatenate([each.vectors for each in embedded])
    found = _through_index(index, stacked, depth + 1) if exact_already else exact_search(stacked, source, depth + 1)
    scores, rows = without_own(*found, np.tile(own, len(embedded)), depth)
    links, count = [], len(queries)
    for place, each in enumerate(embedded):
        part = slice(place * count, (place + 1) * count)
        links.append(LinkEvidence(each.name, each.text, rows[part], scores[part]))
    if exact_already:
        last = LinkEvidence(LinkName.INDEX, "flat index: exact already", links[-1].rows, links[-1].scores)
    else:
        scores, rows = without_own(*_through_index(index, embedded[-1].vectors, depth + 1), own, depth)
        last = LinkEvidence(LinkName.INDEX, describe_search(index), rows, scores)
    return (*links, last), source.ids


def describe_search(index: GalleryIndex) -> str:
    """The index's type and search parameters in words."""
    parameter = SEARCH_PARAMETER.get(index.type)
    settings = "" if parameter is None else f", {parameter} {index.parameters[parameter]}"
    return f"{index.type} index{settings}"


def _depth(index: GalleryIndex, count: int, k: int) -> int:
    """How many results are kept. Asked for more than ef_search, faiss may search HNSW better than for the app."""
    wanted = max(FEWEST_KEPT, 10 * k)
    if index.type is IndexType.HNSW:
        wanted = min(wanted, max(k, index.parameters["ef_search"] - 1))
    return min(wanted, count - 1)


def _through_index(index: GalleryIndex, vectors: Floats, depth: int) -> tuple[Floats, Rows]:
    """The index's own search, always (Q, depth): -1 where there is no more, also where the index has fewer rows."""
    scores = np.full((len(vectors), depth), -np.inf, np.float32)
    rows = np.full((len(vectors), depth), -1, np.int64)
    found, places = index.search(vectors, depth)
    scores[:, : found.shape[1]], rows[:, : found.shape[1]] = found, places
    return scores, rows
