"""import-features: vectors that somebody else's gallery model made -> a feature store."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, first_line
from edgecsd.features.shards import require_dtype
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import KIND, FeatureStore, Items, check_vectors, write_store
from edgecsd.files.places import holding_out, require_free
from edgecsd.progress import SILENT, Reporter

Floats = NDArray[np.float32] | NDArray[np.float16]  # float16 stays float16: its unit vectors are less exactly so


@holding_out
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
    ids              a text file, one id a line in row order, or a CSV with `id` and maybe `label`; Parquet has its own
    dim              the dimension that is expected; another is refused
    normalise        scale every vector to unit length instead of refusing those that are not
    drop_invalid     leave out vectors with NaN, infinity or length 0 instead of refusing them
    drop_duplicates  of an id that stands twice keep the first row instead of refusing
    """
    if not space.strip():
        raise BadInputError("`space` is empty: name the gallery model and its version, such as acme-embedder-v7")
    require_dtype(dtype)
    require_free(out, KIND, overwrite=overwrite)
    vectors, names, labels = _read(file, ids)
    if dim is not None and vectors.shape[1] != dim:
        raise BadInputError(f"{file}: its vectors have dimension {vectors.shape[1]}, `dim` says {dim}")
    if vectors.shape[1] < 2:
        raise BadInputError(f"{file}: its vectors have dimension {vectors.shape[1]}; 2 or more are needed")
    if len(names) != len(vectors):
        raise BadInputError(
            f"{ids or file}: {len(names)} ids for {len(vectors)} vectors; one a row is needed, in row order"
        )
    rows = _kept(vectors, names, drop_invalid=drop_invalid, drop_duplicates=drop_duplicates)
    if len(rows) < len(names):
        reporter.message(f"{len(names) - len(rows)} of {len(names)} rows left out (invalid or duplicate)")
    vectors, names = vectors[rows], tuple(names[r] for r in rows)
    if normalise:
        vectors = _unit(vectors, names)
    _check(vectors, names)
    items = Items(names, ("",) * len(names), None if labels is None else tuple(labels[r] for r in rows))
    identity = EmbeddingSpace(gallery_model=space, dim=vectors.shape[1])
    return write_store(out, identity, items, vectors, dtype=dtype, provenance={"imported_from": file.name})


def _kept(vectors: Floats, names: tuple[str, ...], *, drop_invalid: bool, drop_duplicates: bool) -> NDArray[np.int64]:
    """The rows that stay."""
    keep = np.ones(len(vectors), bool)
    if drop_invalid:
        keep &= np.isfinite(vectors).all(axis=1) & (vectors != 0).any(axis=1)
    if drop_duplicates:
        seen: set[str] = set()
        for row in np.flatnonzero(keep):  # of the valid ones: an invalid row must not cost its valid namesake
            keep[row] = names[row] not in seen
            seen.add(names[row])
    return np.flatnonzero(keep)


def _unit(vectors: Floats, names: tuple[str, ...]) -> Floats:
    """Unit length in float32; in float64 on the way, where squares neither overflow nor vanish."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not norms.all():
        row = int(np.flatnonzero(norms == 0)[0])
        raise BadInputError(
            f"row {row} ({names[row]}) is all zeros and cannot be normalised; `drop_invalid` leaves such rows out"
        )
    with np.errstate(invalid="ignore"):  # infinity / infinity is NaN, which the check that follows names
        return np.asarray(vectors / norms, np.float32)


def _check(vectors: Floats, names: tuple[str, ...]) -> None:
    mends = {") has length ": "`normalise`", ") has NaN ": "`drop_invalid`", "not unique": "`drop_duplicates`"}
    try:
        check_vectors(vectors, names, vectors.shape[1])
    except BadInputError as error:
        fix = next((option for text, option in mends.items() if text in str(error)), None)
        raise BadInputError(f"{error}; {fix} mends it" if fix else str(error)) from None


def _read(file: Path, ids: Path | None) -> tuple[Floats, tuple[str, ...], tuple[str, ...] | None]:
    """Vectors (N, D) float32, ids and maybe labels."""
    if not file.is_file():
        raise BadInputError(f"{file}: no such file")
    if file.suffix == ".parquet":
        if ids is not None:
            raise BadInputError("`ids`: a Parquet file brings its own 'id' column; leave `ids` out")
        return _read_parquet(file)
    if ids is None:
        raise BadInputError(f"`ids` is needed: {file.suffix or 'this'} files hold no item ids")
    names, labels = _read_ids(ids)
    if file.suffix == ".npy":
        return _read_npy(file), names, labels
    from edgecsd.index.engines.faiss.index import vectors_of_faiss_file

    return vectors_of_faiss_file(file), names, labels


def _read_npy(file: Path) -> Floats:
    try:
        vectors = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInputError(f"{file}: not a plain .npy array: {error}") from None
    if vectors.dtype.kind == "V":  # as numpy shows bfloat16 and 8-bit floats, which it has no names for
        raise BadInputError(
            f"{file}: holds {vectors.dtype} {vectors.shape}, a type that numpy does not know, such as bfloat16; "
            "save them as float32"
        )
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise BadInputError(f"{file}: holds {vectors.dtype} {vectors.shape}; floats of shape (N, D) are needed")
    return _float(vectors)


def _float(values: NDArray[Any]) -> Floats:
    """float16 as it is, everything else as float32; what is too large for that becomes infinity, which is refused."""
    if values.dtype == np.float16:
        return values
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32)


def _read_parquet(file: Path) -> tuple[Floats, tuple[str, ...], tuple[str, ...] | None]:
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"{file}: not readable as Parquet: {error}") from None
    missing = {"id", "vector"} - set(table.column_names)
    if missing:
        raise BadInputError(f"{file}: no column {', '.join(sorted(missing))} (found: {', '.join(table.column_names)})")
    vectors = _vectors_of(table.column("vector"), file)
    labels = _texts(table.column("label"), file, "label") if "label" in table.column_names else None
    return vectors, _texts(table.column("id"), file, "id"), labels


def _vectors_of(column: pa.ChunkedArray[Any], file: Path) -> Floats:
    """(N, D) from a column of lists, fixed in size or not."""
    try:
        lengths = pc.list_value_length(column).to_pylist()
        flat: Any = pc.list_flatten(column)
        values = np.asarray(flat.to_numpy())
    except (pa.ArrowException, TypeError) as error:
        raise BadInputError(f"{file}: column 'vector' is no list of numbers: {first_line(error)}") from None
    if column.null_count or len(set(lengths)) != 1 or not lengths[0]:
        raise BadInputError(f"{file}: the vectors are missing in some rows or differ in dimension")
    if not np.issubdtype(values.dtype, np.number):
        raise BadInputError(f"{file}: column 'vector' holds lists of {flat.type}; numbers are needed")
    return _float(values).reshape(len(lengths), -1)


def _texts(column: pa.ChunkedArray[Any], file: Path, name: str) -> tuple[str, ...]:
    if column.null_count:
        raise BadInputError(f"{file}: column {name!r} has {column.null_count} rows without a value")
    return tuple(str(value) for value in column.to_pylist())


def _read_ids(file: Path) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"`ids` {file}: cannot be read: {error}") from None
    if file.suffix.lower() != ".csv":
        return tuple(line for line in text.split("\n") if line), None  # splitlines() breaks at more than line ends
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or "id" not in rows[0]:
        raise BadInputError(f"`ids` {file}: a header with an 'id' column, and rows, are needed")
    columns = [name for name in ("id", "label") if name in rows[0]]
    for number, row in enumerate(rows):
        if any(row[name] is None for name in columns):
            raise BadInputError(f"`ids` {file}: row {number} after the header is too short: {row}")
    return tuple(row["id"] for row in rows), tuple(row["label"] for row in rows) if "label" in rows[0] else None
