"""A gallery index that edgecsd built, as a folder: written, opened, checked against its manifest.

INDEX/
  manifest.json   kind, schema_version, type, build and search parameters, space, fingerprint, count, SHA-256 and
                  bytes of the files
  index.faiss     inner product over unit vectors, which is cosine; other files of faiss: storing.py
  ids.parquet     row -> item id, and the SHA-256 of its photo ("" where the store knew none)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from edgecsd import __version__
from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.files.columns import Column, DigestOf, RowOf, read_column
from edgecsd.files.whole import read_json, read_manifest, sha256_file, write_json
from edgecsd.index.engines.faiss.index import VERSION, FaissIndex
from edgecsd.index.engines.faiss.storing import LISTS, MAIN, RANKING, read_engine
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.kinds import LATER_DEFAULTS, SEARCH_PARAMETERS, IndexType

KIND = "gallery index"
SCHEMA_VERSION = 1
READABLE_VERSIONS = (1, 2)  # 2: what readers of 1 would search wrongly: lists on disk, turned codes, second ranking
ITEMS = "ids.parquet"
LARGE = (LISTS, RANKING)  # too large to be read whenever the index is opened


def open_folder(path: Path, *, verify: bool = False) -> GalleryIndex:
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
    opened = open_folder(path)
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
        "kind": KIND,
        "schema_version": 2 if set(parameters) & set(LATER_DEFAULTS) else SCHEMA_VERSION,
        "edgecsd": __version__,
        "faiss": VERSION,
        "type": kind.value,
        "parameters": dict(parameters),
        "count": count,
        "dim": space.dim,
        "fingerprint": space.fingerprint,
        "space": space.model_dump(mode="json"),
        "sha256": {name: sha256_file(folder / name) for name in files},
        "bytes": {name: (folder / name).stat().st_size for name in files},
    }
    write_json(folder / "manifest.json", manifest)


def faiss_of(index: GalleryIndex) -> FaissIndex:
    """The faiss index behind a gallery index that open_folder opened."""
    assert isinstance(index.engine, FaissIndex), "only folders hold one"
    return index.engine
