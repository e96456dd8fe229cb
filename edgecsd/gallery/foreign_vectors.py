"""Vectors, ids and labels out of the files that people have.

.npy             (N, D) floats
.npz             one such array, or `vector` or another of VECTOR_COLUMNS; its ids as `id` or `ids`
Parquet, Feather a column of lists (fixed in size or not) or of tensors, by one of the names VECTOR_COLUMNS; `id`, text,
                 numbers or bytes of UTF-8; maybe `label`. A folder of parts is read in the order of their names
faiss            an index file; the ids of an IndexIDMap are its own
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, first_line
from edgecsd.progress import Reporter

VECTOR_COLUMNS = ("vector", "embedding", "features", "vectors", "embeddings")  # the first that is there
ID_COLUMNS = ("id", "ids")
# What begins like this is no array, whatever its name says
SIGNATURES = {
    b"version https://git-lfs": "is the pointer of a Git LFS file: git lfs pull fetches the file itself",
    b"PK\x03\x04": "is a zip archive: unpack it first",
    b"\x1f\x8b": "is compressed by gzip: unpack it first",
    b"\x80": "is a pickle, which could run code when it is read: save the vectors by numpy.save",
}

Floats = NDArray[np.float32] | NDArray[np.float16]  # float16 stays float16: its unit vectors are less exactly so
Texts = tuple[str, ...]


def read_vectors(file: Path, ids: Path | None, reporter: Reporter) -> tuple[Floats, Texts, Texts | None]:
    """Vectors (N, D), ids and maybe labels, in one order. Raises BadInputError for a file without them."""
    if file.is_dir():
        return _read_parts(file, ids)
    if not file.is_file():
        raise BadInputError(f"{file}: no such file")
    _require_no_other(file)
    if file.suffix == ".parquet":
        _require_no_ids(ids)
        return _read_table(_parquet(file), file)
    if file.suffix == ".npz":
        return _read_npz(file, ids)
    if file.suffix == ".npy":
        names, labels = _given(ids, file)
        return _read_npy(file), names, labels
    from edgecsd.index.engines.faiss.foreign import read_faiss_file

    vectors, own = read_faiss_file(file)
    if own is None:
        return vectors, *_given(ids, file)
    if ids is None:
        return vectors, tuple(map(str, own.tolist())), None
    return vectors, *_by_id(own, *_given(ids, file), file, ids, reporter)


def _by_id(
    own: NDArray[np.int64], names: Texts, labels: Texts | None, file: Path, ids: Path, reporter: Reporter
) -> tuple[Texts, Texts | None]:
    """The names in the index's order: its ids are the lines of the file."""
    if own.min(initial=0) < 0 or own.max(initial=0) >= len(names):
        raise BadInputError(
            f"{file}: has ids of its own, {own.min()} to {own.max()}, which are no lines of {ids} ({len(names)}, from "
            f"0 on); leave `ids` out to take them"
        )
    if not np.array_equal(own, np.arange(len(names))):
        reporter.message(f"{file} has ids of its own: each vector takes the line of {ids} that its id says, from 0 on")
    return tuple(names[row] for row in own), None if labels is None else tuple(labels[row] for row in own)


def _require_no_other(file: Path) -> None:
    """Raise BadInputError for a file that is something else than its name says, by its first bytes."""
    with open(file, "rb") as handle:
        head = handle.read(64)
    for signature, what in SIGNATURES.items():
        if head.startswith(signature) and not (file.suffix == ".npz" and head.startswith(b"PK")):
            raise BadInputError(f"{file}: {what}")


def _require_no_ids(ids: Path | None) -> None:
    if ids is not None:
        raise BadInputError("`ids`: a Parquet file brings its own 'id' column; leave `ids` out")


def _given(ids: Path | None, file: Path) -> tuple[Texts, Texts | None]:
    if ids is None:
        raise BadInputError(f"`ids` is needed: {file.suffix or 'this'} files hold no item ids")
    return _read_ids(ids)


def _read_npz(file: Path, ids: Path | None) -> tuple[Floats, Texts, Texts | None]:
    try:
        with open(file, "rb") as handle, np.load(handle, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise BadInputError(f"{file}: not a plain .npz archive: {first_line(error)}") from None
    tables = [name for name, array in arrays.items() if array.ndim == 2]
    named = next((name for name in VECTOR_COLUMNS if name in tables), tables[0] if len(tables) == 1 else None)
    if named is None:
        raise BadInputError(
            f"{file}: which of its arrays holds the vectors? name it {VECTOR_COLUMNS[0]!r} (found: {', '.join(arrays)})"
        )
    own = next((arrays[name] for name in ID_COLUMNS if name in arrays), None)
    if own is not None and ids is not None:
        raise BadInputError(f"`ids`: {file} brings its own ids; leave `ids` out")
    names, labels = (tuple(map(_text, own.tolist())), None) if own is not None else _given(ids, file)
    return _floats(arrays[named], file), names, labels


def _read_npy(file: Path) -> Floats:
    try:
        vectors = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInputError(f"{file}: not a plain .npy array: {error}") from None
    return _floats(vectors, file)


def _floats(vectors: NDArray[Any], file: Path) -> Floats:
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


def _parquet(file: Path) -> pa.Table:
    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"{file}: not readable as Parquet: {error}") from None


def _read_parts(folder: Path, ids: Path | None) -> tuple[Floats, Texts, Texts | None]:
    """A folder of Parquet files, in the order of their names."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise BadInputError(f"{folder}: a folder without .parquet files")
    _require_no_ids(ids)
    parts = [_read_table(_parquet(file), file) for file in files]
    dims = {vectors.shape[1] for vectors, _, _ in parts}
    if len(dims) > 1 or len({labels is None for _, _, labels in parts}) > 1:
        raise BadInputError(f"{folder}: its files differ in dimension ({sorted(dims)}), or some have labels")
    labels = [label for _, _, labels in parts for label in labels or ()]
    vectors = np.concatenate([vectors for vectors, _, _ in parts])
    return vectors, tuple(name for _, names, _ in parts for name in names), tuple(labels) if labels else None


def _read_table(table: pa.Table, file: Path) -> tuple[Floats, Texts, Texts | None]:
    found = table.column_names
    vector = next((name for name in VECTOR_COLUMNS if name in found), None)
    own = next((name for name in ID_COLUMNS if name in found), None)
    if vector is None or own is None:
        missing = "id" if vector is not None else f"{VECTOR_COLUMNS[0]} (or {', '.join(VECTOR_COLUMNS[1:])})"
        raise BadInputError(f"{file}: no column {missing} (found: {', '.join(found)})")
    labels = _texts(table.column("label"), file, "label") if "label" in found else None
    return _vectors_of(table.column(vector), file, vector), _texts(table.column(own), file, own), labels


def _vectors_of(column: pa.ChunkedArray[Any], file: Path, name: str) -> Floats:
    """(N, D) from a column of lists, fixed in size or not, or of tensors of one shape."""
    try:
        column = _without_extension(column)
        lengths = pc.list_value_length(column).to_pylist()
        flat: Any = pc.list_flatten(column)
        values = np.asarray(flat.to_numpy())
    except (pa.ArrowException, TypeError) as error:
        raise BadInputError(f"{file}: column {name!r} is no list of numbers: {first_line(error)}") from None
    if column.null_count or len(set(lengths)) != 1 or not lengths[0]:
        raise BadInputError(f"{file}: the vectors are missing in some rows or differ in dimension")
    if not np.issubdtype(values.dtype, np.number):
        raise BadInputError(f"{file}: column {name!r} holds lists of {flat.type}; numbers are needed")
    return _float(values).reshape(len(lengths), -1)


def _without_extension(column: Any) -> Any:  # Any: the stubs know no storage
    """A column of tensors as one of lists."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _texts(column: pa.ChunkedArray[Any], file: Path, name: str) -> tuple[str, ...]:
    if column.null_count:
        raise BadInputError(f"{file}: column {name!r} has {column.null_count} rows without a value")
    try:
        return tuple(map(_text, column.to_pylist()))
    except UnicodeDecodeError:
        raise BadInputError(f"{file}: column {name!r} holds bytes that are no UTF-8 text") from None


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
