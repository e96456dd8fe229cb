"""Whether the weights that a Core ML program names lie in its weight file: nothing else reads them before a device."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from edgecsd.errors import DamagedFileError

MODEL_PATH = "@model_path/"  # in a program: the folder of its model.mlmodel
HEADER = struct.Struct("<IIQQ")  # mark, type, bytes of data, where they begin
MARK = 0xDEADBEEF


class Blob(NamedTuple):
    """A constant outside the program: the file as the program names it, where its header is, bytes its type needs."""

    file: str
    offset: int
    size_bytes: int


def require_whole(package: Path, folder: Path, blobs: Iterable[Blob]) -> None:
    """DamagedFileError unless every blob lies inside its file.

    folder   that of model.mlmodel in `package`, which stands in the error
    """
    files: dict[str, list[Blob]] = {}
    for blob in blobs:
        files.setdefault(blob.file, []).append(blob)
    for name, named in files.items():
        if problem := _problem(folder, name, named):
            raise DamagedFileError(f"{package}: not a whole .mlpackage: {problem}")


def _problem(folder: Path, name: str, blobs: list[Blob]) -> str:
    """What is wrong with a weight file; "" if nothing is."""
    short = name.removeprefix(MODEL_PATH)
    if short == name or ".." in Path(short).parts:
        return f"its program names weights in {name!r}, outside the package"
    file = folder / short
    if not file.is_file():
        return f"{short}, which holds its weights, is missing"
    length = file.stat().st_size
    with open(file, "rb") as handle:
        for blob in blobs:
            if blob.offset + HEADER.size > length:
                return _beyond(short, length, blob.offset + HEADER.size + blob.size_bytes)
            handle.seek(blob.offset)
            mark, _, size, begin = HEADER.unpack(handle.read(HEADER.size))
            if mark != MARK or size < blob.size_bytes:
                return f"{short} has no constant of {blob.size_bytes} bytes at byte {blob.offset}"
            if begin + size > length:
                return _beyond(short, length, begin + size)
    return ""


def _beyond(name: str, length: int, needed: int) -> str:
    return f"{name} has {length} bytes, and a constant reaches to byte {needed}"
