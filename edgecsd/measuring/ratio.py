"""How much slower one artifact is than another, measured interleaved: the only host timing a gate may use."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.files.whole import save_array
from edgecsd.measuring.child import ServingChild
from edgecsd.targets.artifact import read_metadata, session_options

PRECISE = 0.01  # standard error of the median over the ratio: two such ratios differ by 5 % in one of 2,000 cases
MOST_TIMES = 10  # as many blocks as were asked for, on a machine that is too busy for that precision
# Of a pair of processes; then come new ones. Two pairs gave 0.976 and 0.933, by more apart than their blocks.
BLOCKS_OF_A_PAIR = 5
MEDIAN_ERROR = 1.2533  # standard error of a median over that of a mean, of normal noise
NORMAL_MAD = 1.4826  # standard deviations in a median absolute deviation of normal noise


@dataclass(frozen=True)
class Ratio:
    """Thread CPU time of a / thread CPU time of b: 0.5 means that a takes half the time.

    ratio       median over the blocks
    low, high   the 10th and 90th percentile of the blocks
    a_ms, b_ms  median CPU time per inference, all threads, milliseconds
    """

    ratio: float
    low: float
    high: float
    a_ms: float
    b_ms: float
    threads: int
    blocks: int
    runs: int


def interleaved_ratio(
    a: Path,
    b: Path,
    pixels: NDArray[np.uint8],
    *,
    threads: int = 1,
    blocks: int = 20,
    runs: int = 5,
    warmup_seconds: float = 1.0,
    timeout_seconds: float = 120.0,
) -> Ratio:
    """Time a and b by turns in two processes, in blocks of a b b a with `runs` inferences each; then in two new ones.

    `blocks` are measured at least, and more until the ratio is PRECISE, up to MOST_TIMES as many. The order cancels a
    drift of the machine within a block, and CPU time does not count what others run; wall times of one after the other
    do not repeat on a shared machine. pixels: (n, S, S, 3) uint8, which both must take.
    Raises MeasurementFailedError, naming the file, if one of them cannot run.
    """
    for name, value in (("threads", threads), ("blocks", blocks), ("runs", runs)):
        if value < 1:
            raise BadInputError(f"{value} {name}: 1 or more are needed")
    options = {file: session_options(read_metadata(file)) for file in (a, b)}
    with tempfile.TemporaryDirectory(prefix="edgecsd-ratio-") as folder:
        pixels_file = Path(folder) / "pixels.npy"
        save_array(pixels_file, pixels)

        def child(file: Path) -> ServingChild:
            return ServingChild(
                file,
                pixels_file,
                threads=threads,
                session_options=options[file],
                timeout_seconds=timeout_seconds,
                warmup_seconds=warmup_seconds,
            )

        times: list[tuple[float, float]] = []
        while len(times) < blocks or (len(times) < MOST_TIMES * blocks and imprecision(times) > PRECISE):
            with child(a) as first, child(b) as second:
                times += [_block(first, second, runs) for _ in range(min(BLOCKS_OF_A_PAIR, blocks))]
    return _summarise(times, threads, runs)


def _block(a: ServingChild, b: ServingChild, runs: int) -> tuple[float, float]:
    """Median CPU nanoseconds of a and of b over one a b b a block."""
    before = a.run(runs)
    middle = b.run(runs) + b.run(runs)
    return statistics.median(before + a.run(runs)), statistics.median(middle)


def imprecision(times: list[tuple[float, float]]) -> float:
    """Standard error of the median of the blocks' ratios, over that median; infinite for fewer than three blocks."""
    if len(times) < 3:
        return float("inf")
    ratios = np.array([first / second for first, second in times])
    middle = float(np.median(ratios))
    scatter = NORMAL_MAD * float(np.median(np.abs(ratios - middle)))
    return float(MEDIAN_ERROR * scatter / len(ratios) ** 0.5 / middle)


def _summarise(times: list[tuple[float, float]], threads: int, runs: int) -> Ratio:
    ratios = [first / second for first, second in times]
    low, high = np.percentile(ratios, [10, 90])
    a_ms, b_ms = (statistics.median(column) / 1e6 for column in zip(*times, strict=True))
    return Ratio(statistics.median(ratios), float(low), float(high), a_ms, b_ms, threads, len(times), runs)
