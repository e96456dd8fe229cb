"""build_index: a gallery index over a feature store, trained on a sample, filled from the store block by block."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.features.store import FeatureStore
from edgecsd.files.places import holding_out, require_free
from edgecsd.files.whole import Parts, replace_whole, save_array, sha256_file
from edgecsd.index.engines.faiss.folder import KIND, open_folder, write_items, write_manifest
from edgecsd.index.engines.faiss.index import VERSION, FaissIndex, has_lists, make_engine, sample_size, train
from edgecsd.index.engines.faiss.storing import (
    LISTS,
    MAIN,
    RANKING,
    TRAINED,
    TRAINED_RANKING,
    join_in_memory,
    join_on_disk,
    read_lists,
    read_main,
    read_trained,
    write_faiss,
    write_lists,
    write_ranking,
    write_trained,
)
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.kinds import OPTIONS, SEARCH_PARAMETERS, IndexType, index_parameters
from edgecsd.progress import SILENT, Reporter

PART_ROWS = 65_536  # added at once and kept when the step is killed: 128 MB at dimension 512
KEEP_SECONDS = 300.0  # of adding to a graph between two copies of it, which a killed step goes on from
SEED = 20  # of the sample that training looks at

Floats = NDArray[np.float32]


@holding_out
def build_index(
    store: Path | FeatureStore,
    out: Path,
    *,
    type: str | IndexType = IndexType.FLAT,
    like: Path | None = None,
    training_queries: Floats | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
    **options: int | None,
) -> GalleryIndex:
    """Build a gallery index over a feature store. An option the type has no use for is an error.

    options           of the type (kinds.OPTIONS): bits, nlist, nprobe, pq_bytes, opq, refine, refine_factor, on_disk,
                      links, ef_construction, ef_search; None is the default
    like              an index whose type, options and trained parts are taken, so that the two can be merged
    training_queries  (n, dim) unit vectors of the query model that training looks at beside those of the store

    A build that was killed goes on where it stopped: trained parts and full ones are kept in OUT.partial.
    """
    opened = store if isinstance(store, FeatureStore) else FeatureStore.open(store, verify=True)
    given = {name: value for name, value in options.items() if value is not None}
    alien = sorted(set(given) - frozenset().union(*OPTIONS.values()))
    if alien:
        raise TypeError(f"build_index() got an unexpected keyword argument {alien[0]!r}")
    kind = _kind(type)
    if like is not None:
        kind, given = _as_in(like, opened, given)
    parameters = index_parameters(kind, given, opened.count, opened.space.dim)
    require_free(out, KIND, overwrite=overwrite)
    return _Building(opened, out, kind, parameters, like, training_queries, reporter).run()


def _kind(type: str | IndexType) -> IndexType:
    try:
        return IndexType(type)
    except ValueError:
        raise BadInputError(f"`type` {type}: there are {', '.join(t.value for t in IndexType)}") from None


def _as_in(like: Path, store: FeatureStore, given: dict[str, int]) -> tuple[IndexType, dict[str, int]]:
    """The type of another index, and its parameters with what may differ between the two as it is given."""
    other = open_folder(like)
    if other.space.fingerprint != store.space.fingerprint:
        parts = "; ".join(other.space.differences(store.space))
        raise IncompatibleError(f"`like` {like}: lives in another embedding space than {store.path}: {parts}")
    fixed = sorted(set(given) - {*SEARCH_PARAMETERS, "on_disk"})
    if fixed:
        raise BadInputError(f"`{fixed[0]}`: with `like` it is that of {like}; leave it out")
    kept = {name: value for name, value in other.parameters.items() if name != "on_disk"}
    return other.type, {**kept, **given}


class _Building:
    """One build, step by step; what is done is kept in OUT.partial."""

    def __init__(
        self,
        store: FeatureStore,
        out: Path,
        kind: IndexType,
        parameters: dict[str, int],
        like: Path | None,
        training_queries: Floats | None,
        reporter: Reporter,
    ) -> None:
        self.store, self.out, self.kind, self.parameters = store, out, kind, parameters
        self.like, self.queries, self.reporter = like, training_queries, reporter
        shards = [shard["sha256"] for shard in store.manifest["shards"]]
        self.parts = Parts(
            out,
            {
                "type": kind.value,
                "parameters": parameters,
                "faiss": VERSION,
                "shards": shards,
                "items": store.manifest["items_sha256"],
                "like": like and sha256_file(like / "manifest.json"),
                "queries": None if training_queries is None else _digest(training_queries),
            },
        )

    def run(self) -> GalleryIndex:
        folder = self.parts.folder
        trained = self._trained()
        if has_lists(trained):
            self._fill_parts(trained)
        with replace_whole(self.out) as made:
            made.mkdir()
            for name in (TRAINED, TRAINED_RANKING):
                if (folder / name).exists():
                    (made / name).write_bytes((folder / name).read_bytes())
            engine = self._join(trained, made) if has_lists(trained) else self._fill(trained)
            write_faiss(engine.main, made / MAIN)
            write_items(made, self.store.items.ids, self.store.items.digests)
            write_manifest(made, self.kind, self.parameters, self.store.space, self.store.count)
        self.parts.discard()
        return open_folder(self.out)

    def _trained(self) -> FaissIndex:
        """An empty engine that takes vectors; what training made is kept."""
        engine, folder = make_engine(self.kind, self.parameters, self.store.space.dim), self.parts.folder
        wanted = sample_size(engine)
        if not wanted:
            return engine
        if self.like is not None:
            if not (self.like / TRAINED).exists():
                raise BadInputError(
                    f"`like` {self.like}: an earlier edgecsd built it, without {TRAINED}; build it again"
                )
            return self._keep(read_trained(self.like))
        if (folder / "trained").exists():
            return read_trained(folder)
        sample = sample_of(self.store, wanted)
        if self.queries is not None:
            sample = np.concatenate([sample, self.queries.astype(np.float32)])
        lists = f"{self.parameters['nlist']} lists" if "nlist" in self.parameters else "codes"
        self.reporter.message(f"training {lists} on {len(sample)} vectors")
        train(engine, sample)
        return self._keep(engine)

    def _keep(self, engine: FaissIndex) -> FaissIndex:
        write_trained(engine, self.parts.folder)
        (self.parts.folder / "trained").touch()  # both files are whole
        return engine

    def _fill_parts(self, part: FaissIndex) -> None:
        """Inverted lists of a block of rows each, in files; `part` is trained, and empty afterwards."""
        folder = self.parts.folder
        with self.reporter.task("indexing", self.store.count) as advance:
            for number, (first, block) in enumerate(row_blocks(self.store)):
                if not _lists(folder, number).exists():
                    vectors = np.ascontiguousarray(block, np.float32)
                    part.main.add_with_ids(vectors, np.arange(first, first + len(vectors)))
                    if part.ranking is not None:
                        with replace_whole(_codes(folder, number)) as file:
                            save_array(file, part.ranking.sa_encode(vectors))
                    with replace_whole(_lists(folder, number)) as file:
                        write_lists(part, file)
                    part.main.reset()
                advance(len(block))

    def _join(self, trained: FaissIndex, made: Path) -> FaissIndex:
        folder, numbers = self.parts.folder, range(sum(1 for _ in row_blocks(self.store)))
        if trained.ranking is not None:
            codes = (np.load(_codes(folder, number), mmap_mode="r") for number in numbers)
            write_ranking(trained.ranking, codes, self.store.count, made / RANKING)
        lists = (read_lists(_lists(folder, number)) for number in numbers)
        if self.parameters.get("on_disk"):
            return join_on_disk(trained, list(lists), made / LISTS, shift=False)
        return join_in_memory(trained, lists, shift=False)

    def _fill(self, engine: FaissIndex) -> FaissIndex:
        """Everything into one engine in memory. A graph takes long: copies of it are kept now and then."""
        kept, begun = self.parts.folder / "filled.faiss", time.monotonic()
        if kept.exists():
            engine = read_main(kept)
        with self.reporter.task("indexing", self.store.count, engine.ntotal) as advance:
            for first, block in row_blocks(self.store):
                new = block[max(0, engine.ntotal - first) :]
                if not len(new):
                    continue
                engine.main.add(np.ascontiguousarray(new, np.float32))
                advance(len(new))
                if time.monotonic() - begun > KEEP_SECONDS:
                    with replace_whole(kept) as file:
                        write_faiss(engine.main, file)
                    begun = time.monotonic()
        return engine


def _lists(folder: Path, number: int) -> Path:
    return folder / f"lists-{number:06d}.faiss"


def _codes(folder: Path, number: int) -> Path:
    return folder / f"codes-{number:06d}.npy"


def _digest(vectors: Floats) -> str:
    return hashlib.sha256(np.ascontiguousarray(vectors, np.float32).tobytes()).hexdigest()


def row_blocks(store: FeatureStore) -> Iterator[tuple[int, NDArray[Any]]]:
    """(first row, memory-mapped (n, dim) vectors) of a whole store, at most PART_ROWS at a time."""
    for first, shard in store.blocks():
        for start in range(0, len(shard), PART_ROWS):
            yield first + start, shard[start : start + PART_ROWS]


def sample_of(store: FeatureStore, wanted: int) -> Floats:
    """(n, dim) vectors of rows drawn evenly, in row order; all where there are no more than wanted."""
    if store.count <= wanted:
        return store.vectors()
    rows = np.sort(np.random.default_rng(SEED).choice(store.count, wanted, replace=False))
    sample = np.empty((wanted, store.space.dim), np.float32)
    for first, block in row_blocks(store):
        low, high = np.searchsorted(rows, (first, first + len(block)))
        sample[low:high] = block[rows[low:high] - first]
    return sample
