"""What a phone's page measured -> a row of bench: checked, with its parity to the host's embeddings, kept in a file.

A browser reports neither CPU time nor peak memory.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgecsd import __version__
from edgecsd.files.whole import sha256_file, size_bytes
from edgecsd.measuring.parity import NeighbourIndex, compare, parity_problem, shape_problem
from edgecsd.measuring.rows import RowsFile
from edgecsd.measuring.schema import (
    PAGE,
    PROTOCOLS,
    PROVENANCES,
    BenchProtocol,
    BenchRow,
    DecodeFigures,
    Frozen,
    LatencyFigures,
    Parity,
    Repeat,
    Status,
)
from edgecsd.serve.golden_photos import GoldenPhotos
from edgecsd.targets.metadata import ArtifactMetadata

Milliseconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
MOST_RUNS = 5000
LABEL = "browser; wall time only"
COLD_FROM = "import of the runtime in a new frame; files may be in the browser's cache"


class PhoneReport(Frozen):
    """What the page sends after one series; `failure` says why there is none."""

    runtime: Annotated[str, Field(max_length=60)]
    backend: Literal["wasm", "webgpu"]
    threads: Annotated[int, Field(ge=1, le=256)]
    user_agent: Annotated[str, Field(max_length=400)]
    cores: Annotated[int, Field(ge=1, le=4096)] | None = None
    memory_gb: Annotated[float, Field(gt=0, le=4096)] | None = None
    isolated: bool
    secure: bool
    clock_us: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    gpu: Annotated[str, Field(max_length=120)] = ""
    model_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    failure: Annotated[str, Field(max_length=400)] = ""
    import_ms: Milliseconds = 0.0
    load_ms: Milliseconds = 0.0
    first_ms: Milliseconds = 0.0
    cold_ms: Milliseconds = 0.0
    warmup_runs: Annotated[int, Field(ge=0, le=MOST_RUNS)] = 0
    warmup_settled: bool = False
    wall_ms: Annotated[tuple[Milliseconds, ...], Field(max_length=MOST_RUNS)] = ()
    decode_ms: Annotated[tuple[Milliseconds, ...], Field(max_length=64)] = ()
    embeddings: Annotated[tuple[tuple[float, ...], ...], Field(max_length=64)] = ()


class ReportBook:
    """Turns reports into rows, and appends each row to a file of JSON lines.

    neighbours  the gallery index, searched with the phone's embeddings and the host's
    Raises DamagedFileError where `out` is there and holds anything else than rows.
    """

    def __init__(
        self,
        model: Path,
        metadata: ArtifactMetadata,
        golden: GoldenPhotos,
        out: Path | None,
        neighbours: NeighbourIndex | None = None,
    ) -> None:
        self._model, self._metadata, self._golden, self._neighbours = model, metadata, golden, neighbours
        self.sha256, self.size = sha256_file(model), size_bytes(model)
        self.rows: list[BenchRow] = []
        self._kept = RowsFile(out)

    def add(self, report: PhoneReport) -> BenchRow:
        """The row of a report, which is kept; a series with wrong embeddings becomes a failed row."""
        row = self._row(report)
        self.rows.append(row)
        self._kept.append(row)
        return row

    def _row(self, report: PhoneReport) -> BenchRow:
        parity, problem = self._parity(report)
        figures = None if problem else _figures(report)
        neighbours = None
        if figures is not None and self._neighbours is not None:
            neighbours = self._neighbours.compare(_vectors(report), self._golden.embeddings)
        return BenchRow(
            tool=PAGE,
            backend=report.backend,
            file=self._model.name,
            sha256=self.sha256,
            size_bytes=self.size,
            target=self._metadata.target,
            precision=self._metadata.precision,
            status=Status.FAILED if problem else Status.OK,
            reason=problem,
            provenance=f"{PROVENANCES['measured']}{report.user_agent}",
            label=LABEL,
            protocol=_protocol(len(report.wall_ms), sum(report.wall_ms) / 1000),
            threads=report.threads,
            input=self._golden.kind,
            input_count=len(self._golden.files),
            input_digest=self._golden.digest,
            decode=_decode(report),
            figures=figures,
            repeats=_repeats(report, figures),
            reference=self._golden.reference,
            parity=parity,
            neighbours=neighbours,
            index=self._neighbours.name if self._neighbours else "",
            environment=_environment(report),
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _parity(self, report: PhoneReport) -> tuple[Parity | None, str]:
        """The parity, and why the row failed or ""."""
        if report.failure:
            return None, report.failure
        if report.model_sha256 != self.sha256:
            return None, "the phone ran another model file than the one that is served now: reload the page"
        if not report.wall_ms:
            return None, "the report holds no times"
        lengths = {len(vector) for vector in report.embeddings}
        if lengths != {self._metadata.dim}:
            return None, f"embeddings of {sorted(lengths)} numbers; the artifact gives {self._metadata.dim}"
        embeddings = _vectors(report)
        if problem := shape_problem(embeddings, len(self._golden.files), self._metadata.dim):
            return None, problem
        parity = compare(embeddings, self._golden.embeddings, self._golden.reference)
        return parity, parity_problem(parity, self._metadata.precision, same_file=True)


def describe(row: BenchRow) -> str:
    """One line for the terminal."""
    runtime = f"{row.environment['runtime']}, {row.backend}, {row.threads} thread{'s' if row.threads != 1 else ''}"
    if row.figures is None:
        return f"benchmark: {row.file}, {runtime}: failed: {row.reason}"
    figures, cosine = row.figures, row.parity.cosine_min if row.parity else float("nan")
    times = f"p50 {figures.p50_ms:.1f} ms, p90 {figures.p90_ms:.1f} ms, first {figures.first_ms:.0f} ms"
    return f"benchmark: {row.file}, {runtime}: {times}, {figures.runs} runs; cosine to the host's >= {cosine:.5f}"


def _vectors(report: PhoneReport) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 is infinity, which is reported as such
        return np.asarray(report.embeddings, np.float64).astype(np.float32)


def _figures(report: PhoneReport) -> LatencyFigures:
    times = np.array(report.wall_ms)
    p50, p90, p95, p99 = (float(value) for value in np.percentile(times, [50, 90, 95, 99]))
    return LatencyFigures(
        import_ms=report.import_ms,
        load_ms=report.load_ms,
        first_ms=report.first_ms,
        cold_ms=report.cold_ms,
        cold_from=COLD_FROM,
        runs=len(times),
        seconds=float(times.sum()) / 1000,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99 if len(times) >= 1000 else None,
        min_ms=float(times.min()),
        mean_ms=float(times.mean()),
    )


def _repeats(report: PhoneReport, figures: LatencyFigures | None) -> tuple[Repeat, ...]:
    if figures is None:
        return ()
    series = tuple(round(ms * 1e6) for ms in report.wall_ms)
    return (
        Repeat(
            runtime=report.runtime,
            warmup_runs=report.warmup_runs,
            warmup_settled=report.warmup_settled,
            figures=figures,
            wall_ns=series,
        ),
    )


def _decode(report: PhoneReport) -> DecodeFigures | None:
    """Decode + resize of the golden photos by the page."""
    if not report.decode_ms:
        return None
    p50, p90 = np.percentile(report.decode_ms, [50, 90])
    return DecodeFigures(decoder=PAGE, images=len(report.decode_ms), p50_ms=float(p50), p90_ms=float(p90))


def _protocol(runs: int, seconds: float) -> BenchProtocol:
    """What was run, called "quick" only if it was enough for that."""
    quick = PROTOCOLS["quick"]
    if runs >= quick.min_runs and seconds >= quick.min_seconds:
        return quick
    return BenchProtocol(name="custom", min_runs=max(runs, 1), min_seconds=seconds, repeats=1)


def _environment(report: PhoneReport) -> dict[str, str]:
    known = {
        "runtime": report.runtime,
        "user agent": report.user_agent,
        "edgecsd": __version__,
        "cores": report.cores,
        "memory_gb": report.memory_gb,
        "isolated": report.isolated,
        "secure": report.secure,
        "clock_us": report.clock_us,
        "gpu": report.gpu or None,
    }
    return {name: str(value) for name, value in known.items() if value is not None}
