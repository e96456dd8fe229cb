"""The result file of a bench: JSON lines, a row each. It outlives kills: rewritten whole, or a line appended.

Rows of schema_version 1, which had three shapes, are read as rows of today.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.files.whole import replace_whole
from edgecsd.measuring.schema import PAGE, SCHEMA_VERSION, BenchRow, Status
from edgecsd.progress import SILENT, Reporter


def read_rows(path: Path, reporter: Reporter = SILENT) -> list[BenchRow]:
    """The rows of a result file; a half line at its end, which a killed process left, is passed over and reported.

    Raises BadInputError if it is missing, DamagedFileError for a line that is no row.
    """
    rows, half = split_rows(path)
    if half:
        reporter.message(f"{path}: {half}")
    return rows


def split_rows(path: Path) -> tuple[list[BenchRow], str]:
    """The rows of a result file, and a note about a half line at its end, or ""; errors as of `read_rows`."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such bench result") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path}: not readable as a bench result: {error}") from None
    lines, half = text.splitlines(), ""
    if lines and not text.endswith("\n") and not _is_json(lines[-1]):
        lines.pop()
        half = "its last line is half a row, which a process that was killed left; it is left out"
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()], half


def _parse(line: str, where: str) -> BenchRow:
    try:
        return BenchRow.model_validate_json(json.dumps(as_row_of_today(json.loads(line))))
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(str(part) for part in first['loc']) or 'the line'}: {first['msg']}"
    except ValueError as error:
        problem = f"the line: {error}"
    raise DamagedFileError(f"{where}: not a bench row of schema_version {SCHEMA_VERSION} ({problem})")


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


class RowsFile:
    """The rows measured so far. Without a path they are kept in memory only."""

    def __init__(self, path: Path | None, *, overwrite: bool = False) -> None:
        self._path = path
        if path is not None and path.is_dir():
            raise BadInputError(f"{path}: is a folder; give a file name for the rows, such as {path / 'bench.jsonl'}")
        self._rows = _earlier(path) if path is not None and path.exists() and not overwrite else []
        self._whole = path is None or not path.exists() or (not overwrite and _ends_with_a_line(path))

    def find(self, key: tuple[object, ...]) -> BenchRow | None:
        """An earlier row of the same measurement; a failed one is not reused, since its cause may be mended."""
        return next((row for row in self._rows if row.key() == key and row.status is not Status.FAILED), None)

    def add(self, row: BenchRow) -> None:
        """Append a row in place of an earlier one with the same key, and write the file."""
        self._rows = [earlier for earlier in self._rows if earlier.key() != row.key()] + [row]
        self._write()

    def append(self, row: BenchRow) -> None:
        """Append a row beside all earlier ones; it is on the disk when this returns."""
        self._rows.append(row)
        if self._path is None or not self._whole:
            self._write()
            return
        with open(self._path, "a", encoding="utf-8") as handle:
            handle.write(row.model_dump_json() + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    def _write(self) -> None:
        if self._path is not None:
            with replace_whole(self._path) as temporary:
                temporary.write_text("".join(each.model_dump_json() + "\n" for each in self._rows))
            self._whole = True


def _earlier(path: Path) -> list[BenchRow]:
    try:
        return read_rows(path)
    except DamagedFileError as error:
        raise DamagedFileError(f"{error}; choose another `out`, or add `overwrite` to start anew") from None


def _ends_with_a_line(path: Path) -> bool:
    content = path.read_bytes()
    return not content or content.endswith(b"\n")


def as_row_of_today(document: Any) -> Any:
    """A parsed line; what is no row of schema_version 1 stays as it is, for the schema to judge."""
    if not isinstance(document, dict) or document.get("schema_version") != 1:
        return document
    row = {**document, "schema_version": SCHEMA_VERSION}
    if "tool" in row:
        row["backend"] = row.pop("compute_units", "")
        return _with_series(row, row["tool"])
    if "backend" in row:
        row["tool"] = PAGE
        figures = row.get("figures")
        if isinstance(figures, dict) and (p50_ms := figures.pop("decode_p50_ms", None)) is not None:
            row["decode"] = {"decoder": PAGE, "p50_ms": p50_ms}
        warmup = {name: row.pop(name, None) for name in ("warmup_runs", "warmup_settled")}
        return _with_series(row, row.get("environment", {}).get("runtime", ""), **warmup)
    return row


def _with_series(row: dict[str, Any], runtime: str, **more: Any) -> dict[str, Any]:
    """The raw series, which lay in the row itself, as its only repeat."""
    wall_ns, figures = row.pop("wall_ns", ()), row.get("figures")
    if wall_ns and figures is not None:
        row["repeats"] = [{"runtime": runtime, "figures": figures, "wall_ns": wall_ns, **more}]
    return row
