"""FeatureStore: cached, L2-normalised vectors of the gallery model with their item ids and a manifest.

STORE/
  manifest.json               kind, schema_version, count, dim, dtype, space, views, provenance, SHA-256 of the files
  items.parquet               id, digest of the encoded image (maybe empty), optional label
  features-00000-of-0000N.npy (rows, dim), float16, float32 or int8 (shards.py), C order; row i is item i
  views-00000-of-0000N.npy    (rows * views, dim); row i * views + v - 1 is view v of item i
  unreadable.txt              images that were skipped, one "id<TAB>reason" a line
  whitening.safetensors       the transform that whitened the vectors, where the space names one
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from edgecsd import __version__
from edgecsd.errors import BadInputError, DamagedFileError, validation_text
from edgecsd.features.shards import (
    INT8,
    SHARD_ROWS,
    Shard,
    blocks_of,
    check_shards,
    read_into,
    require_dtype,
    write_shards,
)
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.whitening import WHITENING_FILE, Whitening, read_whitening
from edgecsd.files.columns import Column, RowOf, first_repeated, read_column
from edgecsd.files.whole import digest_of, read_manifest, replace_whole, require_digest, sha256_file, write_json
from edgecsd.photos.decoding import photo_digest
from edgecsd.photos.views import ViewRecipe

KIND = "feature store"
ITEMS = "items.parquet"
SCHEMA_VERSION = 1
INT8_VERSION = 2  # of stores with int8 vectors, which readers of 1 would not know what to do with
UNIT_NORM_TOLERANCE = {"float32": 1e-4, "float16": 2e-3}  # largest |norm - 1| that rounding of what is given explains

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Items:
    """The rows' identity: unique ids, the digests of the encoded images ("" if unknown), maybe labels."""

    ids: Sequence[str]
    digests: Sequence[str]
    labels: Sequence[str] | None = None


@dataclass(frozen=True)
class FeatureStore:
    """An opened store. Vectors stay on disk until they are asked for. whitening: what was applied to them, or None."""

    path: Path
    space: EmbeddingSpace
    count: int
    views: ViewRecipe
    manifest: dict[str, Any] = field(repr=False)

    @staticmethod
    def open(path: Path, *, verify: bool = False) -> FeatureStore:
        """Open a store and compare its files with its manifest; `verify` reads every byte for its digest too."""
        manifest = read_manifest(path / "manifest.json", KIND, SCHEMA_VERSION, INT8_VERSION)
        try:
            space = EmbeddingSpace.model_validate(manifest["space"])
            views = ViewRecipe.model_validate(manifest["views"])
            store = FeatureStore(path, space, int(manifest["count"]), views, manifest)
            if manifest["fingerprint"] != space.fingerprint:
                raise DamagedFileError(f"{path}: the manifest's fingerprint is not that of its embedding space")
            for shards, rows in (("shards", store.count), ("view_shards", store.count * views.count)):
                check_shards(path, manifest[shards], rows, space.dim, str(manifest["dtype"]), verify=verify)
            read_whitening(path, space)
            items_sha256 = str(manifest["items_sha256"])
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(f"{path}/manifest.json: {_describe(error)}") from None
        if len(store.items.ids) != store.count:
            raise DamagedFileError(
                f"{path}: items.parquet has {len(store.items.ids)} rows, the manifest says {store.count}"
            )
        if len(store.row_of) != store.count:
            raise DamagedFileError(f"{path}: items.parquet has the same id more than once")
        if verify:
            require_digest(path / ITEMS, items_sha256)
        return store

    @cached_property
    def items(self) -> Items:
        try:
            ids, digests, labels = (read_column(self.path / ITEMS, name) for name in ("id", "digest", "label"))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DamagedFileError(f"{self.path / ITEMS}: {error}") from None
        if ids is None or digests is None:
            raise DamagedFileError(f"{self.path / ITEMS}: has no column {'id' if ids is None else 'digest'!r}")
        return Items(ids, digests, labels)

    @cached_property
    def row_of(self) -> RowOf:
        """Item id -> row."""
        return RowOf(self.items.ids)

    def rows_showing(self, digests: Iterable[str]) -> dict[str, list[int]]:
        """Photo digest -> the rows of that very photo, whole or cropped, for each known one of `digests`."""
        found: dict[str, list[int]] = {photo_digest(digest): [] for digest in digests if digest}
        for row, digest in enumerate(self.items.digests):
            if digest and (rows := found.get(photo_digest(digest))) is not None:
                rows.append(row)
        return found

    def rows_of(self, ids: Sequence[str], digests: Sequence[str]) -> tuple[NDArray[np.int64], ...]:
        """Of each photo the rows that show it: of its bytes, or of its id where one of the two digests is not known.

        digests: as items have them, "" where unknown
        """
        showing, result = self.rows_showing(digests), []
        for item, digest in zip(ids, digests, strict=True):
            rows = set(showing[photo_digest(digest)]) if digest else set()
            own = self.row_of.find(item)
            if own >= 0 and (not digest or not self.items.digests[own] or own in rows):
                rows.add(own)
            result.append(np.array(sorted(rows), np.int64))
        return tuple(result)

    @property
    def dtype(self) -> str:
        """How the vectors are stored: float32, float16 or int8."""
        return str(self.manifest["dtype"])

    @property
    def digest(self) -> str:
        """SHA-256 of what it holds: items, vectors and views, and how the views were made."""
        shards = [shard["sha256"] for name in ("shards", "view_shards") for shard in self.manifest[name]]
        return digest_of([self.manifest["items_sha256"], shards, self.manifest["views"]])

    def blocks(self) -> Iterator[tuple[int, Shard]]:
        """(first row, memory-mapped (rows, dim) vectors) of each shard, in row order."""
        return blocks_of(self.path, self.manifest["shards"])

    def view_blocks(self) -> Iterator[tuple[int, Shard]]:
        """(first row, memory-mapped rows) of each shard of cached views; a shard may end within an item's views."""
        return blocks_of(self.path, self.manifest["view_shards"])

    @property
    def whitening(self) -> Whitening | None:
        return read_whitening(self.path, self.space)

    def vectors(self) -> Floats:
        """All (count, dim) vectors as float32, in memory."""
        return self._read("shards", self.count)

    def view_vectors(self) -> Floats:
        """(count, 1 + views, dim) float32: the image itself first, then its cached views."""
        own = self.vectors()[:, None]
        if not self.views.count:
            return own
        views = self._read("view_shards", self.count * self.views.count)
        return np.concatenate([own, views.reshape(self.count, self.views.count, -1)], axis=1)

    def _read(self, shards: str, rows: int) -> Floats:
        out = np.empty((rows, self.space.dim), np.float32)
        for first, block in blocks_of(self.path, self.manifest[shards]):
            read_into(out[first : first + len(block)], block, 0)
        return out


def _describe(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return validation_text(error)
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def write_store(
    path: Path,
    space: EmbeddingSpace,
    items: Items,
    vectors: NDArray[Any],
    *,
    views: ViewRecipe | None = None,
    view_vectors: NDArray[Any] | None = None,
    dtype: str = "float16",
    unreadable: Sequence[tuple[str, str]] = (),
    provenance: dict[str, Any] | None = None,
    whitening: Whitening | None = None,
) -> FeatureStore:
    """Write a whole store at `path` (replacing one that is there) and open it.

    vectors (N, dim) unit length; view_vectors (N * views.count, dim); whitening: the transform that `space` names.
    Raises BadInputError if the vectors break the store's promises: finite, unit length, one a unique id.
    """
    if space.whitening != (whitening and whitening.digest):
        raise BadInputError(f"{path}: the whitening that is given is not the one that the space names")
    views = views or ViewRecipe()
    view_vectors = np.empty((0, space.dim), vectors.dtype) if view_vectors is None else view_vectors
    require_dtype(dtype)
    check_vectors(vectors, items.ids, space.dim)
    for name, column in (("digests", items.digests), ("labels", items.labels)):
        if column is not None and len(column) != len(items.ids):
            raise BadInputError(f"{len(column)} {name} for {len(items.ids)} ids")
    if view_vectors.shape != (len(vectors) * views.count, space.dim):
        raise BadInputError(
            f"view vectors have shape {view_vectors.shape}; {len(vectors)} items of {views.count} views need "
            f"({len(vectors) * views.count}, {space.dim})"
        )
    _check_unit_length(view_vectors, lambda row: f"view {row % views.count + 1} of {items.ids[row // views.count]}")
    with replace_whole(path) as folder:
        folder.mkdir()
        manifest = {
            "kind": KIND,
            "schema_version": INT8_VERSION if dtype == INT8 else SCHEMA_VERSION,
            "edgecsd": __version__,
            "count": len(vectors),
            "dim": space.dim,
            "dtype": dtype,
            "fingerprint": space.fingerprint,
            "space": space.model_dump(mode="json"),
            "views": views.model_dump(mode="json"),
            "shards": write_shards(folder, "features", vectors, dtype),
            "view_shards": write_shards(folder, "views", view_vectors, dtype),
            "items_sha256": _write_items(folder / ITEMS, items),
            "unreadable": len(unreadable),
            "provenance": provenance or {},
        }
        if unreadable:
            lines = (f"{_one_line(item)}\t{_one_line(reason)}\n" for item, reason in unreadable)
            (folder / "unreadable.txt").write_text("".join(lines), encoding="utf-8", errors="backslashreplace")
        if whitening:
            (folder / WHITENING_FILE).write_bytes(whitening.content)
        write_json(folder / "manifest.json", manifest)
        store = FeatureStore.open(folder)
    return replace(store, path=path)


def _one_line(text: str) -> str:
    return text.translate({ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"})


def _write_items(file: Path, items: Items) -> str:
    """Write items.parquet; its SHA-256."""
    columns = {"id": items.ids, "digest": items.digests}
    if items.labels is not None:
        columns["label"] = items.labels
    try:
        table = pa.table({name: Column.of(values).strings() for name, values in columns.items()}).combine_chunks()
    except UnicodeEncodeError as error:
        raise BadInputError(f"an id or a label is not valid UTF-8: {error.object!r}") from None
    pq.write_table(table, file)
    return sha256_file(file)


def check_vectors(vectors: NDArray[Any], ids: Sequence[str], dim: int) -> None:
    """Raise BadInputError, naming the first offender, unless vectors are (len(ids), dim), finite, unit, ids unique."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise BadInputError(f"vectors have shape {vectors.shape}; (N, {dim}) is expected")
    if len(vectors) != len(ids):
        raise BadInputError(f"{len(vectors)} vectors but {len(ids)} ids")
    if not len(ids):
        raise BadInputError("there is no vector")
    if (twice := first_repeated(ids)) is not None:
        raise BadInputError(f"ids are not unique: {twice!r} stands more than once")
    _check_unit_length(vectors, lambda row: ids[row])


def _check_unit_length(vectors: NDArray[Any], name: Callable[[int], str]) -> None:
    tolerance = UNIT_NORM_TOLERANCE.get(str(vectors.dtype), 1e-4)
    for first in range(0, len(vectors), SHARD_ROWS):
        block = np.asarray(vectors[first : first + SHARD_ROWS], np.float32)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            row = first + int(np.flatnonzero(~finite)[0])
            raise BadInputError(
                f"row {row} ({name(row)}) has NaN or infinity ({int((~finite).sum())} such rows in its block)"
            )
        norms = np.linalg.norm(block, axis=1)
        wrong = np.abs(norms - 1) > tolerance
        if wrong.any():
            row = first + int(np.flatnonzero(wrong)[0])
            raise BadInputError(
                f"row {row} ({name(row)}) has length {norms[row - first]:.4f}, not 1; normalise the vectors first"
            )
