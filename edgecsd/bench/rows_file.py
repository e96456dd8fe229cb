"""The result file of a bench: JSON lines, a row each, written whole after every row so that a killed bench resumes."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from edgecsd.bench.schema import SCHEMA_VERSION, BenchRow, Status
from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.files import replace_whole


def read_rows(path: Path) -> list[BenchRow]:
    """The rows of a result file. Raises BadInputError if it is missing, DamagedFileError for a line that is no row."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such bench result") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path}: not readable as a bench result: {error}") from None
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _parse(line: str, where: str) -> BenchRow:
    try:
        return BenchRow.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise DamagedFileError(
            f"{where}: not a bench row of schema_version {SCHEMA_VERSION} ({field}: {first['msg']}); "
            "choose another --out, or add --overwrite to start anew"
        ) from None


class RowsFile:
    """The rows measured so far. Without a path they are kept in memory only."""

    def __init__(self, path: Path | None, *, overwrite: bool) -> None:
        self._path = path
        if path is not None and path.is_dir():
            raise BadInputError(f"{path}: is a folder; give a file name for the rows, such as {path / 'bench.jsonl'}")
        self._rows = read_rows(path) if path is not None and path.exists() and not overwrite else []

    def find(self, key: tuple[object, ...]) -> BenchRow | None:
        """An earlier row of the same measurement; a failed one is not reused, since its cause may be mended."""
        return next((row for row in self._rows if row.key() == key and row.status is not Status.FAILED), None)

    def add(self, row: BenchRow) -> None:
        """Append a row in place of an earlier one with the same key, and write the file."""
        self._rows = [earlier for earlier in self._rows if earlier.key() != row.key()] + [row]
        if self._path is not None:
            with replace_whole(self._path) as temporary:
                temporary.write_text("".join(each.model_dump_json() + "\n" for each in self._rows))
