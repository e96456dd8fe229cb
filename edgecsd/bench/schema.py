"""BenchRow: one measured artifact at one thread count. The one result schema of every device."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgecsd.errors import BadInputError

SCHEMA_VERSION = 1
HOST_LABEL = "host CPU, not a phone"
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
        raise BadInputError(f"--protocol {name} is not known; choose one of: {', '.join(PROTOCOLS)}")
    base = PROTOCOLS[name]
    runs = base.min_runs if min_runs is None else min_runs
    seconds = base.min_seconds if min_seconds is None else min_seconds
    if runs < 1:
        raise BadInputError(f"--min-runs {runs}: 1 or more are needed")
    if not 0 <= seconds < 86400:
        raise BadInputError(f"--min-seconds {seconds}: give 0 or more, below a day")
    named = base.name if runs >= base.min_runs and seconds >= base.min_seconds else "custom"
    return BenchProtocol(name=named, min_runs=runs, min_seconds=seconds, repeats=base.repeats)


class Figures(Frozen):
    """What one fresh process measured, batch 1, in milliseconds and KiB.

    import_ms, load_ms     of the runtime and of the file
    first_ms               the first inference
    cold_ms                from `cold_from` to the end of the first inference; the file may be in the page cache
    p50_ms .. mean_ms      warm inference, wall time; p99_ms only with 1000 runs or more
    cpu_ms, cpu_p50_ms     CPU time of all threads per warm inference: mean and median
    total_p50_ms, total_p90_ms   decode + resize + inference, image by image; None for synthetic images
    peak_kb                peak resident memory (VmHWM) of the process: Python, numpy and runtime are in it
    rss_*_kb, input_kb     resident before the runtime is imported, after load, at the end; the images that are cycled
    """

    import_ms: float
    load_ms: float
    first_ms: float
    cold_ms: float
    cold_from: str
    runs: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float | None = None
    min_ms: float
    mean_ms: float
    cpu_ms: float
    cpu_p50_ms: float
    total_p50_ms: float | None = None
    total_p90_ms: float | None = None
    peak_kb: int | None = None
    rss_before_kb: int | None = None
    rss_loaded_kb: int | None = None
    rss_after_kb: int | None = None
    input_kb: int


class DeviceState(Frozen):
    """What a latency depends on at one moment: clocks in kHz, temperatures in degrees Celsius, power supplies."""

    khz: tuple[int, ...] = ()
    celsius: dict[str, float] = {}
    power: dict[str, str] = {}


class Repeat(Frozen):
    """One fresh process.

    wall_ns   every warm run in the order it ran, nanoseconds; nothing is dropped
    states    of a device, before and after the process
    load_average   of the machine in the minute before, where it tells: a busy machine explains a slow repeat
    """

    pid: int
    runtime: str
    warmup_runs: int
    warmup_settled: bool
    affinity: tuple[int, ...] | None = None
    frequency_khz: tuple[int | None, ...] = ()
    load_average: float | None = None
    states: tuple[DeviceState, ...] = ()
    figures: Figures
    wall_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...]


class DecodeFigures(Frozen):
    """Decode + resize of the same photos, by the reference decoder, in one thread of the host."""

    decoder: str
    images: int
    p50_ms: float
    p90_ms: float
    cpu_p50_ms: float


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


class BenchRow(Frozen):
    """One artifact at one thread count.

    figures     those of the repeat whose p90 is the median; None unless status is ok
    p90_spread  (largest - smallest) / median p90 of the repeats; None with one repeat
    kind        measured, or emulated: a time of an emulator says nothing about the device it stands for
    provenance  "measured on <device>"
    contended   the median wall time is well above the CPU time of all threads: others held the cores, so the wall times
                are the machine's, not the artifact's
    input       what was cycled: real photos, or made-up images
    reference   what parity was taken against
    index       the gallery index of `neighbours`, "" where none was asked
    """

    schema_version: Literal[1] = 1
    kind: Literal["measured", "emulated"] = "measured"
    file: str
    sha256: str
    size_bytes: int
    target: str
    precision: str
    status: Status
    reason: str = ""
    provenance: str
    label: str
    protocol: BenchProtocol
    threads: int
    oversubscribed: bool
    input: Literal["photos", "synthetic"]
    input_count: int
    input_digest: str
    decode: DecodeFigures | None = None
    figures: Figures | None = None
    contended: bool = False
    p90_spread: float | None = None
    repeats: tuple[Repeat, ...] = ()
    reference: str
    parity: Parity | None = None
    index: str = ""
    neighbours: Neighbours | None = None
    environment: dict[str, str]
    measured_at: str

    @model_validator(mode="after")
    def _figures_only_if_ok(self) -> BenchRow:
        if (self.status is Status.OK) != (self.figures is not None):
            raise ValueError(f"status {self.status}: figures must be there if, and only if, it is ok")
        if self.status is not Status.OK and not self.reason:
            raise ValueError(f"status {self.status}: a reason is needed")
        return self

    def key(self) -> tuple[object, ...]:
        """What makes two rows the same measurement, so that a resumed bench may reuse one."""
        environment = tuple(sorted(self.environment.items()))
        facts = (self.sha256, self.threads, self.protocol, self.input_digest, self.reference, self.index)
        return (*facts, self.provenance, self.oversubscribed, environment)


class BenchResult(Frozen):
    """The rows of one call, by file and then by thread count; `out` is where they were written, if anywhere."""

    rows: tuple[BenchRow, ...]
    out: str | None = None

    @property
    def failed(self) -> tuple[BenchRow, ...]:
        return tuple(row for row in self.rows if row.status is Status.FAILED)
