"""Whole files or none: atomic writes, digests, manifests, and numbered parts that let a long step resume."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgecsd.errors import BadInputError, DamagedFileError


def named(path: Path) -> Path:
    """A path that ends in the place's name, which "." and ".." do not; BadInputError for a root, which has none."""
    if path.name not in ("", ".."):
        return path
    resolved = path.resolve()
    if not resolved.name:
        raise BadInputError(f"{path}: is the root of all folders, which is not written to; choose another `out`")
    return resolved


@contextmanager
def replace_whole(path: Path, *, tidy: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there (file or folder) takes its place on success.

    A folder is replaced by a folder only, a file by a file: else BadInputError.
    tidy: first delete what killed processes left of it, which takes a look at every name in the folder.
    """
    path = named(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if tidy:
        remove_stale(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    remove(temporary)
    try:
        yield temporary
        if path.exists() and temporary.exists() and path.is_dir() != temporary.is_dir():
            stands, made = ("folder", "file") if path.is_dir() else ("file", "folder")
            raise BadInputError(f"{path}: a {stands} is there, and a {made} would replace it; choose another name")
        _sync(temporary)
        if path.is_dir():
            retired = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(retired)
            try:
                temporary.rename(path)
            except BaseException:
                retired.rename(path)
                raise
            remove(retired)
        else:
            os.replace(temporary, path)
    finally:
        remove(temporary)


def remove_stale(path: Path) -> None:
    """Delete what `replace_whole(path)` left behind in processes that were killed.

    One that was killed between its two renames left nothing at `path`: what had stood there is put back.
    """
    leftovers, retired = [], []
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        owner = re.fullmatch(re.escape(f".{path.name}.") + r"(\d+)\.(tmp.*|old)", leftover.name)
        if owner and not _is_running(int(owner[1])):
            leftovers.append(leftover)
            if owner[2] == "old":
                retired.append(leftover)
    if retired and not os.path.lexists(path):
        max(retired, key=lambda leftover: leftover.stat().st_ctime_ns).rename(path)
    for leftover in leftovers:
        remove(leftover)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def remove(path: Path) -> None:
    """Delete a file or a folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())


def write_json(path: Path, value: Any) -> None:
    """Pretty JSON, written whole."""
    with replace_whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Parsed JSON; a missing or broken file is named."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8 or not JSON
        raise DamagedFileError(f"{path}: not readable as JSON: {error}") from None


def read_manifest(path: Path, kind: str, *schema_versions: int) -> dict[str, Any]:
    """The manifest of one of our folders; another kind or an unknown schema version is refused."""
    if not path.parent.is_dir():
        raise BadInputError(f"{path.parent}: no such {kind} (a folder is expected)")
    if not path.is_file():
        raise BadInputError(f"{path.parent}: not a {kind}: it has no {path.name}")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        raise DamagedFileError(f"{path}: not the manifest of a {kind}")
    if manifest.get("schema_version") not in schema_versions:
        raise DamagedFileError(
            f"{path}: schema_version {manifest.get('schema_version')!r} is unknown to this edgecsd, "
            f"which reads {' and '.join(map(str, schema_versions))}; use the edgecsd that wrote it or make the {kind} "
            f"again"
        )
    return manifest


def save_array(path: Path, array: NDArray[Any]) -> None:
    """A .npy file in C order. Not numpy.save, which on a full disk writes a shorter file without any error."""
    block = np.ascontiguousarray(array)
    with open(path, "wb") as handle:
        np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(block))
        handle.write(block.reshape(-1).view(np.uint8).data)


@contextmanager
def writing_array(
    path: Path, shape: tuple[int, ...], dtype: DTypeLike = np.float32
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Write a .npy of `shape` block by block: yields what appends one. Whole like save_array's files."""
    with open(path, "wb") as handle:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(handle, header)

        def append(rows: NDArray[Any]) -> None:
            handle.write(np.ascontiguousarray(rows, dtype).reshape(-1).view(np.uint8).data)

        yield append


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, or of a folder's relative paths and files in sorted order (.mlpackage)."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with open(file, "rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def require_digest(file: Path, wanted: str) -> None:
    """Raise DamagedFileError unless the file's SHA-256 is the one that its manifest names."""
    found = sha256_file(file)
    if found != wanted:
        raise DamagedFileError(
            f"{file}: its SHA-256 is {found}, the manifest says {wanted}: it was changed; make it again"
        )


def size_bytes(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def digest_of(value: object) -> str:
    """Hex SHA-256 of the canonical JSON of a plain value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class Parts:
    """A staging folder of numbered .npz parts for one long step; parts made under other settings are thrown away.

    The folder is `<final>.partial`. A part is either whole or absent, so a killed step goes on where it stopped.
    """

    def __init__(self, final: Path, settings: object) -> None:
        final = named(final)
        self.folder = final.with_name(final.name + ".partial")
        self._marker = self.folder / "settings.json"
        wanted = json.loads(json.dumps(settings))
        if not self._made_under(wanted):
            remove(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._marker.exists():
            write_json(self._marker, wanted)

    def _made_under(self, wanted: object) -> bool:
        try:
            return bool(read_json(self._marker) == wanted)
        except BadInputError:  # no marker, or a damaged one: the parts beside it prove nothing
            return False

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.npz"

    def has(self, number: int) -> bool:
        return self._path(number).is_file()

    def write(self, number: int, **arrays: NDArray[Any]) -> None:
        with replace_whole(self._path(number), tidy=False) as temporary, open(temporary, "wb") as handle:
            np.savez(handle, **arrays)  # type: ignore[arg-type]

    def read(self, number: int, *names: str) -> dict[str, NDArray[Any]]:
        """The arrays of a part, or only those that are named."""
        try:
            with open(self._path(number), "rb") as handle, np.load(handle, allow_pickle=False) as part:
                return {name: part[name] for name in names or part.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, KeyError) as error:
            raise DamagedFileError(
                f"{self._path(number)}: cannot be read ({error}); delete {self.folder} and start again"
            ) from None

    def discard(self) -> None:
        remove(self.folder)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces, the form that digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
