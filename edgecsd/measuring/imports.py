"""edgecsd bench import: what other tools measured elsewhere -> rows that say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.files.whole import sha256_file
from edgecsd.measuring.parity import NeighbourIndex, compare, parity_problem, shape_problem
from edgecsd.measuring.rows import RowsFile
from edgecsd.measuring.schema import PROVENANCES, BenchRow, Parity, Status
from edgecsd.measuring.tool_formats import FORMATS, Reading, artifact_fields, now, read_formats
from edgecsd.targets.artifact import read_metadata
from edgecsd.targets.metadata import ArtifactMetadata

MOST_BYTES = 100_000_000
LABEL = "imported: measured elsewhere, by {tool}"


def import_rows(
    source: Path,
    *,
    artifact: Path | None = None,
    device: str = "",
    threads: int | None = None,
    index: Path | str | None = None,
    k: int = 10,
    out: Path | None = None,
) -> list[BenchRow]:
    """The rows of a tool's result file; appended to `out` if it is given.

    artifact   the file that was measured: the row carries its digest, target and precision
    device     what it was measured on, where the result does not say it
    threads    the same
    index      gallery index that embeddings of the result, where it holds some, are searched in for `k` items

    Raises BadInputError for a format that is not known, naming those that are, and where the device stays unknown;
    IncompatibleError where the result names another file's digest than the artifact's.
    """
    readings, kept = _read(source), RowsFile(out)
    metadata = None if artifact is None else read_metadata(artifact)
    searched = None if index is None else NeighbourIndex.open(index, k)
    if searched is not None and artifact is not None and metadata is not None:
        searched.require_space(metadata, artifact)
    rows = [_row(reading, source, artifact, metadata, device, threads, searched) for reading in readings]
    for row in rows:
        kept.append(row)
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
    reading: Reading,
    source: Path,
    artifact: Path | None,
    metadata: ArtifactMetadata | None,
    device: str,
    threads: int | None,
    index: NeighbourIndex | None,
) -> BenchRow:
    where = reading.device or device
    if not where:
        raise BadInputError(f"{source}: does not say what it was measured on: give it with `on` 'Pixel 8, Android 15'")
    if reading.device and device:
        raise BadInputError(f"{source}: says that it was measured on {reading.device}: leave `on` out")
    _require_same_file(reading, source, artifact)
    parity, problem = _parity(reading, metadata)
    found, expected = (np.array(each, np.float32) for each in (reading.embeddings, reading.expected))
    neighbours = index.compare(found, expected) if index is not None and parity is not None and not problem else None
    known: dict[str, Any] = {}
    if artifact is not None and metadata is not None:
        known = artifact_fields(artifact, metadata)
    fields: dict[str, Any] = {"file": Path(reading.model).name or "unknown", "sha256": reading.sha256, **known}
    return BenchRow(
        kind="imported",
        tool=reading.tool,
        status=Status.FAILED if problem else Status.OK,
        reason=problem,
        provenance=f"{PROVENANCES['imported']}{where}",
        label=LABEL.format(tool=reading.tool),
        threads=reading.threads if reading.threads is not None else threads,
        backend=reading.backend,
        figures=None if problem else reading.figures,
        repeats=() if problem else reading.repeats,
        reference="what edgecsd expected when it wrote the program" if parity else "",
        parity=parity,
        index=index.name if index and neighbours else "",
        neighbours=neighbours,
        source=f"{source.name}, SHA-256 {sha256_file(source)}",
        imported_at=now(),
        environment={"system": reading.system} if reading.system else {},
        **fields,
    )


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
    return parity, parity_problem(parity, metadata.precision if metadata else None, same_file=False)
