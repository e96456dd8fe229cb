"""BenchRow: one artifact timed at one thread count. The one result schema: of this host, devices, browsers and other
tools. What a browser or a tool does not report is absent, never made up.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgecsd.errors import BadInputError

SCHEMA_VERSION = 2  # of 1 there were three shapes: old_rows.py
HOST_LABEL = "host CPU, not a phone"
OWN, PAGE = "edgecsd", "edgecsd's page"  # tools: bench_device.py on a host or device, the phone page in a browser
CONTENDED = 1.25  # wall / CPU time of all threads; alone on a core it is 1.0


class Frozen(BaseModel):
    """Frozen, and an unknown field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Status(StrEnum):
    """What became of a row."""

    OK = "ok"
    FAILED = "failed"  # it crashed, ran out of time, or gave wrong embeddings
    NOT_MEASURABLE = "not-measurable"  # this machine has no runtime for it


class BenchProtocol(Frozen):
    """How long is measured: at least `min_runs` runs and at least `min_seconds`, in `repeats` fresh processes."""

    name: Literal["quick", "report", "custom"]
    min_runs: Annotated[int, Field(ge=1)]
    min_seconds: Annotated[float, Field(ge=0)]
    repeats: Annotated[int, Field(ge=1)]

    @property
    def timeout_seconds(self) -> float:
        """When one process is given up: enough for a model of 2 s a run."""
        return 120.0 + 6.0 * self.min_seconds + 2.0 * self.min_runs


PROTOCOLS = {
    "quick": BenchProtocol(name="quick", min_runs=200, min_seconds=10.0, repeats=1),
    "report": BenchProtocol(name="report", min_runs=1024, min_seconds=60.0, repeats=3),
}


def choose_protocol(name: str, min_runs: int | None = None, min_seconds: float | None = None) -> BenchProtocol:
    """The protocol called `name`. Minima below its own make it "custom": a row must not claim what was not run."""
    if name not in PROTOCOLS:
        raise BadInputError(f"`protocol` {name} is not known; choose one of: {', '.join(PROTOCOLS)}")
    base = PROTOCOLS[name]
    runs = base.min_runs if min_runs is None else min_runs
    seconds = base.min_seconds if min_seconds is None else min_seconds
    if runs < 1:
        raise BadInputError(f"`min_runs` {runs}: 1 or more are needed")
    if not 0 <= seconds < 86400:
        raise BadInputError(f"`min_seconds` {seconds}: give 0 or more, below a day")
    named = base.name if runs >= base.min_runs and seconds >= base.min_seconds else "custom"
    return BenchProtocol(name=named, min_runs=runs, min_seconds=seconds, repeats=base.repeats)


class LatencyFigures(Frozen):
    """What one fresh process measured, batch 1, in milliseconds and KiB; None: the tool did not report it.

    import_ms, load_ms     of the runtime and of the file
    first_ms               the first inference
    cold_ms                from `cold_from` to the end of the first inference; the file may be in the page cache
    p50_ms .. mean_ms      warm inference, wall time; p99_ms only with 1000 runs or more
    estimate_ms            a time of which a tool does not say whether it is a mean, a median or the least
    cpu_ms, cpu_p50_ms     CPU time of all threads per warm inference: mean and median
    total_p50_ms, total_p90_ms   decode + resize + inference, image by image; None for synthetic images
    peak_kb                peak resident memory (VmHWM) of the process: Python, numpy and runtime are in it
    rss_*_kb, input_kb     resident before the runtime is imported, after load, at the end; the images that are cycled
    growth_kb              resident memory at the end above that at another tool's start
    """

    import_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    cold_ms: float | None = None
    cold_from: str = ""
    runs: int | None = None
    seconds: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    mean_ms: float | None = None
    estimate_ms: float | None = None
    cpu_ms: float | None = None
    cpu_p50_ms: float | None = None
    total_p50_ms: float | None = None
    total_p90_ms: float | None = None
    peak_kb: int | None = None
    rss_before_kb: int | None = None
    rss_loaded_kb: int | None = None
    rss_after_kb: int | None = None
    input_kb: int | None = None
    growth_kb: int | None = None

    @property
    def typical_ms(self) -> float | None:
        """The median; where a tool does not report it, its mean or what it calls its estimate."""
        return next((ms for ms in (self.p50_ms, self.mean_ms, self.estimate_ms) if ms is not None), None)

    @property
    def peak_mb(self) -> float | None:
        return None if self.peak_kb is None else self.peak_kb * 1024 / 1e6


# What edgecsd itself reports of every series.
MEASURED = ("load_ms", "first_ms", "cold_ms", "runs", "seconds", "p50_ms", "p90_ms", "p95_ms", "min_ms", "mean_ms")


class DeviceState(Frozen):
    """What a latency depends on at one moment: clocks in kHz, temperatures in degrees Celsius, power supplies."""

    khz: tuple[int, ...] = ()
    celsius: dict[str, float] = {}
    power: dict[str, str] = {}


class Repeat(Frozen):
    """One fresh process, or one series of a browser or another tool.

    wall_ns   every warm run in the order it ran, nanoseconds; nothing is dropped
    states    of a device, before and after the process
    load_average   of the machine in the minute before, where known: a busy machine explains a slow repeat
    """

    pid: int | None = None
    runtime: str
    warmup_runs: int | None = None
    warmup_settled: bool | None = None
    affinity: tuple[int, ...] | None = None
    frequency_khz: tuple[int | None, ...] = ()
    load_average: float | None = None
    states: tuple[DeviceState, ...] = ()
    figures: LatencyFigures
    wall_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...] = ()


class DecodeFigures(Frozen):
    """Decode + resize of the same photos: by the reference decoder in one thread of the host, or by the page."""

    decoder: str
    images: int | None = None
    p50_ms: float
    p90_ms: float | None = None
    cpu_p50_ms: float | None = None


class Parity(Frozen):
    """The embeddings of the measured process against the reference, over the same images."""

    reference: str
    images: int
    cosine_mean: float
    cosine_min: float
    max_difference: float
    norm_min: float
    norm_max: float


class Neighbours(Frozen):
    """How many of the reference's k nearest gallery items the measured embeddings find too, searched by the index."""

    index: str
    k: int
    overlap_mean: float
    overlap_min: float


PROVENANCES = {"measured": "measured on ", "emulated": "emulated on ", "imported": "imported: on "}
NOT_MEASURED = "not measured: "


class BenchRow(Frozen):
    """One artifact at one thread count, as one tool timed it.

    kind        measured; emulated: a time of an emulator says nothing about the device it stands for; imported: it was
                measured elsewhere, by another tool, and nobody here saw it
    tool        what timed it: OWN, PAGE or another tool's name
    backend     what computed, where there is a choice: wasm or webgpu in a browser, compute units, delegates
    sha256      of the artifact; "" where only a name is known
    figures     those of the repeat whose p90 is the median; None unless status is ok
    p90_spread  (largest - smallest) / median p90 of the repeats; None with one repeat
    provenance  "measured on <device>", "emulated on <device>", "imported: on <device>", "not measured: <device>"
    contended   the median wall time is well above the CPU time of all threads: others held the cores, so the wall times
                are the machine's, not the artifact's
    input       what was cycled: real photos, or made-up images; "" where it is not known
    reference   what parity was taken against
    parity      None where the tool gave no embeddings: such a row says nothing about their being right
    index       the gallery index of `neighbours`, "" where none was asked
    source      of an imported row: the file it was read from, with its digest
    """

    schema_version: Literal[2] = 2
    kind: Literal["measured", "emulated", "imported"] = "measured"
    tool: str = OWN
    backend: str = ""
    file: str
    sha256: str = ""
    size_bytes: int | None = None
    target: str = ""
    precision: str = ""
    status: Status
    reason: str = ""
    provenance: str
    label: str
    protocol: BenchProtocol | None = None
    threads: int | None = None
    oversubscribed: bool = False
    input: Literal["photos", "synthetic", ""] = ""
    input_count: int | None = None
    input_digest: str = ""
    decode: DecodeFigures | None = None
    figures: LatencyFigures | None = None
    contended: bool = False
    p90_spread: float | None = None
    repeats: tuple[Repeat, ...] = ()
    reference: str = ""
    parity: Parity | None = None
    index: str = ""
    neighbours: Neighbours | None = None
    source: str = ""
    environment: dict[str, str] = {}
    measured_at: str = ""
    imported_at: str = ""

    @model_validator(mode="after")
    def _whole(self) -> BenchRow:
        if (self.status is Status.OK) != (self.figures is not None):
            raise ValueError(f"status {self.status}: figures must be there if, and only if, it is ok")
        if self.status is not Status.OK and not self.reason:
            raise ValueError(f"status {self.status}: a reason is needed")
        if not self.provenance.startswith((PROVENANCES[self.kind], NOT_MEASURED)):
            raise ValueError(f"provenance {self.provenance!r}: {PROVENANCES[self.kind]}DEVICE is needed of {self.kind}")
        if self.figures is not None and self.tool in (OWN, PAGE):
            missing = [name for name in MEASURED if getattr(self.figures, name) is None]
            if missing := [*missing, *(["parity"] if self.parity is None else [])]:
                raise ValueError(f"{self.tool} reports {', '.join(missing)} of every row that is ok")
        return self

    @property
    def device(self) -> str:
        """What it was timed on; of a row that was not measured the provenance as it is."""
        return self.provenance.removeprefix(PROVENANCES[self.kind])

    @property
    def name(self) -> str:
        """The file's name, and what computed it."""
        counted = f"{self.threads} thread{'s' if self.threads != 1 else ''}" if self.threads is not None else ""
        return ", ".join(part for part in (Path(self.file).name, self.backend, counted) if part)

    def key(self) -> tuple[object, ...]:
        """What makes two rows the same measurement, so that a resumed bench may reuse one."""
        environment = tuple(sorted(self.environment.items()))
        facts = (self.sha256, self.threads, self.protocol, self.input_digest, self.reference, self.index)
        return (*facts, self.tool, self.backend, self.source, self.provenance, self.oversubscribed, environment)


class BenchResult(Frozen):
    """The rows of one call, by file and then by thread count; `out` is where they were written, if anywhere."""

    rows: tuple[BenchRow, ...]
    out: str | None = None

    @property
    def failed(self) -> tuple[BenchRow, ...]:
        return tuple(row for row in self.rows if row.status is Status.FAILED)
