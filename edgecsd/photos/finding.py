"""From a folder, list, archive or URL to an ImageSet."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from edgecsd.errors import BadInputError
from edgecsd.photos.images import SUFFIXES, ImageSet
from edgecsd.photos.lists import listed, require_no_split


def find_images(source: Path | str, *, split: str | None = None) -> ImageSet:
    """The images of a folder (searched to any depth, sorted by id), of a list, a Parquet file, or tars; maybe by URL.

    A .csv list has a header with `path` (relative to the list's folder) and optionally `label`, `split` and the box
    x1, y1, x2, y2 (pixels of the upright image; four numbers or four blanks); `split` keeps the rows of that split.
    A .txt list has a path a line. Others, and URLs such as s3://bucket/photos: edgecsd.photos.elsewhere.
    """
    return replace(_find(source, split), given=str(source), split=split)


def _find(source: Path | str, split: str | None) -> ImageSet:
    text, source = _as_given(source), Path(source)
    suffix = source.suffix.lower()
    if "://" in text or suffix in (".tar", ".parquet"):
        from edgecsd.photos.elsewhere import find_elsewhere  # it imports this module

        return find_elsewhere(text, split)
    if source.is_dir():
        require_no_split(split, text, "a folder")
        return _from_folder(source)
    if not source.exists():
        raise BadInputError(f"{source}: no such folder or list of images")
    if suffix not in (".csv", ".txt"):
        raise BadInputError(
            f"{source}: images are given as a folder, a .csv list with a 'path' column, a .txt list, a .parquet file, "
            f".tar files or a URL of any of these"
        )
    return ImageSet(source.parent, *listed(source.read_bytes() if source.is_file() else b"", str(source), split))


def _as_given(source: Path | str) -> str:
    """A URL that became a Path has lost a slash."""
    text = str(source)
    return text if Path(text).exists() else re.sub(r"^([a-z][a-z0-9+.-]+):/(?=[^/])", r"\1://", text)


def _from_folder(folder: Path) -> ImageSet:
    found: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=_refuse_folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                found.append((Path(parent) / name).relative_to(folder).as_posix())
    if not found:
        suffixes = ", ".join(sorted(SUFFIXES))
        raise BadInputError(f"{folder}: no image in it ({suffixes} are looked for, in sub-folders too)")
    return ImageSet(folder, tuple(sorted(found)))


def _refuse_folder(error: OSError) -> None:
    raise BadInputError(f"{error.filename}: cannot be listed: {error.strerror}")
