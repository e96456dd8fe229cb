"""edgecsd bench import: what other tools measured elsewhere -> rows that say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecsd.bench.parity import compare, parity_problem, shape_problem
from edgecsd.bench.schema import Parity, Status
from edgecsd.bench.tool_formats import FORMATS, read_formats
from edgecsd.bench.tool_row import Reading, ToolRow, append_rows, artifact_fields, now
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.files import sha256_file
from edgecsd.targets.artifact import ArtifactMetadata, read_metadata

MOST_BYTES = 100_000_000
LABEL = "imported: measured elsewhere, by {tool}"


def import_rows(
    source: Path, *, artifact: Path | None = None, device: str = "", threads: int | None = None, out: Path | None = None
) -> list[ToolRow]:
    """The rows of a tool's result file; appended to `out` if it is given.

    artifact   the file that was measured: the row carries its digest, target and precision
    device     what it was measured on, where the result does not tell
    threads    the same

    Raises BadInputError for a format that is not known, naming those that are, and where the device stays unknown;
    IncompatibleError where the result names another file's digest than the artifact's.
    """
    readings = _read(source)
    metadata = None if artifact is None else read_metadata(artifact)
    rows = [_row(reading, source, artifact, metadata, device, threads) for reading in readings]
    if out is not None:
        append_rows(out, rows)
    return rows


def _read(source: Path) -> list[Reading]:
    if not source.is_file():
        raise BadInputError(f"{source}: no such file")
    if source.stat().st_size > MOST_BYTES:
        raise BadInputError(f"{source}: has {source.stat().st_size} bytes; no result of a benchmark has so many")
    readings = read_formats(source.read_bytes(), str(source))
    if readings is None:
        raise BadInputError(
            f"{source}: its format is not known; known are {', '.join(FORMATS)}. The reports that Xcode exports have "
            "no documented format: measure with the program of `edgecsd bench script` instead"
        )
    return readings


def _row(
    reading: Reading, source: Path, artifact: Path | None, metadata: ArtifactMetadata | None, device: str,
    threads: int | None,
) -> ToolRow:  # fmt: skip
    where = reading.device or device
    if not where:
        raise BadInputError(f"{source}: does not tell what it was measured on: say it with --on 'Pixel 8, Android 15'")
    if reading.device and device:
        raise BadInputError(f"{source}: says that it was measured on {reading.device}: leave --on out")
    _require_same_file(reading, source, artifact)
    parity, problem = _parity(reading, metadata)
    told: dict[str, Any] = {}
    if artifact is not None and metadata is not None:
        told = artifact_fields(artifact, metadata)
    fields: dict[str, Any] = {"file": Path(reading.model).name or "unknown", "sha256": reading.sha256, **told}
    return ToolRow(
        kind="imported", tool=reading.tool, status=Status.FAILED if problem else Status.OK, reason=problem,
        provenance=f"imported: on {where}", label=LABEL.format(tool=reading.tool),
        threads=reading.threads if reading.threads is not None else threads, compute_units=reading.compute_units,
        figures=None if problem else reading.figures, wall_ns=reading.wall_ns,
        reference="what edgecsd expected when it wrote the program" if parity else "", parity=parity,
        source=f"{source.name}, SHA-256 {sha256_file(source)}", imported_at=now(),
        environment={"system": reading.system} if reading.system else {}, **fields,
    )  # fmt: skip


def _require_same_file(reading: Reading, source: Path, artifact: Path | None) -> None:
    if artifact is not None and reading.sha256 and reading.sha256 != (found := sha256_file(artifact)):
        raise IncompatibleError(
            f"{source}: is of a file with the digest {reading.sha256[:16]}, and {artifact} has {found[:16]}: give the "
            "artifact that was measured"
        )


def _parity(reading: Reading, metadata: ArtifactMetadata | None) -> tuple[Parity | None, str]:
    """Of readings that hold embeddings: the parity, and why they are wrong or ""."""
    if not reading.embeddings:
        return None, ""
    widths = {len(vector) for vector in reading.embeddings + reading.expected}
    if len(widths) != 1 or len(reading.embeddings) != len(reading.expected):
        return None, "the embeddings have not the shape of the expected ones"
    found, expected = (np.array(each, np.float32) for each in (reading.embeddings, reading.expected))
    if problem := shape_problem(found, len(expected), metadata.dim if metadata else expected.shape[1]):
        return None, problem
    parity = compare(found, expected, "expected embeddings")
    return parity, parity_problem(parity)
