"""import-features: vectors that somebody else's gallery model made -> a feature store."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.features import FeatureStore, Items, check_vectors, write_store
from edgecsd.progress import SILENT, Reporter
from edgecsd.space import EmbeddingSpace

Floats = NDArray[np.float32]


def import_features(
    file: Path,
    out: Path,
    *,
    space: str,
    ids: Path | None = None,
    dim: int | None = None,
    normalise: bool = False,
    drop_invalid: bool = False,
    drop_duplicates: bool = False,
    dtype: str = "float16",
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> FeatureStore:
    """A feature store from .npy (N, D), Parquet (columns `id` and `vector`, maybe `label`) or a faiss index file.

    space            names the gallery model and its version; it is the identity that check compares
    ids              a text file, one id a line in row order, or a CSV with `id` and maybe `label`; Parquet brings its own
    dim              the dimension that is expected; another is refused
    normalise        scale every vector to unit length instead of refusing those that are not
    drop_invalid     leave out vectors with NaN, infinity or length 0 instead of refusing them
    drop_duplicates  of an id that stands twice keep the first row instead of refusing
    """
    if out.exists() and not overwrite:
        raise BadInputError(f"{out}: already there; choose another --out or add --overwrite")
    vectors, names, labels = _read(file, ids)
    if dim is not None and vectors.shape[1] != dim:
        raise BadInputError(f"{file}: its vectors have dimension {vectors.shape[1]}, --dim says {dim}")
    if len(names) != len(vectors):
        raise BadInputError(f"{ids or file}: {len(names)} ids for {len(vectors)} vectors; one a row is needed, in row order")
    keep = np.ones(len(vectors), bool)
    if drop_invalid:
        keep &= np.isfinite(vectors).all(axis=1) & (np.linalg.norm(vectors, axis=1) > 0)
    if drop_duplicates:
        first = {name: row for row, name in reversed(list(enumerate(names)))}
        keep &= np.array([first[name] == row for row, name in enumerate(names)])
    if not keep.all():
        reporter.message(f"{int((~keep).sum())} of {len(keep)} rows left out (invalid or duplicate)")
    rows = np.flatnonzero(keep)
    vectors, names = vectors[rows], tuple(names[r] for r in rows)
    if normalise:
        vectors = _unit(vectors, names)
    _check(vectors, names)
    items = Items(names, ("",) * len(names), None if labels is None else tuple(labels[r] for r in rows))
    identity = EmbeddingSpace(gallery_model=space, dim=vectors.shape[1])
    return write_store(out, identity, items, vectors, dtype=dtype, provenance={"imported_from": file.name})


def _unit(vectors: Floats, names: tuple[str, ...]) -> Floats:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not norms.all():
        row = int(np.flatnonzero(norms == 0)[0])
        raise BadInputError(f"row {row} ({names[row]}) is all zeros and cannot be normalised; --drop-invalid leaves such rows out")
    return vectors / norms


def _check(vectors: Floats, names: tuple[str, ...]) -> None:
    try:
        check_vectors(vectors, names, vectors.shape[1])
    except BadInputError as error:
        text = str(error)
        fix = "--normalise" if "length" in text else "--drop-invalid" if "NaN" in text else "--drop-duplicates" if "unique" in text else ""
        raise BadInputError(f"{text}; {fix} mends it" if fix else text) from None


def _read(file: Path, ids: Path | None) -> tuple[Floats, tuple[str, ...], tuple[str, ...] | None]:
    """Vectors (N, D) float32, ids and maybe labels."""
    if not file.is_file():
        raise BadInputError(f"{file}: no such file")
    if file.suffix == ".parquet":
        if ids is not None:
            raise BadInputError("--ids: a Parquet file brings its own 'id' column; leave --ids out")
        return _read_parquet(file)
    if ids is None:
        raise BadInputError(f"--ids is needed: {file.suffix or 'this'} files hold no item ids")
    names, labels = _read_ids(ids)
    if file.suffix == ".npy":
        return _read_npy(file), names, labels
    from edgecsd.index import vectors_of_faiss_file

    return vectors_of_faiss_file(file), names, labels


def _read_npy(file: Path) -> Floats:
    try:
        vectors = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInputError(f"{file}: not a plain .npy array: {error}") from None
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise BadInputError(f"{file}: holds {vectors.dtype} {vectors.shape}; floats of shape (N, D) are needed")
    return np.asarray(vectors, np.float32)


def _read_parquet(file: Path) -> tuple[Floats, tuple[str, ...], tuple[str, ...] | None]:
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"{file}: not readable as Parquet: {error}") from None
    missing = {"id", "vector"} - set(table.column_names)
    if missing:
        raise BadInputError(f"{file}: no column {', '.join(sorted(missing))} (found: {', '.join(table.column_names)})")
    lists = table.column("vector").combine_chunks()
    lengths = np.asarray(pa.compute.list_value_length(lists).to_numpy(zero_copy_only=False)) if not pa.types.is_fixed_size_list(lists.type) else None
    if lists.null_count or (lengths is not None and len(set(lengths.tolist())) != 1):
        raise BadInputError(f"{file}: the vectors are missing in some rows or differ in dimension")
    vectors = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(len(lists), -1)
    labels = tuple(map(str, table.column("label").to_pylist())) if "label" in table.column_names else None
    return vectors, tuple(map(str, table.column("id").to_pylist())), labels


def _read_ids(file: Path) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"--ids {file}: cannot be read: {error}") from None
    if file.suffix != ".csv":
        return tuple(line for line in text.splitlines() if line), None
    rows = list(csv.DictReader(text.splitlines()))
    if not rows or "id" not in rows[0]:
        raise BadInputError(f"--ids {file}: a header with an 'id' column is needed")
    return tuple(row["id"] for row in rows), tuple(row["label"] for row in rows) if "label" in rows[0] else None
