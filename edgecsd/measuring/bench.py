"""bench: artifacts and photos -> one row for each artifact and thread count."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgecsd.errors import BadInputError
from edgecsd.files.places import holding_out
from edgecsd.files.whole import save_array
from edgecsd.measuring.devices import Device, Job
from edgecsd.measuring.inputs import BenchInput, prepare_input
from edgecsd.measuring.measurement import measure_row, not_measurable_row, row_frame
from edgecsd.measuring.parity import NeighbourIndex, References
from edgecsd.measuring.rows import RowsFile
from edgecsd.measuring.schema import BenchProtocol, BenchResult, BenchRow, choose_protocol
from edgecsd.measuring.this_machine import Host
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.images import ImageSet
from edgecsd.progress import SILENT, Reporter
from edgecsd.targets.artifact import read_metadata
from edgecsd.targets.metadata import ArtifactMetadata


@holding_out
def bench(
    files: Sequence[Path],
    *,
    images: ImageSet | None = None,
    run: Path | None = None,
    threads: Sequence[int] = (1, 4),
    protocol: str = "quick",
    min_seconds: float | None = None,
    min_runs: int | None = None,
    timeout_seconds: float | None = None,
    device: Device | None = None,
    index: Path | str | None = None,
    k: int = 10,
    out: Path | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> BenchResult:
    """Measure each artifact at each thread count, batch 1, in a fresh process, with parity from the same runs.

    images           folder or CSV list (`split` keeps its rows) of photos; without it made-up images, and rows say so
    run              run folder whose query model is the reference of parity; see References.find for the default
    protocol         "quick": 200 runs and 10 s; "report": 1024 runs and 60 s, three repeats; smaller minima: "custom"
    timeout_seconds  for one process; by default enough for 2 s a run
    device           this machine by default; edgecsd.measuring.open_device gives others
    index            gallery index that the device's and the reference's embeddings are searched in, for `k` items
    out              JSON lines; rows in it are reused if file, input, settings, device and versions are the same

    A process that crashes, hangs or gives wrong embeddings makes a failed row; an artifact that this machine cannot run
    makes a row "not-measurable". Raises BadInputError or DamagedFileError, before anything is measured, for files that
    are no artifacts, and IncompatibleError for a `run` that an artifact was not exported from.
    """
    chosen = choose_protocol(protocol, min_runs, min_seconds)
    _require_work(files, threads, timeout_seconds)
    artifacts = [(file, read_metadata(file)) for file in files]
    neighbours = None if index is None else NeighbourIndex.open(index, k)
    if neighbours is not None:
        for file, metadata in artifacts:
            neighbours.require_space(metadata, file)
    rows, references = RowsFile(out, overwrite=overwrite), References(run)
    with tempfile.TemporaryDirectory(prefix="edgecsd-bench-") as folder:
        inputs, seconds = Inputs(images, Path(folder)), timeout_seconds or chosen.timeout_seconds
        place = device or Host()
        jobs = list(_jobs(artifacts, threads, chosen, inputs, references, seconds, place, neighbours))
        with reporter.task("measuring", len(jobs)) as advance:
            done = []
            for job in jobs:
                done.append(_one_row(job, rows, references, reporter))
                advance(1)
    return BenchResult(rows=tuple(done), out=None if out is None else str(out))


def _require_work(files: Sequence[Path], threads: Sequence[int], timeout_seconds: float | None) -> None:
    if not files:
        raise BadInputError("no artifact to measure: give one or more .onnx, .tflite or .mlpackage files")
    if not threads or min(threads) < 1 or len(set(threads)) != len(threads):
        raise BadInputError(f"`threads` {','.join(map(str, threads))}: give one or more different counts of 1 or more")
    if timeout_seconds is not None and timeout_seconds <= 0:
        raise BadInputError(f"`timeout_seconds` {timeout_seconds}: must be above 0")


class Inputs:
    """The prepared images of each pixel contract, and the .npy file that a measuring process reads them from."""

    def __init__(self, images: ImageSet | None, folder: Path) -> None:
        self._images, self._folder = images, folder
        self._ready: dict[Preprocess, tuple[BenchInput, Path]] = {}

    def of(self, preprocess: Preprocess) -> tuple[BenchInput, Path]:
        if preprocess not in self._ready:
            prepared = prepare_input(self._images, preprocess)
            file = self._folder / f"{prepared.digest[:16]}.npy"
            save_array(file, prepared.pixels)
            self._ready[preprocess] = prepared, file
        return self._ready[preprocess]


def _jobs(
    artifacts: Sequence[tuple[Path, ArtifactMetadata]],
    threads: Sequence[int],
    protocol: BenchProtocol,
    inputs: Inputs,
    references: References,
    timeout_seconds: float,
    device: Device,
    index: NeighbourIndex | None,
) -> Iterator[Job]:
    for file, metadata in artifacts:
        reference = references.find(file, metadata)
        images, pixels_file = inputs.of(metadata.input)
        for count in threads:
            yield Job(file, metadata, count, protocol, images, pixels_file, reference, timeout_seconds, device, index)


def _one_row(job: Job, rows: RowsFile, references: References, reporter: Reporter) -> BenchRow:
    frame = row_frame(job)
    name = f"{job.file.name}, {job.threads} thread{'s' if job.threads > 1 else ''}"
    if reason := job.device.not_measurable(job.metadata.target):
        row = not_measurable_row(job, frame, reason)
    elif earlier := rows.find(BenchRow.model_construct(**frame).key()):
        reporter.message(f"{name}: measured before, {earlier.measured_at}: reused")
        return earlier.model_copy(update={"file": str(job.file)})
    else:
        row = measure_row(job, frame, references)
    rows.add(row)
    reporter.message(f"{name}: {_outcome(row)}")
    return row


def _outcome(row: BenchRow) -> str:
    if row.figures is None:
        return f"{row.status}: {row.reason}"
    figures = row.figures
    busy = f"; the machine was busy: only {figures.cpu_p50_ms:.2f} ms of it is CPU time" if row.contended else ""
    return f"p50 {figures.p50_ms:.2f} ms, p90 {figures.p90_ms:.2f} ms, {figures.runs} runs{busy}"
