"""Is a new artifact worse on a device than the one before? Only figures that repeat on a busy machine decide.

Wall times of one artifact after the other differ by tens of percent from run to run, and no gate may rest on them. CPU
time measured by turns, peak memory of a fresh process, file size and the embeddings do repeat.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.files.whole import size_bytes
from edgecsd.measuring.inputs import prepare_input
from edgecsd.measuring.ratio import Ratio, interleaved_ratio
from edgecsd.measuring.schema import BenchResult, BenchRow, Status
from edgecsd.photos.images import ImageSet
from edgecsd.targets.artifact import read_metadata

LEAST_DISTANCE = 1e-4  # of embeddings to torch's: below it two artifacts are the same to every user


@dataclass(frozen=True)
class Change:
    """One figure of both artifacts. ratio: after / before; limit: the largest that passes, None where none was set."""

    name: str
    before: float
    after: float
    unit: str
    ratio: float
    limit: float | None
    low: float | None = None
    high: float | None = None

    @property
    def passed(self) -> bool:
        return self.limit is None or self.ratio <= self.limit


@dataclass(frozen=True)
class Comparison:
    """`after` beside `before`: file names, figures, and the CPU time by turns that the first of them comes from."""

    before: str
    after: str
    changes: tuple[Change, ...]
    cpu: Ratio

    @property
    def passed(self) -> bool:
        return all(change.passed for change in self.changes)


def compare_artifacts(
    result: BenchResult,
    images: ImageSet | None,
    *,
    max_regression: float | None = None,
    blocks: int = 20,
    runs: int = 5,
) -> Comparison:
    """The second artifact of a bench of two beside the first, at the first thread count.

    max_regression   share by which CPU time, peak memory, size and the embeddings' distance to torch's may grow
    Raises BadInputError unless two artifacts were measured, IncompatibleError where they don't take the same pixels.
    """
    before, after = _pair(result)
    first, second = (read_metadata(Path(row.file)) for row in (before, after))
    if (first.preprocess.size, first.baked) != (second.preprocess.size, second.baked):
        takes, other = (f"photos of {m.baked}" if m.baked else f"{m.preprocess.size} px" for m in (first, second))
        raise IncompatibleError(f"{before.file} takes {takes} and {after.file} {other}: they cannot be fed by turns")
    pixels = prepare_input(images, first.input).pixels
    cpu = interleaved_ratio(
        Path(after.file), Path(before.file), pixels, threads=before.threads or 1, blocks=blocks, runs=runs
    )
    limit = None if max_regression is None else 1 + max_regression
    changes = [Change("CPU time, by turns", cpu.b_ms, cpu.a_ms, "ms", cpu.ratio, limit, cpu.low, cpu.high)]
    if before.figures and after.figures and before.figures.peak_mb and after.figures.peak_mb:
        peaks = (before.figures.peak_mb, after.figures.peak_mb)
        changes.append(Change("peak memory", *peaks, "MB", peaks[1] / peaks[0], limit))
    sizes = (size_bytes(Path(before.file)) / 1e6, size_bytes(Path(after.file)) / 1e6)
    changes.append(Change("size", *sizes, "MB", sizes[1] / sizes[0], limit))
    if before.parity and after.parity:
        distances = (1 - before.parity.cosine_mean, 1 - after.parity.cosine_mean)
        floored = [max(LEAST_DISTANCE, distance) for distance in distances]
        changes.append(Change("distance to torch", *distances, "1 - cosine", floored[1] / floored[0], limit))
    return Comparison(before.file, after.file, tuple(changes), cpu)


def _pair(result: BenchResult) -> tuple[BenchRow, BenchRow]:
    files = list(dict.fromkeys(row.file for row in result.rows))
    if len(files) != 2:
        raise BadInputError(f"`interleave` compares two artifacts, the new one last; {len(files)} were given")
    threads = result.rows[0].threads
    before, after = (next(row for row in result.rows if (row.file, row.threads) == (file, threads)) for file in files)
    for row in (before, after):
        if row.status is not Status.OK:
            raise BadInputError(f"{row.file}: cannot be compared: {row.reason}")
    return before, after
