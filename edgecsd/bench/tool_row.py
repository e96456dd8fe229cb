"""ToolRow: one artifact as another tool timed it. The names are BenchRow's; what the tool did not tell is absent."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from edgecsd.bench.schema import Frozen, Parity, Status
from edgecsd.errors import DamagedFileError
from edgecsd.files import replace_whole, sha256_file, size_bytes
from edgecsd.targets.artifact import ArtifactMetadata


class ToolFigures(Frozen):
    """Milliseconds and KiB, as Figures has them.

    estimate_ms   a time of which the tool does not say whether it is a mean, a median or the least
    growth_kb     resident memory at the end above that at the tool's start
    """

    runs: int | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    mean_ms: float | None = None
    estimate_ms: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    peak_kb: int | None = None
    growth_kb: int | None = None


class Reading(Frozen):
    """What one of a tool's results says. threads, device and model are "" or None where it does not tell."""

    tool: str
    figures: ToolFigures
    threads: int | None = None
    compute_units: str = ""
    device: str = ""
    system: str = ""
    model: str = ""
    wall_ns: tuple[int, ...] = ()
    embeddings: tuple[tuple[float, ...], ...] = ()
    expected: tuple[tuple[float, ...], ...] = ()
    sha256: str = ""


class ToolRow(Frozen):
    """One result of another tool.

    kind      imported: it was measured elsewhere, and nobody here saw it; measured: edgecsd ran the tool on the device
    sha256    of the artifact, "" where no file was given: such a row belongs to a name only
    parity    where the tool gave embeddings; without it the row says nothing about their being right
    """

    schema_version: Literal[1] = 1
    kind: Literal["imported", "measured", "emulated"]
    tool: str
    file: str
    sha256: str = ""
    size_bytes: int | None = None
    target: str = ""
    precision: str = ""
    status: Status = Status.OK
    reason: str = ""
    provenance: str
    label: str
    threads: int | None = None
    compute_units: str = ""
    figures: ToolFigures | None = None
    wall_ns: tuple[int, ...] = ()
    reference: str = ""
    parity: Parity | None = None
    source: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
    measured_at: str = ""
    imported_at: str = ""


def artifact_fields(file: Path, metadata: ArtifactMetadata) -> dict[str, Any]:
    """The fields of a row that follow from the artifact."""
    return {
        "file": str(file), "sha256": sha256_file(file), "size_bytes": size_bytes(file),
        "target": metadata.target.value, "precision": metadata.precision.value,
    }  # fmt: skip


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def append_rows(path: Path, rows: list[ToolRow]) -> None:
    """Add rows to a file of JSON lines; what is there must be such rows."""
    kept = read_tool_rows(path) if path.exists() else []
    with replace_whole(path) as temporary:
        temporary.write_text("".join(row.model_dump_json() + "\n" for row in [*kept, *rows]))


def read_tool_rows(path: Path) -> list[ToolRow]:
    """The rows of a file that append_rows wrote."""
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            rows.append(ToolRow.model_validate_json(line))
        except ValidationError:
            raise DamagedFileError(
                f"{path}, line {number}: is no imported row; give imported rows a file of their own with --out"
            ) from None
    return rows
