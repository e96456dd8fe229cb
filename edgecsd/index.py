"""The gallery index: a faiss index over a feature store, with its search parameters. The only importer of faiss.

INDEX/
  manifest.json   kind, schema_version, type, build and search parameters, space, fingerprint, count, SHA-256 of files
  index.faiss     inner product over unit vectors, which is cosine
  ids.parquet     row -> item id, and the SHA-256 of its photo ("" where the store knew none)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from edgecsd import __version__
from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError, missing_extra
from edgecsd.features import FeatureStore
from edgecsd.files import read_manifest, remove_stale, replace_whole, sha256_file, write_json
from edgecsd.locks import holding_out
from edgecsd.overwriting import require_free
from edgecsd.progress import SILENT, Reporter
from edgecsd.space import EmbeddingSpace

try:
    import faiss
except ImportError:
    raise missing_extra("faiss", "index") from None

if TYPE_CHECKING:
    from edgecsd.index_places import MilvusAddress

KIND = "gallery index"
SCHEMA_VERSION = 1
INNER_PRODUCT, L2 = faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2
FILES = ("index.faiss", "ids.parquet")
POINTS_PER_LIST = 39  # below this many training vectors a list, faiss warns that k-means is poor
Floats = NDArray[np.float32]


class IndexType(StrEnum):
    """What faiss builds."""

    FLAT = "flat"  # exact
    IVF = "ivf"  # inverted lists, nprobe of them searched
    IVFPQ = "ivfpq"  # the same, vectors compressed to `pq_bytes`
    HNSW = "hnsw"  # navigable graph, ef_search candidates kept


SEARCH_PARAMETER = {IndexType.IVF: "nprobe", IndexType.IVFPQ: "nprobe", IndexType.HNSW: "ef_search"}
_OPTIONS: dict[IndexType, frozenset[str]] = {
    IndexType.FLAT: frozenset(),
    IndexType.IVF: frozenset({"nlist", "nprobe"}),
    IndexType.IVFPQ: frozenset({"nlist", "nprobe", "pq_bytes"}),
    IndexType.HNSW: frozenset({"links", "ef_construction", "ef_search"}),
}


@dataclass(frozen=True)
class GalleryIndex:
    """An opened index, searched with the parameters in its manifest."""

    path: Path | MilvusAddress
    type: IndexType
    space: EmbeddingSpace
    parameters: dict[str, int]
    ids: Sequence[str]
    digests: Mapping[str, str] = field(repr=False)  # of the photos, by id; of those that are known
    _faiss: Any = field(repr=False)

    @staticmethod
    def open(path: Path) -> GalleryIndex:
        """Open an index; a file that is not the one the manifest names is refused."""
        manifest = read_manifest(path / "manifest.json", KIND, SCHEMA_VERSION)
        try:
            space = EmbeddingSpace.model_validate(manifest["space"])
            for name in FILES:
                digest = manifest["sha256"][name]
                if not (path / name).is_file() or sha256_file(path / name) != digest:
                    raise DamagedFileError(f"{path / name}: missing, or not the file that the manifest names")
            ids, digests = _read_items(path / "ids.parquet")
            index = faiss.read_index(str(path / "index.faiss"))
            parameters = {str(name): int(value) for name, value in manifest["parameters"].items()}
            opened = GalleryIndex(path, IndexType(manifest["type"]), space, parameters, ids, digests, index)
            _set_search(opened.type, index, parameters)
            fingerprint, count = manifest["fingerprint"], manifest["count"]
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, pa.ArrowException) as error:
            raise DamagedFileError(f"{path}: {error}") from None
        if fingerprint != space.fingerprint:
            raise DamagedFileError(f"{path}: the manifest's fingerprint is not that of its embedding space")
        if not (index.ntotal == len(opened.row_of) == len(ids) == count) or index.d != space.dim:
            raise DamagedFileError(
                f"{path}: {index.ntotal} vectors of dimension {index.d}, {len(ids)} ids: not what the manifest says"
            )
        return opened

    def search(self, queries: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
        """(Q, dim) unit vectors -> cosines (Q, k) and rows (Q, k), best first, ties by row.

        k is cut to the gallery's size. An approximate index may find fewer than k: row -1, cosine -inf.
        """
        if queries.ndim != 2 or queries.shape[1] != self.space.dim:
            raise IncompatibleError(
                f"{self.path}: holds {self.space.dim}-d vectors, the queries have shape {queries.shape}"
            )
        k = min(k, len(self.ids))
        scores, rows = self._faiss.search(np.ascontiguousarray(queries, np.float32), k)
        scores = np.where(rows < 0, -np.inf, scores)
        order = np.lexsort((rows, -scores), axis=1)
        return np.take_along_axis(scores, order, 1).astype(np.float32), np.take_along_axis(rows, order, 1)

    @property
    def held(self) -> int:
        """How many vectors faiss holds."""
        return int(self._faiss.ntotal)

    @property
    def metric(self) -> int:
        """What faiss compares by: INNER_PRODUCT, L2 or another of its metrics."""
        return int(self._faiss.metric_type)

    def read(self, rows: NDArray[np.int64]) -> Floats:
        """(n,) rows -> (n, dim) vectors: of type ivfpq what its codes decode to, of the others what was added."""
        if SEARCH_PARAMETER.get(self.type) == "nprobe":
            self._faiss.make_direct_map()  # the table from row to place that reading needs
        vectors: Floats = self._faiss.reconstruct_batch(np.ascontiguousarray(rows, np.int64))
        return vectors

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Item id -> row."""
        return {item: row for row, item in enumerate(self.ids)}


def _read_items(file: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """The ids by row, and the digests of their photos by id: none in indexes of earlier versions."""
    columns = pq.read_table(file).to_pydict()
    ids = tuple(str(item) for item in columns["id"])
    known = zip(ids, columns.get("digest", ()), strict="digest" in columns)
    return ids, {item: str(digest) for item, digest in known if digest}


@holding_out
def build_index(
    store: Path | FeatureStore,
    out: Path,
    *,
    type: str | IndexType = IndexType.FLAT,
    nlist: int | None = None,
    nprobe: int | None = None,
    pq_bytes: int | None = None,
    links: int | None = None,
    ef_construction: int | None = None,
    ef_search: int | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> GalleryIndex:
    """Build a gallery index over a feature store. An option the type has no use for is an error."""
    opened = store if isinstance(store, FeatureStore) else FeatureStore.open(store)
    try:
        kind = IndexType(type)
    except ValueError:
        raise BadInputError(f"--type {type}: there are {', '.join(t.value for t in IndexType)}") from None
    options = {
        "nlist": nlist, "nprobe": nprobe, "pq_bytes": pq_bytes,
        "links": links, "ef_construction": ef_construction, "ef_search": ef_search,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    parameters = index_parameters(kind, given, opened.count, opened.space.dim)
    require_free(out, KIND, overwrite=overwrite)
    index = _make(kind, parameters, opened.space.dim)
    if kind in (IndexType.IVF, IndexType.IVFPQ):
        reporter.message(f"training {parameters['nlist']} lists on {opened.count} vectors")
        index.train(opened.vectors())
    with reporter.task("indexing", opened.count) as advance:
        for _, block in opened.blocks():
            index.add(np.ascontiguousarray(block, np.float32))
            advance(len(block))
    _write(index, kind, parameters, opened, out)
    return GalleryIndex.open(out)


def index_parameters(kind: IndexType, given: dict[str, int], count: int, dim: int) -> dict[str, int]:
    """Every parameter of the type, given or by default, checked against the gallery's size and dimension."""
    alien = sorted(set(given) - _OPTIONS[kind])
    if alien:
        options = ", ".join(f"--{o.replace('_', '-')}" for o in sorted(_OPTIONS[kind])) or "none"
        raise BadInputError(
            f"--{alien[0].replace('_', '-')}: an index of type {kind.value} does not take it (it takes: {options})"
        )
    for name, value in given.items():
        if value < 1:
            raise BadInputError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    result = dict(given)
    if "nlist" in _OPTIONS[kind]:
        result.setdefault("nlist", max(1, min(round(4 * math.sqrt(count)), count // POINTS_PER_LIST)))
        result.setdefault("nprobe", max(1, result["nlist"] // 8))
        if result["nlist"] > count or result["nprobe"] > result["nlist"]:
            raise BadInputError(
                f"nlist {result['nlist']} and nprobe {result['nprobe']}: needs nprobe <= nlist <= {count} vectors"
            )
    if kind is IndexType.IVFPQ:
        result.setdefault("pq_bytes", next(m for m in (64, 48, 32, 16, 8, 4, 2, 1) if dim % m == 0))
        if dim % result["pq_bytes"]:
            raise BadInputError(f"--pq-bytes {result['pq_bytes']}: must divide the dimension {dim}")
        if count < 256:
            raise BadInputError(
                f"type ivfpq trains 256 centroids a sub-space and the gallery has only {count} vectors: "
                f"use flat, ivf or hnsw"
            )
    if kind is IndexType.HNSW:
        result = {"links": 32, "ef_construction": 200, "ef_search": 64, **result}
    return result


def _make(kind: IndexType, parameters: dict[str, int], dim: int) -> Any:
    metric = faiss.METRIC_INNER_PRODUCT
    if kind is IndexType.FLAT:
        return faiss.IndexFlatIP(dim)
    if kind is IndexType.HNSW:
        index = faiss.IndexHNSWFlat(dim, parameters["links"], metric)
        index.hnsw.efConstruction = parameters["ef_construction"]
        return index
    # "np": without polysemous codes, which nothing here searches by and which take 2.5 s a byte to train.
    suffix = "Flat" if kind is IndexType.IVF else f"PQ{parameters['pq_bytes']}np"
    return faiss.index_factory(dim, f"IVF{parameters['nlist']},{suffix}", metric)


def _set_search(kind: IndexType, index: Any, parameters: dict[str, int]) -> None:
    if kind is IndexType.HNSW:
        index.hnsw.efSearch = parameters["ef_search"]
    elif kind in SEARCH_PARAMETER:
        index.nprobe = parameters["nprobe"]


def _write(index: Any, kind: IndexType, parameters: dict[str, int], store: FeatureStore, out: Path) -> None:
    remove_stale(out)
    with replace_whole(out) as folder:
        folder.mkdir()
        # Through Python: on a full disk faiss.write_index leaves a short file and raises nothing.
        (folder / "index.faiss").write_bytes(faiss.serialize_index(index).tobytes())
        items = {"id": store.items.ids, "digest": store.items.digests}
        columns = {name: pa.array(values, pa.string()) for name, values in items.items()}
        pq.write_table(pa.table(columns), folder / "ids.parquet")
        manifest = {
            "kind": KIND, "schema_version": SCHEMA_VERSION, "edgecsd": __version__, "faiss": faiss.__version__,
            "type": kind.value, "parameters": parameters, "count": store.count, "dim": store.space.dim,
            "fingerprint": store.space.fingerprint, "space": store.space.model_dump(mode="json"),
            "sha256": {name: sha256_file(folder / name) for name in FILES},
        }  # fmt: skip
        write_json(folder / "manifest.json", manifest)


def vectors_of_faiss_file(file: Path) -> Floats:
    """All vectors of a faiss index file, in row order (approximate where the index compresses them)."""
    try:
        index = faiss.read_index(str(file))
        if hasattr(index, "make_direct_map"):
            index.make_direct_map()
        vectors: Floats = index.reconstruct_n(0, index.ntotal)
    except RuntimeError as error:
        raise BadInputError(f"{file}: faiss cannot read vectors from it: {str(error).splitlines()[-1][:200]}") from None
    return vectors
