"""Reading: what another tool's result says of one artifact, before it becomes a row."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgecsd.bench.schema import Figures, Frozen, Repeat
from edgecsd.files.whole import sha256_file, size_bytes
from edgecsd.targets.metadata import ArtifactMetadata


class Reading(Frozen):
    """threads, device and model are "" or None where the tool does not tell; wall_ns: its raw series, where it does."""

    tool: str
    figures: Figures
    threads: int | None = None
    backend: str = ""
    device: str = ""
    system: str = ""
    model: str = ""
    wall_ns: tuple[int, ...] = ()
    embeddings: tuple[tuple[float, ...], ...] = ()
    expected: tuple[tuple[float, ...], ...] = ()
    sha256: str = ""

    @property
    def repeats(self) -> tuple[Repeat, ...]:
        """The raw series as a row keeps it; none where the tool gave none."""
        return (Repeat(runtime=self.tool, figures=self.figures, wall_ns=self.wall_ns),) if self.wall_ns else ()


def artifact_fields(file: Path, metadata: ArtifactMetadata) -> dict[str, Any]:
    """The fields of a row that follow from the artifact."""
    return {
        "file": str(file), "sha256": sha256_file(file), "size_bytes": size_bytes(file),
        "target": metadata.target.value, "precision": metadata.precision.value,
    }  # fmt: skip


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
