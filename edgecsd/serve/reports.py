"""What a phone measured -> a row: checked, with its parity to the host's embeddings, kept as a line of JSON.

The names are those of edgecsd.bench.schema.BenchRow where both have the same thing. A browser tells neither CPU time
nor peak memory, so these are absent instead of made up.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from edgecsd import __version__
from edgecsd.bench.parity import compare, parity_problem, shape_problem
from edgecsd.bench.schema import PROTOCOLS, BenchProtocol, Frozen, Parity, Status
from edgecsd.files import sha256_file, size_bytes
from edgecsd.quantization import Precision
from edgecsd.serve.golden import GoldenPhotos
from edgecsd.targets.artifact import ArtifactMetadata

Milliseconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
MOST_RUNS = 5000
# To the same file on the host. Kernels of 8-bit activations may round a value in ten to the neighbouring step.
LEAST_COSINE = {Precision.FP32: 0.9999, Precision.W8A32: 0.9999, Precision.FP16: 0.999, Precision.W8A8: 0.995}
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


class PhoneFigures(Frozen):
    """As bench.schema.Figures, of what a browser can tell; decode_p50_ms: decode + resize of a golden photo."""

    import_ms: float
    load_ms: float
    first_ms: float
    cold_ms: float
    cold_from: str = COLD_FROM
    runs: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float | None
    min_ms: float
    mean_ms: float
    decode_p50_ms: float | None


class PhoneRow(Frozen):
    """One artifact in one browser, by one back end and thread count."""

    schema_version: Literal[1] = 1
    kind: Literal["measured"] = "measured"
    file: str
    sha256: str
    size_bytes: int
    target: str
    precision: str
    status: Status
    reason: str = ""
    provenance: str
    label: str = LABEL
    protocol: BenchProtocol
    threads: int
    backend: str
    input: str
    input_count: int
    input_digest: str
    figures: PhoneFigures | None = None
    warmup_runs: int
    warmup_settled: bool
    wall_ns: tuple[int, ...] = ()
    reference: str
    parity: Parity | None = None
    environment: dict[str, str]
    measured_at: str


class ReportBook:
    """Turns reports into rows, and appends each row to a file of JSON lines."""

    def __init__(self, model: Path, metadata: ArtifactMetadata, golden: GoldenPhotos, out: Path | None) -> None:
        self._model, self._metadata, self._golden, self._out = model, metadata, golden, out
        self.sha256, self.size = sha256_file(model), size_bytes(model)
        self.rows: list[PhoneRow] = []

    def add(self, report: PhoneReport) -> PhoneRow:
        """The row of a report, which is kept; a series with wrong embeddings becomes a failed row."""
        row = self._row(report)
        self.rows.append(row)
        if self._out is not None:
            line = row.model_dump_json() + "\n"
            with open(self._out, "a", encoding="utf-8") as handle:
                handle.write(line)
                handle.flush()
                os.fsync(handle.fileno())
        return row

    def _row(self, report: PhoneReport) -> PhoneRow:
        parity, problem = self._parity(report)
        seconds = sum(report.wall_ms) / 1000
        return PhoneRow(
            file=self._model.name, sha256=self.sha256, size_bytes=self.size, target=self._metadata.target,
            precision=self._metadata.precision, status=Status.FAILED if problem else Status.OK, reason=problem,
            provenance=f"measured on {report.user_agent}", protocol=_protocol(len(report.wall_ms), seconds),
            threads=report.threads, backend=report.backend, input=self._golden.kind,
            input_count=len(self._golden.files), input_digest=self._golden.digest,
            figures=None if problem else _figures(report, seconds), warmup_runs=report.warmup_runs,
            warmup_settled=report.warmup_settled, wall_ns=tuple(round(ms * 1e6) for ms in report.wall_ms),
            reference=self._golden.reference, parity=parity, environment=_environment(report),
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip

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
        with np.errstate(over="ignore"):
            embeddings = np.asarray(report.embeddings, np.float64).astype(np.float32)
        if problem := shape_problem(embeddings, len(self._golden.files), self._metadata.dim):
            return None, problem
        parity = compare(embeddings, self._golden.embeddings, self._golden.reference)
        return parity, parity_problem(parity) or self._rounding_problem(parity)

    def _rounding_problem(self, parity: Parity) -> str:
        """Why this is not the same file's result, or "": a back end that computes in 16 bit is seen here."""
        least = LEAST_COSINE[Precision(self._metadata.precision)]
        if parity.cosine_min >= least:
            return ""
        return (
            f"wrong embeddings: a cosine of {parity.cosine_min:.5f} to what the same file gives on the host; "
            f"{least} or more is expected of {self._metadata.precision}"
        )


def describe(row: PhoneRow) -> str:
    """One line for the terminal."""
    runtime = f"{row.environment['runtime']}, {row.backend}, {row.threads} thread{'s' if row.threads > 1 else ''}"
    if row.figures is None:
        return f"benchmark: {row.file}, {runtime}: failed: {row.reason}"
    figures, cosine = row.figures, row.parity.cosine_min if row.parity else float("nan")
    times = f"p50 {figures.p50_ms:.1f} ms, p90 {figures.p90_ms:.1f} ms, first {figures.first_ms:.0f} ms"
    return f"benchmark: {row.file}, {runtime}: {times}, {figures.runs} runs; cosine to the host's >= {cosine:.5f}"


def _figures(report: PhoneReport, seconds: float) -> PhoneFigures:
    times = np.array(report.wall_ms)
    p50, p90, p95, p99 = (float(value) for value in np.percentile(times, [50, 90, 95, 99]))
    return PhoneFigures(
        import_ms=report.import_ms, load_ms=report.load_ms, first_ms=report.first_ms, cold_ms=report.cold_ms,
        runs=len(times), seconds=seconds, p50_ms=p50, p90_ms=p90, p95_ms=p95,
        p99_ms=p99 if len(times) >= 1000 else None,
        min_ms=float(times.min()), mean_ms=float(times.mean()),
        decode_p50_ms=float(np.median(report.decode_ms)) if report.decode_ms else None,
    )  # fmt: skip


def _protocol(runs: int, seconds: float) -> BenchProtocol:
    """What was run, called "quick" only if it was enough for that."""
    quick = PROTOCOLS["quick"]
    if runs >= quick.min_runs and seconds >= quick.min_seconds:
        return quick
    return BenchProtocol(name="custom", min_runs=max(runs, 1), min_seconds=seconds, repeats=1)


def _environment(report: PhoneReport) -> dict[str, str]:
    known = {
        "runtime": report.runtime, "user agent": report.user_agent, "edgecsd": __version__,
        "cores": report.cores, "memory_gb": report.memory_gb, "isolated": report.isolated, "secure": report.secure,
        "clock_us": report.clock_us, "gpu": report.gpu or None,
    }  # fmt: skip
    return {name: str(value) for name, value in known.items() if value is not None}
