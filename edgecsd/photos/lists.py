"""Photos from a list (CSV, text, Parquet): paths, labels, splits and boxes."""

from __future__ import annotations

import csv
import io
import itertools
import posixpath
from collections.abc import Iterable
from pathlib import Path

from edgecsd.errors import BadInputError
from edgecsd.photos.boxes import Box, box_from_cells

BOX_COLUMNS = ("x1", "y1", "x2", "y2")


def _boxes_or_none(boxes: Iterable[Box | None]) -> tuple[Box | None, ...] | None:
    """None where no image has a box, so that equal sets are equal."""
    return found if any(found := tuple(boxes)) else None


def require_no_split(split: str | None, source: str, what: str) -> None:
    """Raise BadInputError where `split` is asked of what has no column."""
    if split is not None:
        raise BadInputError(f"`split` {split} needs a CSV list with a 'split' column; {source} is {what}")


Listed = tuple[tuple[str, ...], tuple[str, ...] | None, tuple[Box | None, ...] | None]


def listed(content: bytes, file: str, split: str | None) -> Listed:
    """(ids, labels, boxes) of a list's bytes, sorted by id."""
    if file.lower().endswith(".txt"):
        require_no_split(split, file, "a plain list")
        lines = _decoded(content, file).splitlines()
        return of_rows(["path"], [{"path": line.strip()} for line in lines if line.strip()], file, None)
    return of_rows(*_parsed(content, file), file, split)


def of_rows(columns: list[str], rows: list[dict[str, str]], file: str, split: str | None) -> Listed:
    """Ids, labels and boxes of rows that were read; `columns` names what they have."""
    if "path" not in columns:
        raise BadInputError(f"{file}: the header has no 'path' column (found: {', '.join(columns) or 'nothing'})")
    if split is not None:
        if "split" not in columns:
            raise BadInputError(f"{file}: `split` {split} needs a 'split' column")
        known = sorted({row["split"] for row in rows})
        rows = [row for row in rows if row["split"] == split]
        if not rows:
            raise BadInputError(f"{file}: no row has split {split!r}; there are: {', '.join(known)}")
    if not rows:
        raise BadInputError(f"{file}: the list is empty")
    for row in rows:
        row["path"] = _inside(row["path"], file)
    rows.sort(key=lambda row: row["path"])
    ids = tuple(row["path"] for row in rows)
    if len(set(ids)) != len(ids):
        twice = next(a for a, b in itertools.pairwise(ids) if a == b)
        raise BadInputError(f"{file}: {twice} is listed more than once")
    labels = tuple(row["label"] if row["label"].strip() else "" for row in rows) if "label" in columns else None
    return ids, labels, _listed_boxes(file, columns, rows)


def _listed_boxes(file: str, columns: list[str], rows: list[dict[str, str]]) -> tuple[Box | None, ...] | None:
    found = [name for name in BOX_COLUMNS if name in columns]
    if found and len(found) < len(BOX_COLUMNS):
        raise BadInputError(f"{file}: a box needs all columns {', '.join(BOX_COLUMNS)}; found only {', '.join(found)}")
    return _boxes_or_none(box_from_cells([row[n] for n in found], f"{file}: {row['path']}") for row in rows)


def read_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows of a CSV file with a header; a cell that a short row lacks is ""."""
    try:
        return _parsed(file.read_bytes(), str(file))
    except OSError as error:
        raise BadInputError(f"{file}: not readable as a UTF-8 CSV list: {error}") from None


def _parsed(content: bytes, file: str) -> tuple[list[str], list[dict[str, str]]]:
    try:
        reader = csv.DictReader(io.StringIO(_decoded(content, file), newline=""), restval="")
        return list(reader.fieldnames or []), list(reader)
    except csv.Error as error:
        raise BadInputError(f"{file}: not readable as a UTF-8 CSV list: {error}") from None


def _decoded(content: bytes, file: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{file}: not readable as a UTF-8 CSV list: {error}") from None


def _inside(path: str, file: str) -> str:
    """The normal form of a listed path, which must stay inside the list's folder."""
    if not path.strip() or "\0" in path:
        raise BadInputError(f"{file}: a row has no usable path: {path!r}")
    normal = posixpath.normpath(path)
    if posixpath.isabs(path) or normal == ".." or normal.startswith("../"):
        raise BadInputError(
            f"{file}: {path} lies outside the list's folder; paths are relative to that folder, without '..' out of it"
        )
    return normal
