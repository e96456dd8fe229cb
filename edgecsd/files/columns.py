"""Ids, digests and labels of many items as Arrow holds them, and rows by id: a third of what strings and a dict take.

A Python string of 27 letters takes 76 bytes, a digest 113, an entry of a dict about 100. Here an id takes its letters
and 4 bytes, a digest 32, a label 4, and looking a row up 12.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

AT_ONCE = 65_536  # strings that are made at once while a column is gone through
DIGEST_LETTERS = 64  # of a SHA-256 in hex
NO_DIGIT = 255
VALUE_OF = np.full(256, NO_DIGIT, np.uint8)
VALUE_OF[list(b"0123456789abcdef")] = np.arange(16, dtype=np.uint8)

Arrow: TypeAlias = "pa.ChunkedArray[Any]"


class Column(Sequence[str]):
    """Strings in Arrow's memory; one is made where it is asked for. Equal to any sequence of the same strings."""

    def __init__(self, values: Arrow) -> None:
        """values: strings, in a dictionary or not; or the bytes of SHA-256 digests in hex, null for ""."""
        self._values = values
        self._hex = pa.types.is_fixed_size_binary(values.type)

    @staticmethod
    def of(values: Iterable[str]) -> Column:
        """A column of any strings. Raises UnicodeEncodeError for one that is not valid UTF-8."""
        if isinstance(values, Column):
            return values
        left, chunks = iter(values), []
        while block := list(islice(left, AT_ONCE)):
            chunks.append(pa.array(block, pa.string()))
        return Column(pa.chunked_array(chunks, pa.string()))

    def strings(self) -> Arrow:
        """As Arrow strings, for a file."""
        if not self._hex:
            return self._values.cast(pa.string())
        chunks = [pa.array(self._texts(chunk), pa.string()) for chunk in self._values.chunks]
        return pa.chunked_array(chunks, pa.string())

    @property
    def known(self) -> int:
        """How many are not empty."""
        if self._hex:
            return len(self) - self._values.null_count
        return sum(1 for text in self if text)

    def _texts(self, values: Any) -> list[str]:
        if self._hex:
            return ["" if value is None else value.hex() for value in values.to_pylist()]
        return list(values.to_pylist())

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[str, ...]: ...
    def __getitem__(self, row: int | slice) -> str | tuple[str, ...]:
        if not isinstance(row, slice):
            value = self._values[range(len(self))[row]].as_py()
            return str(value) if not self._hex else "" if value is None else value.hex()
        rows = range(len(self))[row]
        if rows.step == 1:
            return tuple(self._texts(self._values.slice(rows.start, len(rows))))
        return tuple(self[each] for each in rows)

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), AT_ONCE):
            yield from self._texts(self._values.slice(first, AT_ONCE))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Column({list(self[:3])}{'...' if len(self) > 3 else ''}, {len(self)} in all)"


class RowOf(Mapping[str, int]):
    """Item id -> row, found among sorted hashes of the ids."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = Column.of(ids)
        hashes = _hashes(self._ids)
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._rows = order.astype(np.int32 if len(order) <= np.iinfo(np.int32).max else np.int64)
        self._searched = self._hashes.data  # gives Python's own numbers, which bisect compares faster
        self._different = len(order) - _repetitions(self._ids, self._hashes, self._rows)

    def find(self, item: str) -> int:
        """The row of an item, the first of several; -1 if it has none."""
        wanted = hash(item)
        place = bisect_left(self._searched, wanted)
        while place < len(self._searched) and self._searched[place] == wanted:
            row = int(self._rows[place])
            if self._ids[row] == item:
                return row
            place += 1
        return -1

    def __getitem__(self, item: str) -> int:
        row = self.find(item)
        if row < 0:
            raise KeyError(item)
        return row

    def __contains__(self, item: object) -> bool:
        return isinstance(item, str) and self.find(item) >= 0

    def __len__(self) -> int:
        """Different ids."""
        return self._different

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)


class DigestOf(Mapping[str, str]):
    """Item id -> digest of its photo, of those that are known."""

    def __init__(self, row_of: RowOf, digests: Column) -> None:
        self.row_of, self._digests = row_of, digests

    def __getitem__(self, item: str) -> str:
        digest = self._digests[self.row_of[item]]
        if not digest:
            raise KeyError(item)
        return digest

    def __len__(self) -> int:
        return self._digests.known

    def __iter__(self) -> Iterator[str]:
        return (item for item, digest in zip(self.row_of, self._digests, strict=True) if digest)


def read_column(file: Path, name: str) -> Column | None:
    """A column of strings in a Parquet file; None if it has none of that name.

    Parquet cannot be memory-mapped as strings: a row group is decoded at a time, and kept in fewer bytes. Raises
    ValueError for a row without a string, and what pyarrow raises for a file that it cannot read.
    """
    with pq.ParquetFile(file, pre_buffer=False) as opened:  # read ahead, 70 MB would never be given back
        if name not in opened.schema_arrow.names:
            return None
        chunks = _chunks(opened, name, KEPT.get(name, _as_it_is)) or _chunks(opened, name, _as_it_is)
    pa.default_memory_pool().release_unused()  # what decoding took beside
    if not chunks:
        return Column.of(())
    column = pa.chunked_array(chunks, chunks[0].type)
    return Column(column.unify_dictionaries() if name == "label" else column)


def first_repeated(ids: Sequence[str]) -> str | None:
    """The first id that stood before, or None; in 16 bytes an id while it looks."""
    hashes = np.sort(_hashes(ids))
    if not (hashes[1:] == hashes[:-1]).any():
        return None
    seen: set[str] = set()
    return next((item for item in ids if item in seen or seen.add(item)), None)  # type: ignore[func-returns-value]


def _hashes(ids: Sequence[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, ids), np.int64, len(ids))


def _repetitions(ids: Column, hashes: NDArray[np.int64], rows: NDArray[Any]) -> int:
    """How many ids stood before, given their sorted hashes and the rows of those."""
    places = np.flatnonzero(hashes[1:] == hashes[:-1])
    if not len(places):
        return 0
    alike = [ids[int(row)] for row in rows[np.union1d(places, places + 1)]]
    return len(alike) - len(set(alike))


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _as_it_is(chunk: Any) -> Any:
    return chunk


def _chunks(opened: pq.ParquetFile, name: str, keep: Callable[[Any], Any]) -> list[Any]:
    """The column row group by row group, as `keep` makes it; nothing where that gives None."""
    chunks = []
    for group in range(opened.num_row_groups):
        column = opened.read_row_group(group, columns=[name], use_threads=False).column(name)
        if column.null_count or not _is_text(column.type):
            raise ValueError(f"column {name!r} has a row without a string")
        for chunk in column.chunks:
            if (kept := keep(chunk)) is None:
                return []
            chunks.append(kept)
    return chunks


def _packed(chunk: Any) -> Any:
    """Strings of "" or SHA-256 in hex as null or 32 bytes; None if there are others (digests of photos with boxes)."""
    lengths = pc.binary_length(chunk).to_numpy(zero_copy_only=False)
    known = lengths == DIGEST_LETTERS
    if not (known | (lengths == 0)).all():
        return None
    letters = chunk.filter(pa.array(known)).cast(pa.large_string())
    offsets = np.frombuffer(letters.buffers()[1], np.int64)[letters.offset : letters.offset + len(letters) + 1]
    values = VALUE_OF[np.frombuffer(letters.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]]
    if (values == NO_DIGIT).any():
        return None
    packed = np.zeros((len(chunk), DIGEST_LETTERS // 2), np.uint8)
    packed[known] = (values[0::2] << 4 | values[1::2]).reshape(-1, DIGEST_LETTERS // 2)
    validity = np.packbits(known, bitorder="little")
    buffers: list[pa.Buffer | None] = [pa.py_buffer(validity.data), pa.py_buffer(packed.reshape(-1).data)]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST_LETTERS // 2), len(chunk), buffers)


def _numbered(chunk: Any) -> Any:
    """Strings as numbers of a dictionary."""
    return chunk.dictionary_encode()


KEPT: dict[str, Callable[[Any], Any]] = {"digest": _packed, "label": _numbered}  # of columns by their names
