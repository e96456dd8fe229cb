"""GalleryIndex: an index folder, opened and searched.

INDEX/
  manifest.json   kind, schema_version, type, build and search parameters, space, fingerprint, count, SHA-256 and
                  bytes of the files
  index.faiss     inner product over unit vectors, which is cosine; other files of faiss: storing.py
  ids.parquet     row -> item id, and the SHA-256 of its photo ("" where the store knew none)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from edgecsd import __version__
from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.files.columns import Column, DigestOf, RowOf, read_column
from edgecsd.files.whole import read_json, read_manifest, sha256_file, write_json
from edgecsd.index.engines.faiss.index import VERSION
from edgecsd.index.engines.faiss.storing import LISTS, MAIN, RANKING, read_engine
from edgecsd.index.kinds import FULL_BITS, LATER_DEFAULTS, SEARCH_PARAMETER, SEARCH_PARAMETERS, IndexType

if TYPE_CHECKING:
    from edgecsd.index.addresses import MilvusAddress

KIND = "gallery index"
SCHEMA_VERSION = 1
READABLE_VERSIONS = (1, 2)  # 2: what readers of 1 would search wrongly: lists on disk, turned codes, second ranking
ITEMS = "ids.parquet"
LARGE = (LISTS, RANKING)  # too large to be read whenever the index is opened
Floats = NDArray[np.float32]


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
    def open(path: Path, *, verify: bool = False) -> GalleryIndex:
        """Open an index; a file that is not the one the manifest names is refused.

        Of an index on disk the large files are compared by size alone, unless `verify` reads every byte.
        """
        manifest = read_manifest(path / "manifest.json", KIND, *READABLE_VERSIONS)
        try:
            space = EmbeddingSpace.model_validate(manifest["space"])
            parameters = {str(name): int(value) for name, value in manifest["parameters"].items()}
            on_disk = bool(parameters.get("on_disk"))
            _check_files(path, manifest, LARGE if on_disk and not verify else ())
            ids, digests = _read_items(path / ITEMS)
            engine = read_engine(path, on_disk=on_disk)
            opened = GalleryIndex(path, IndexType(manifest["type"]), space, parameters, ids, digests, engine)
            engine.set_search(opened.type, parameters)
            fingerprint, count = manifest["fingerprint"], manifest["count"]
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, pa.ArrowException) as error:
            raise DamagedFileError(f"{path}: {error}") from None
        if fingerprint != space.fingerprint:
            raise DamagedFileError(f"{path}: the manifest's fingerprint is not that of its embedding space")
        if not (engine.ntotal == len(opened.row_of) == len(ids) == count) or engine.d != space.dim:
            raise DamagedFileError(
                f"{path}: {engine.ntotal} vectors of dimension {engine.d}, {len(ids)} ids: not what the manifest says"
            )
        return opened

    def search(self, queries: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
        """(Q, dim) unit vectors -> cosines (Q, k) and rows (Q, k), best first, equal cosines by row.

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
    def engine(self) -> Any:
        """What searches: an edgecsd.index.engines.faiss.index.Engine, or a collection with the same face."""
        return self._faiss

    @property
    def held(self) -> int:
        """How many vectors faiss holds."""
        return int(self._faiss.ntotal)

    @property
    def exact(self) -> bool:
        """Whether the index holds vectors as they were added, rather than codes of them."""
        kept = self.parameters.get("bits", FULL_BITS)
        return self.type is not IndexType.IVFPQ and kept == FULL_BITS

    @property
    def metric(self) -> int:
        """What faiss compares by: INNER_PRODUCT, L2 or another of its metrics."""
        return int(self._faiss.metric_type)

    def read(self, rows: NDArray[np.int64]) -> Floats:
        """(n,) rows -> (n, dim) vectors: what was added, or what its codes decode to where the index is not `exact`."""
        if SEARCH_PARAMETER.get(self.type) == "nprobe":
            self._faiss.make_direct_map()  # the table from row to place that reading needs
        vectors: Floats = self._faiss.reconstruct_batch(np.ascontiguousarray(rows, np.int64))
        return vectors

    @cached_property
    def row_of(self) -> RowOf:
        """Item id -> row."""
        return self.digests.row_of if isinstance(self.digests, DigestOf) else RowOf(self.ids)


def _check_files(path: Path, manifest: dict[str, Any], by_size: Sequence[str]) -> None:
    """Raise DamagedFileError unless every file is the one the manifest names."""
    for name in (MAIN, ITEMS, *(name for name in manifest["sha256"] if name not in (MAIN, ITEMS))):
        file, digest = path / Path(name).name, manifest["sha256"][name]
        whole = file.is_file()
        if whole and name in by_size:
            whole = file.stat().st_size == manifest["bytes"][name]
        elif whole:
            whole = sha256_file(file) == digest
        if not whole:
            raise DamagedFileError(f"{file}: missing, or not the file that the manifest names")


def _read_items(file: Path) -> tuple[Column, Mapping[str, str]]:
    """The ids by row, and the digests of their photos by id: none in indexes of earlier versions."""
    ids, digests = read_column(file, "id"), read_column(file, "digest")
    if ids is None:
        raise KeyError("id")
    return ids, {} if digests is None else DigestOf(RowOf(ids), digests)


def write_items(folder: Path, ids: Sequence[str], digests: Sequence[str]) -> None:
    """The ids.parquet of an index folder: (N,) ids and digests by row."""
    columns = {"id": Column.of(ids).strings(), "digest": Column.of(digests).strings()}
    pq.write_table(pa.table(columns).combine_chunks(), folder / ITEMS)


def set_search_parameters(path: Path, search: Mapping[str, int]) -> None:
    """Change how an index is searched: nprobe, ef_search, refine_factor. Nothing else in the folder changes."""
    opened = GalleryIndex.open(path)
    fixed = sorted(set(search) - (set(opened.parameters) & set(SEARCH_PARAMETERS)))
    if fixed:
        raise BadInputError(f"{path}: {fixed[0]} is no search parameter of type {opened.type.value}")
    manifest = read_json(path / "manifest.json")
    manifest["parameters"] |= dict(search)
    write_json(path / "manifest.json", manifest)


def write_manifest(
    folder: Path, kind: IndexType, parameters: Mapping[str, int], space: EmbeddingSpace, count: int
) -> None:
    """The manifest of an index folder, written when all other files are there."""
    files = sorted(file.name for file in folder.iterdir())
    manifest = {
        "kind": KIND, "schema_version": 2 if set(parameters) & set(LATER_DEFAULTS) else SCHEMA_VERSION,
        "edgecsd": __version__, "faiss": VERSION, "type": kind.value, "parameters": dict(parameters), "count": count,
        "dim": space.dim, "fingerprint": space.fingerprint, "space": space.model_dump(mode="json"),
        "sha256": {name: sha256_file(folder / name) for name in files},
        "bytes": {name: (folder / name).stat().st_size for name in files},
    }  # fmt: skip
    write_json(folder / "manifest.json", manifest)
