"""The digest of a whole artifact, which stands inside it: over every byte but those of the digest itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from edgecsd.errors import EdgecsdError

UNSEALED = "0" * 64  # stands in the metadata while a converter writes the file, and for the digest in what is digested
# Every format keeps the metadata's JSON as it is; Core AI's is a string in another JSON, with its quotes escaped
PLACE = re.compile(rb'content_digest\\?":\\?"([0-9a-f]{64})\\?"')


def seal(path: Path) -> str:
    """Write the digest of the artifact at `path` into it, where its metadata has UNSEALED. Returns the digest."""
    digest, places = _digest(path)
    if len(places) != 1:
        raise EdgecsdError(
            f"{path.name}: the converter wrote {len(places)} places for the digest of its content, not 1"
        )
    file, begin = places[0]
    with open(file, "r+b") as handle:
        handle.seek(begin)
        handle.write(digest.encode())
    return digest


def content_digest(path: Path) -> str | None:
    """Hex SHA-256 of a sealed artifact's bytes with UNSEALED for its digest; None unless it has one place for that.

    Of a folder: of relative paths and files in sorted order, as `sha256_file` takes them.
    """
    digest, places = _digest(path)
    return digest if len(places) == 1 else None


def _digest(path: Path) -> tuple[str, list[tuple[Path, int]]]:
    """The digest, and the files and positions of the digests that stand inside."""
    digest, places = hashlib.sha256(), []
    for file in _files(path):
        if file != path:
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        data = bytearray(file.read_bytes())
        for found in list(PLACE.finditer(data)):
            begin, end = found.span(1)
            places.append((file, begin))
            data[begin:end] = UNSEALED.encode()
        digest.update(data)
    return digest.hexdigest(), places


def _files(path: Path) -> Iterator[Path]:
    yield from [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
