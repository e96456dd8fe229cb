"""How a store's vectors lie on disk: .npy files of float32, float16 or int8 rows, memory-mapped, read as float32.

float32, float16  the numbers themselves
int8              round(127 v / max |v|) of each vector: a byte a number. The scale is not kept, for the vector was
                  of unit length and is made so again where it is read
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.files.whole import require_digest, save_array, sha256_file

SHARD_ROWS = 65_536
INT8 = "int8"
DTYPES = ("float32", "float16", INT8)
READ_VALUES = 1 << 20  # of int8 vectors that are held beside what they are read into: 4 MB
LARGEST = 127  # of the numbers of an int8 vector
SMALLEST = np.float32(1e-30)  # stands for the largest number of a vector of zeros

Floats: TypeAlias = NDArray[np.float32]
Rows: TypeAlias = slice | NDArray[np.int64]


def require_dtype(dtype: str) -> None:
    """Raise BadInputError unless a store may hold this type."""
    if dtype not in DTYPES:
        raise BadInputError(f"vectors are stored as {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, not as {dtype}")


def wider(dtypes: Iterable[str]) -> str:
    """The one of the types that keeps most."""
    return min(dtypes, key=DTYPES.index)


def floating(dtype: str) -> np.dtype[Any]:
    """What vectors are held as until a store writes them as `dtype`: int8 is made of whole vectors, out of float16."""
    return np.dtype("float16" if dtype == INT8 else dtype)


def to_int8(vectors: NDArray[Any]) -> NDArray[np.int8]:
    """(n, D) vectors -> (n, D) whole numbers, the largest of each 127."""
    numbers = np.asarray(vectors, np.float32)
    largest = np.maximum(np.abs(numbers).max(axis=1, keepdims=True, initial=0.0), SMALLEST)
    whole: NDArray[np.int8] = np.rint(LARGEST * (numbers / largest)).astype(np.int8)
    return whole


def from_int8(rows: NDArray[np.int8]) -> Floats:
    """(n, D) whole numbers -> unit vectors, the same to the bit however many are read at once; zeros stay zeros."""
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.int32)  # exact: 127^2 D fits
    vectors = rows.astype(np.float32)
    vectors /= np.sqrt(np.maximum(squares, 1).astype(np.float64)).astype(np.float32)[:, None]
    return vectors


class Int8Rows:
    """The memory-mapped rows of an int8 shard, (n, D): a slice or row numbers give unit vectors as float32."""

    dtype = np.dtype(np.int8)

    def __init__(self, rows: NDArray[np.int8]) -> None:
        self.rows, self.shape = rows, rows.shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Rows) -> Floats:
        return from_int8(self.rows[chosen])


Shard: TypeAlias = NDArray[Any] | Int8Rows  # (n, D); what is taken out of it by a slice or by rows is an array


def read_shard(file: Path) -> Shard:
    """A shard, memory-mapped."""
    block = _mapped(file)
    return Int8Rows(block) if block.dtype == np.int8 else block


def read_into(out: Floats, shard: Shard, start: int) -> None:
    """Write the rows of a shard from `start` on into out (rows, D), a part at a time."""
    if not isinstance(shard, Int8Rows):
        out[...] = shard[start : start + len(out)]
        return
    step = max(1, READ_VALUES // max(1, out.shape[1]))
    for first in range(0, len(out), step):
        last = min(first + step, len(out))
        out[first:last] = shard[start + first : start + last]


def let_go(shard: Shard) -> None:
    """Take the pages of a memory-mapped file out of this process; reading them again brings them back."""
    file: Any = (shard.rows if isinstance(shard, Int8Rows) else shard).base
    if isinstance(file, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)


def _mapped(file: Path) -> NDArray[Any]:
    try:
        return open_memmap(file, mode="r")  # .npy only: never a pickle, never a zip
    except (OSError, ValueError, EOFError) as error:
        raise DamagedFileError(f"{file}: cannot be read: {error}") from None


def check_shards(path: Path, shards: list[dict[str, Any]], rows: int, dim: int, dtype: str, *, verify: bool) -> None:
    """Raise DamagedFileError unless the shards of a store are those that its manifest lists; `verify`: to the byte."""
    if dtype not in DTYPES:
        raise DamagedFileError(f"{path}: says dtype {dtype}; {', '.join(DTYPES[:-1])} or {DTYPES[-1]} is expected")
    found = 0
    for shard in shards:
        file = path / Path(shard["file"]).name
        block = _mapped(file)
        if not block.flags.c_contiguous:
            raise DamagedFileError(f"{file}: not in C order")
        if block.shape != (shard["rows"], dim) or str(block.dtype) != dtype:
            raise DamagedFileError(
                f"{file}: holds {block.dtype} {block.shape}, the manifest says {dtype} {(shard['rows'], dim)}"
            )
        if verify:
            require_digest(file, str(shard["sha256"]))
        found += len(block)
    if found != rows:
        raise DamagedFileError(f"{path}: its shards hold {found} vectors, the manifest says {rows}")


def write_shards(folder: Path, stem: str, vectors: NDArray[Any], dtype: str) -> list[dict[str, Any]]:
    """Write (N, D) unit vectors as STEM-00000-of-0000N.npy and so on; what the manifest says of them."""
    shards = math.ceil(len(vectors) / SHARD_ROWS)
    written = []
    for number in range(shards):
        file = folder / f"{stem}-{number:05d}-of-{shards:05d}.npy"
        rows = vectors[number * SHARD_ROWS : (number + 1) * SHARD_ROWS]
        block = to_int8(rows) if dtype == INT8 else np.ascontiguousarray(rows, dtype=dtype)
        save_array(file, block)
        written.append({"file": file.name, "rows": len(block), "sha256": sha256_file(file)})
    return written


def blocks_of(folder: Path, shards: list[dict[str, Any]]) -> Iterator[tuple[int, Shard]]:
    """(first row, memory-mapped shard) of each shard that a manifest lists, in row order."""
    first = 0
    for shard in shards:
        block = read_shard(folder / shard["file"])
        yield first, block
        first += len(block)
