"""push: a feature store into a Milvus collection, part by part. A killed push goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError
from edgecsd.features.exact import store_rows
from edgecsd.features.space import advice
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import digest_of
from edgecsd.index.addresses import MilvusAddress
from edgecsd.index.engines.milvus.collection import open_collection
from edgecsd.index.engines.milvus.server import (
    LONGEST,
    Manifest,
    asking,
    connect,
    count_rows,
    create_collection,
    create_index,
    read_manifest,
)
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.kinds import IndexType, index_parameters
from edgecsd.progress import SILENT, Reporter

FLAT_ROWS = 100_000  # up to here an exact search takes some ten milliseconds of one core
SEGMENT_BYTES = 1 << 30  # Milvus' default: it builds one index for each segment of a collection, not one for all
PART_BYTES = 8 << 20  # of vectors a request; Milvus takes 64 MB
MOST_ROWS = 8_192  # a request
POLL_SECONDS = 0.5
VERIFIED = 1_000  # rows that are read back and compared at the end


@dataclass(frozen=True)
class PushResult:
    """What the collection holds now. sent: rows of this run; kept: rows that were there from an earlier one."""

    index: GalleryIndex
    address: MilvusAddress
    sent: int
    kept: int
    verified: int


def push(
    store: Path | FeatureStore,
    address: MilvusAddress,
    *,
    type: str | IndexType | None = None,
    nlist: int | None = None,
    nprobe: int | None = None,
    pq_bytes: int | None = None,
    links: int | None = None,
    ef_construction: int | None = None,
    ef_search: int | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> PushResult:
    """Make the collection hold the store's vectors, ids and digests, each once, and verify that it does.

    type  flat, ivf, ivfpq or hnsw; by default flat up to FLAT_ROWS vectors and hnsw beyond

    Raises IncompatibleError (exit 3) for a collection of another embedding space, BadInputError for one of another
    store or index type, both unless `overwrite`, and MissingBackendError (exit 4) where no server answers.
    """
    opened = store if isinstance(store, FeatureStore) else FeatureStore.open(store, verify=True)
    options = {
        "nlist": nlist,
        "nprobe": nprobe,
        "pq_bytes": pq_bytes,
        "links": links,
        "ef_construction": ef_construction,
        "ef_search": ef_search,
    }
    manifest = _manifest(opened, type, {name: value for name, value in options.items() if value is not None})
    too_long = next((item for item in opened.items.ids if len(item.encode()) > LONGEST), None)
    if too_long is not None:
        raise BadInputError(f"{opened.path}: the id {too_long[:80]}... is longer than Milvus' {LONGEST} bytes")
    client = connect(address)
    _prepare(client, address, manifest, str(opened.path), overwrite=overwrite)
    with asking(address):
        _load(client, address, manifest, reporter)
        sent = _send(client, address, opened, reporter)
        reporter.message("waiting for the index")
        client.flush(address.collection)
        while (client.describe_index(address.collection, "vector") or {}).get("pending_index_rows"):
            time.sleep(POLL_SECONDS)
    index = open_collection(address)
    return PushResult(index, address, sent, opened.count - sent, _verify(index, opened, address))


def _manifest(store: FeatureStore, type: str | IndexType | None, given: dict[str, int]) -> Manifest:
    if type is None:
        kind = IndexType.FLAT if store.count <= FLAT_ROWS else IndexType.HNSW
    else:
        try:
            kind = IndexType(type)
        except ValueError:
            raise BadInputError(f"`type` {type}: there are {', '.join(t.value for t in IndexType)}") from None
    segment = min(store.count, SEGMENT_BYTES // (4 * store.space.dim))
    shards = [shard["sha256"] for shard in store.manifest["shards"]]
    return Manifest(
        fingerprint=store.space.fingerprint,
        space=store.space,
        count=store.count,
        type=kind,
        parameters=index_parameters(kind, given, segment, store.space.dim),
        store=digest_of([store.manifest["items_sha256"], shards]),
    )


def _prepare(client: Any, address: MilvusAddress, wanted: Manifest, store: str, *, overwrite: bool) -> None:
    """The collection as `wanted` says: made, found, or made anew where `overwrite` allows that."""
    found = read_manifest(client, address)
    if found is not None and not _same(found, wanted):
        if not overwrite:
            raise _difference(found, wanted, address, store)
        with asking(address):
            client.drop_collection(address.collection)
        found = None
    with asking(address):
        if found is None:
            create_collection(client, address, wanted)
        if not client.list_indexes(address.collection, "vector"):
            create_index(client, address, wanted)


def _same(found: Manifest, wanted: Manifest) -> bool:
    return found.model_dump(exclude={"edgecsd"}) == wanted.model_dump(exclude={"edgecsd"})


def _difference(found: Manifest, wanted: Manifest, address: MilvusAddress, store: str) -> Exception:
    replace = "choose another `collection`, or replace it with `overwrite`"
    if differences := found.space.differences(wanted.space):
        return IncompatibleError(
            f"{address} and {store} live in different embedding spaces ({found.fingerprint} and {wanted.fingerprint}); "
            f"{'; '.join(differences)}. {advice(found.space, wanted.space)}; or {replace}"
        )
    if (found.store, found.count) != (wanted.store, wanted.count):
        return BadInputError(f"{address}: was pushed from another store than {store}; {replace}")
    mine, theirs = (f"{each.type.value} {each.parameters or ''}".strip() for each in (wanted, found))
    return BadInputError(f"{address}: has an index {theirs}, not {mine}; give its options, or {replace}")


def _load(client: Any, address: MilvusAddress, manifest: Manifest, reporter: Reporter) -> None:
    """Milvus Lite writes the files of an index in place: one that a killed process left half written cannot be loaded,
    and is made anew from the rows."""
    from pymilvus.exceptions import MilvusException

    try:
        client.load_collection(address.collection)
    except MilvusException:
        reporter.message("the index cannot be loaded: making it anew")
        client.release_collection(address.collection)
        client.drop_index(address.collection, "vector")
        create_index(client, address, manifest)
        client.load_collection(address.collection)


def _send(client: Any, address: MilvusAddress, store: FeatureStore, reporter: Reporter) -> int:
    """Upsert every part that is not whole in the collection; how many rows that were.

    Upsert, not insert: of a request that was in flight when an earlier run died nobody knows whether it arrived, and
    Milvus' insert does not look whether a primary key is there already.
    """
    sent = 0
    with reporter.task("pushing", store.count) as advance:
        for first, block in _parts(store):
            last = first + len(block)
            there = count_rows(client, address.collection, f"row >= {first} and row < {last}")
            if there != len(block):
                items = zip(store.items.ids[first:last], store.items.digests[first:last], block, strict=True)
                rows = [
                    {"row": row, "id": item, "digest": digest, "vector": vector}
                    for row, (item, digest, vector) in enumerate(items, first)
                ]
                client.upsert(address.collection, rows)
                sent += len(block)
            advance(len(block))
    return sent


def _parts(store: FeatureStore) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(first row, (n, dim) float32), in row order."""
    size = max(1, min(MOST_ROWS, PART_BYTES // (4 * store.space.dim)))
    for first, shard in store.blocks():
        for start in range(0, len(shard), size):
            yield first + start, np.array(shard[start : start + size], np.float32)


def _verify(index: GalleryIndex, store: FeatureStore, address: MilvusAddress) -> int:
    """How many rows were read back: all, or VERIFIED drawn evenly; each must be the store's to the bit."""
    rows = np.unique(np.linspace(0, store.count - 1, min(VERIFIED, store.count)).round().astype(np.int64))
    held, wanted = index.read(rows), store_rows(store, rows)
    wrong = rows[(held != wanted).any(axis=1)].tolist()
    wrong = wrong or [row for row in rows.tolist() if index.ids[row] != store.items.ids[row]]
    if wrong:
        raise DamagedFileError(
            f"{address}: row {wrong[0]} ({store.items.ids[wrong[0]]}) does not hold what was sent, of {len(rows)} "
            f"compared; push it again with `overwrite`"
        )
    return len(rows)
