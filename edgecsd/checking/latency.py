"""How fast is the checked file? Rows of `edgecsd bench` of this very file, found beside it or given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgecsd.errors import BadInputError
from edgecsd.gate.facts import LatencyFacts
from edgecsd.measuring.rows import split_rows
from edgecsd.measuring.schema import NOT_MEASURED, BenchRow

ROWS_FILES = "bench*.jsonl"


def find_latency(file: Path, sha256: str, run: Path, given: Path | None) -> tuple[tuple[LatencyFacts, ...], str]:
    """The rows whose file has this SHA-256, and a note on what is not shown and why.

    given   a bench's result file; without one every ROWS_FILES beside the file, in its run and beside its run is read.
    Raises BadInputError for a given file that is no bench result; such a file that was only found is named in the note.
    """
    found: list[LatencyFacts] = []
    notes: list[str] = []
    others = 0
    for source in [given] if given is not None else _beside(file, run):
        try:
            rows, half = split_rows(source)
        except BadInputError as error:
            if given is not None:
                raise
            notes.append(f"not read: {error}")
            continue
        if half:
            notes.append(f"{source}: {half}")
        mine = [row for row in rows if row.sha256 == sha256]
        others += len(rows) - len(mine)
        found += (_facts(row, source) for row in mine)
    if others:
        notes.insert(0, f"rows not shown, of files with another SHA-256 than {sha256[:12]}: {others}")
    if not found:
        searched = f"`bench` {given}" if given is not None else "the run and the file's folder"
        notes.insert(0, f"no bench result of this very file in {searched}: measure it with edgecsd bench {file.name}")
    return tuple(found), "; ".join(notes)


def _beside(file: Path, run: Path) -> Iterator[Path]:
    """Result files where `edgecsd bench --out` usually writes them: in the run, beside the file, around the run."""
    folders = dict.fromkeys(path.resolve() for path in (run, run / "exports", file.parent, run.resolve().parent))
    for folder in folders:
        yield from sorted(path for path in folder.glob(ROWS_FILES) if path.is_file())


def _facts(row: BenchRow, source: Path) -> LatencyFacts:
    figures, parity = row.figures, row.parity
    return LatencyFacts(
        device=row.device,
        kind="not measured" if row.provenance.startswith(NOT_MEASURED) else row.kind,
        label=row.label,
        backend=row.backend,
        threads=row.threads,
        status=str(row.status),
        reason=row.reason,
        p50_ms=None if figures is None else figures.p50_ms,
        p90_ms=None if figures is None else figures.p90_ms,
        mean_ms=None if figures is None else figures.mean_ms,
        peak_mb=None if figures is None else figures.peak_mb,
        contended=row.contended,
        cosine_mean=None if parity is None else parity.cosine_mean,
        cosine_min=None if parity is None else parity.cosine_min,
        protocol="" if row.protocol is None else row.protocol.name,
        source=str(source),
        measured_at=row.measured_at or row.imported_at,
    )
