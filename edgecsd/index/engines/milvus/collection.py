"""A pushed collection as a gallery index: opened, searched, and its vectors, ids and digests read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.index.addresses import MilvusAddress
from edgecsd.index.engine import INNER_PRODUCT, L2
from edgecsd.index.engines.milvus.server import NAMES, Manifest, asking, connect, count_rows, read_manifest
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.kinds import SEARCH_PARAMETER, IndexType

METRICS = {"IP": INNER_PRODUCT, "COSINE": INNER_PRODUCT, "L2": L2}  # of unit vectors cosine and inner product are one
MOST_RESULTS = 16_384  # a query, Milvus' own limit
MOST_QUERIES = 1_024  # a request
MOST_HITS = 200_000  # a request: some 20 MB of answer
MORE = 16  # results asked for beyond k, so that ties at the cut are decided by row
READ_BYTES = 16 << 20  # of vectors a request
ID_ROWS = 4_096  # ids read at once
KEPT_IDS = 200_000  # ids held at most, or what one search brings

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


def open_collection(address: MilvusAddress) -> GalleryIndex:
    """Open a pushed collection as a gallery index; one whose push has not ended is refused."""
    client = connect(address)
    manifest = read_manifest(client, address)
    if manifest is None:
        raise BadInputError(
            f"{address}: no such collection; make it: edgecsd index push STORE --milvus {address.uri} "
            f"`collection` {address.collection}"
        )
    with asking(address):
        description = client.describe_index(address.collection, "vector") or {}
        built = description.get("index_type")
        if built == NAMES[manifest.type]:
            client.load_collection(address.collection)
            count = count_rows(client, address.collection)
    if built != NAMES[manifest.type] or count != manifest.count:
        held = f"an index of type {built}" if built != NAMES[manifest.type] else f"{count} rows"
        raise DamagedFileError(
            f"{address}: holds {held}, its manifest says {NAMES[manifest.type]} and {manifest.count} rows: the push "
            f"was interrupted or the collection was changed; run edgecsd index push again"
        )
    vectors = CollectionVectors(client, address, manifest, METRICS.get(str(description.get("metric_type")), -1))
    return GalleryIndex(
        address, manifest.type, manifest.space, manifest.parameters, vectors.ids, vectors.digests, vectors
    )


@dataclass(frozen=True)
class CollectionVectors:
    """A collection as a SearchEngine."""

    client: Any
    address: MilvusAddress
    manifest: Manifest
    metric_type: int

    @property
    def ntotal(self) -> int:
        return self.manifest.count

    @cached_property
    def ids(self) -> RowIds:
        return RowIds(self)

    @cached_property
    def digests(self) -> Digests:
        return Digests(self)

    def search(self, queries: Floats, k: int) -> tuple[Floats, Rows]:
        """(Q, dim) -> inner products (Q, k) and rows (Q, k), best first, ties by row; row -1: nothing more found."""
        if k > MOST_RESULTS:
            raise BadInputError(f"{self.address}: Milvus gives {MOST_RESULTS} results a query at most, not {k}")
        more = MORE if self.manifest.type is IndexType.FLAT else 0  # it would let the others search better than asked
        depth = min(k + more, MOST_RESULTS, self.ntotal)
        scores = np.full((len(queries), depth), -np.inf, np.float32)
        rows = np.full((len(queries), depth), -1, np.int64)
        step = max(1, min(MOST_QUERIES, MOST_HITS // depth))
        for start in range(0, len(queries), step):
            for place, hits in enumerate(self._ask(queries[start : start + step], depth), start):
                scores[place, : len(hits)] = [hit["distance"] for hit in hits]
                rows[place, : len(hits)] = [hit["row"] for hit in hits]
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def _ask(self, queries: Floats, depth: int) -> Any:
        name = SEARCH_PARAMETER.get(self.manifest.type)
        value = {} if name is None else {name: self.manifest.parameters[name]}
        if name == "ef_search":
            value = {"ef": max(value[name], depth)}  # Milvus refuses less
        with asking(self.address):
            found = self.client.search(
                self.address.collection,
                list(queries),
                anns_field="vector",
                limit=depth,
                output_fields=["id"],
                search_params={"metric_type": "IP", "params": value},
            )
        self.ids.learn({int(hit["row"]): str(hit["entity"]["id"]) for hits in found for hit in hits})
        return found

    def read(self, rows: Rows) -> Floats:
        """(n,) rows -> (n, dim) vectors as they were pushed, also where the index compresses them."""
        vectors = np.empty((len(rows), self.manifest.space.dim), np.float32)
        step = max(1, READ_BYTES // (4 * self.manifest.space.dim))
        for start in range(0, len(rows), step):
            wanted = rows[start : start + step]
            found = {int(each["row"]): each["vector"] for each in self.fields_of(wanted, "vector")}
            vectors[start : start + step] = [found[row] for row in wanted.tolist()]
        return vectors

    def fields_of(self, rows: Rows, *fields: str) -> list[dict[str, Any]]:
        """The fields of the rows, in any order; rows that follow one another are asked for as a range."""
        low, high = int(rows.min()), int(rows.max())
        whole = high - low + 1 == len(rows)
        condition = f"row >= {low} and row <= {high}" if whole else f"row in {rows.tolist()}"
        with asking(self.address):
            found = self.client.query(self.address.collection, filter=condition, output_fields=["row", *fields])
        if len(found) != len(set(rows.tolist())):
            raise DamagedFileError(
                f"{self.address}: {len(found)} rows where {len(rows)} were asked for, from row {low} on: the "
                f"collection was changed; push it again with `overwrite`"
            )
        return list(found)


class RowIds(Sequence[str]):
    """Row -> item id, read when asked for: a service that answers with ten ids need not hold a hundred million."""

    def __init__(self, vectors: CollectionVectors) -> None:
        self._vectors, self._known = vectors, dict[int, str]()

    def learn(self, ids: dict[int, str]) -> None:
        if len(self._known) > KEPT_IDS:
            self._known = {}  # a new one: another thread may be reading the old
        self._known.update(ids)

    def __len__(self) -> int:
        return self._vectors.ntotal

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[str, ...]: ...
    def __getitem__(self, row: int | slice) -> str | tuple[str, ...]:
        if isinstance(row, slice):
            return tuple(self[each] for each in range(len(self))[row])
        row = range(len(self))[row]
        found = self._known.get(row)
        return self._block(row - row % ID_ROWS)[row % ID_ROWS] if found is None else found

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), ID_ROWS):
            yield from self._block(first)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def _block(self, first: int) -> list[str]:
        rows = np.arange(first, min(first + ID_ROWS, len(self)), dtype=np.int64)
        found = {int(each["row"]): str(each["id"]) for each in self._vectors.fields_of(rows, "id")}
        self.learn(found)
        return [found[row] for row in rows.tolist()]


class Digests(Mapping[str, str]):
    """Item id -> digest of its photo, of those that are known; all are read when the first is asked for."""

    def __init__(self, vectors: CollectionVectors) -> None:
        self._vectors = vectors

    @cached_property
    def _known(self) -> dict[str, str]:
        known: dict[str, str] = {}
        for first in range(0, self._vectors.ntotal, ID_ROWS):
            rows = np.arange(first, min(first + ID_ROWS, self._vectors.ntotal), dtype=np.int64)
            found = self._vectors.fields_of(rows, "id", "digest")
            known |= {str(each["id"]): str(each["digest"]) for each in found if each["digest"]}
        return known

    def __getitem__(self, item: str) -> str:
        return self._known[item]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
