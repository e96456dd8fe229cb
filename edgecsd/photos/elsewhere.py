"""Photos that are no files of a local folder: in object stores, in tar shards, in Parquet files, or a mixture.

    s3://bucket/photos              every photo below it (any URL that fsspec knows: gs://, http://, memory://)
    s3://bucket/list.csv            a list beside its photos; .txt too
    shards/train-{000..127}.tar     tar shards, local or by URL, as webdataset has them; the id is SHARD/MEMBER
    photos.parquet                  a column of encoded photos (`image` or `bytes`), or `path` as in a list; by URL too

Photos are read when they are needed, never copied. Ids and their order are the same in every process and run.
"""

from __future__ import annotations

import re
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from edgecsd.errors import BadInputError, EdgecsdError, ImageReadError, first_line, missing_extra
from edgecsd.photos.images import SUFFIXES, ImageSet
from edgecsd.photos.lists import BOX_COLUMNS, listed, of_rows, require_no_split

BYTES_COLUMNS = ("image", "bytes")  # of encoded photos; `image` may be a struct with bytes and path
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def find_elsewhere(source: str, split: str | None = None) -> ImageSet:
    """The images of a URL, of tars or of a Parquet file. Raises BadInputError; MissingBackendError without fsspec."""
    suffix = PurePosixPath(source).suffix.lower()
    if suffix == ".tar":
        require_no_split(split, source, "tars")
        return _from_tars(source)
    files, path = _file_system(source)
    if suffix == ".parquet":
        return _from_parquet(source, files, path, split)
    if suffix in (".csv", ".txt"):
        with _told(source):
            content = files.cat_file(path)
        place = source.rpartition("/")[0]
        return _image_set(place, *listed(content, source, split), source=_Files(place, files, path.rpartition("/")[0]))
    require_no_split(split, source, "a folder")
    with _told(source):
        found = [name[len(path) :].lstrip("/") for name in files.find(path) if name.startswith(path.rstrip("/") + "/")]
    ids = sorted(name for name in found if _is_photo(name))
    if not ids:
        raise BadInputError(f"{source}: no image in it ({', '.join(sorted(SUFFIXES))} are looked for, at any depth)")
    return _image_set(source, tuple(ids), None, None, source=_Files(source.rstrip("/"), files, path.rstrip("/")))


def _image_set(place: str, ids: tuple[str, ...], labels: Any, boxes: Any, *, source: Any) -> ImageSet:
    return ImageSet(Path(place), ids, labels, boxes, source)


def _is_photo(name: str) -> bool:
    parts = PurePosixPath(name)
    return parts.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in parts.parts)


def _file_system(source: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, or of local files, and the path in it."""
    try:
        import fsspec
    except ImportError:
        raise missing_extra("fsspec", "cloud") from None
    with _told(source):
        try:
            files, path = fsspec.core.url_to_fs(source)
        except ImportError as error:  # the scheme is known, the package that speaks it is not installed
            raise missing_extra(error.name or "s3fs", "cloud") from None
    return files, str(path)


@contextmanager
def _told(source: str) -> Iterator[None]:
    """Whatever a store raises (each has exceptions of its own) as one line."""
    try:
        yield
    except EdgecsdError:
        raise
    except FileNotFoundError:
        raise BadInputError(f"{source}: there is nothing") from None
    except Exception as error:
        raise BadInputError(f"{source}: cannot be read: {type(error).__name__}: {first_line(error)}") from None


@dataclass(frozen=True)
class _Files:
    """Single files below a path of a file system."""

    place: str
    files: Any
    path: str

    def read(self, item: str) -> bytes:
        with _told_of_image(f"{self.place}/{item}"):
            return bytes(self.files.cat_file(f"{self.path}/{item}"))


@contextmanager
def _told_of_image(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ImageReadError(f"{name}: No such file or directory") from None
    except Exception as error:
        raise ImageReadError(f"{name}: {type(error).__name__}: {first_line(error)}") from None


def _from_tars(pattern: str) -> ImageSet:
    shards = expand_braces(pattern)
    members: dict[str, tuple[str, int, int]] = {}
    for shard in shards:
        files, path = _file_system(shard)
        stem = PurePosixPath(shard).stem
        with _told(shard), files.open(path, "rb") as handle:
            for name, start, size in _photos_of_tar(handle):
                if members.setdefault(f"{stem}/{name}", (shard, start, size)) != (shard, start, size):
                    raise BadInputError(f"{shard}: {stem}/{name} is there more than once")
    if not members:
        raise BadInputError(f"{pattern}: no image in it ({', '.join(sorted(SUFFIXES))} are looked for)")
    return _image_set(pattern, tuple(sorted(members)), None, None, source=_Tars(pattern, members))


def expand_braces(pattern: str) -> list[str]:
    """x-{008..010}.tar -> x-008.tar, x-009.tar, x-010.tar; a name without braces is itself."""
    found = BRACES.search(pattern)
    if found is None:
        return [pattern]
    first, last = found.groups()
    if int(first) > int(last):
        raise BadInputError(f"{pattern}: {{{first}..{last}}} goes backwards")
    names = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    return [each for name in names for each in expand_braces(pattern[: found.start()] + name + pattern[found.end() :])]


def _photos_of_tar(handle: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """(name, first byte, bytes) of each photo of an uncompressed tar: read later without looking for it again."""
    with tarfile.open(fileobj=handle, mode="r:") as tar:
        for member in tar:
            if member.isfile() and _is_photo(member.name.removeprefix("./")):
                yield member.name.removeprefix("./"), member.offset_data, member.size


@dataclass(frozen=True)
class _Tars:
    """Photos at known places of tar files."""

    place: str
    members: dict[str, tuple[str, int, int]] = field(repr=False)

    def read(self, item: str) -> bytes:
        shard, start, size = self.members[item]
        files, path = _file_system(shard)
        with _told_of_image(f"{shard}/{item}"):
            return bytes(files.cat_file(path, start=start, end=start + size))


def _from_parquet(source: str, files: Any, path: str, split: str | None) -> ImageSet:
    with _told(source), files.open(path, "rb") as handle:
        schema = pq.read_schema(handle)
        encoded = next((name for name in BYTES_COLUMNS if name in schema.names and _holds_bytes(schema, name)), None)
        known = [name for name in ("path", "id", "label", "split", *BOX_COLUMNS) if name in schema.names]
        table = pq.read_table(handle, columns=known)
    rows = [{name: "" if value is None else str(value) for name, value in row.items()} for row in table.to_pylist()]
    columns = list(known)
    if "path" not in columns and "id" in columns:
        columns = ["path" if name == "id" else name for name in columns]
        rows = [{("path" if name == "id" else name): value for name, value in row.items()} for row in rows]
    elif "path" not in columns and encoded is not None:
        columns, digits = ["path", *columns], len(str(table.num_rows))
        rows = [{"path": f"row-{number:0{digits}d}", **row} for number, row in enumerate(rows or [{}] * table.num_rows)]
    numbers = {row.get("path", ""): number for number, row in enumerate(rows)}
    found = of_rows(columns, rows, source, split)
    if encoded is not None:
        return _image_set(source, *found, source=_Parquet(source, files, path, encoded, numbers))
    if "://" not in source:
        return ImageSet(Path(source).parent, *found)
    place = source.rpartition("/")[0]
    return _image_set(place, *found, source=_Files(place, files, path.rpartition("/")[0]))


def _holds_bytes(schema: pa.Schema, name: str) -> bool:
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


@dataclass
class _Parquet:
    """Encoded photos in a column. A row group is in memory at a time: files of many small groups read best."""

    place: str
    files: Any
    path: str
    column: str
    numbers: dict[str, int] = field(repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _held: tuple[int, Any] = field(default=(-1, None), repr=False)

    @cached_property
    def _file(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.files.open(self.path, "rb"))

    @cached_property
    def _ends(self) -> list[int]:
        """Rows up to and with each row group."""
        ends, total = [], 0
        for group in range(self._file.num_row_groups):
            total += self._file.metadata.row_group(group).num_rows
            ends.append(total)
        return ends

    def read(self, item: str) -> bytes:
        row = self.numbers[item]
        with _told_of_image(f"{self.place}/{item}"), self._lock:
            group = next(number for number, end in enumerate(self._ends) if row < end)
            if self._held[0] != group:
                self._held = (group, self._file.read_row_group(group, columns=[self.column]).column(0))
            first = self._ends[group - 1] if group else 0
            value = self._held[1][row - first].as_py()
            value = value["bytes"] if isinstance(value, dict) else value
            if value is None:
                raise ValueError("the row has no photo")
            return bytes(value)
