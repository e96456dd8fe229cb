"""Soak: one long measurement cut into windows; whether, when and by how much it became slower, and of what kind it is.

A phone that is hot lowers its clock: the same work takes more CPU time. Where wall time grows and CPU time does not,
something else took the processor: another program, or a quota. The change point is the split of the windows' medians
into two levels that leaves the least absolute deviation (least absolute deviations of a step function; Bai, "Estimation
of a change point in multiple regression models", Review of Economics and Statistics 1997, for the squared form); it
counts only if the later level is higher by SLOWER and by more than the windows scatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.measuring.schema import BenchRow

SLOWER = 1.05  # the later level over the earlier one
SCATTERS = 4.0  # standard errors between the levels
FEWEST = 8  # windows
EDGE = 2  # windows on each side of a change, at least
SAME_CLOCK = 0.5  # of the slowdown in wall time: CPU time that grew by less did not cause it
NORMAL_MAD = 1.4826  # standard deviations in a median absolute deviation of normal noise

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """start: seconds of measuring before it; p50_ms, p90_ms: wall time; cpu_p50_ms: of all threads."""

    start: float
    runs: int
    p50_ms: float
    p90_ms: float
    cpu_p50_ms: float


@dataclass(frozen=True)
class Soak:
    """onset: seconds after which it was slower for good; None where it was not. slowdown: later level / earlier one."""

    windows: tuple[Window, ...]
    window_seconds: float
    onset: float | None
    before_ms: float
    after_ms: float
    slowdown: float
    cpu_slowdown: float

    @property
    def cause(self) -> str:
        """In words, "" where it did not become slower."""
        if self.onset is None:
            return ""
        if self.cpu_slowdown - 1 >= SAME_CLOCK * (self.slowdown - 1):
            return "CPU time grew as well: a lower clock, as of a device that is hot"
        return "CPU time did not grow as much: another program or a quota took the processor"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "cause": self.cause}


def soak_of(row: BenchRow, window_seconds: float) -> Soak:
    """The windows of a row's only repeat. Raises BadInputError where it is too short for them."""
    if not row.repeats:
        raise BadInputError(f"{row.file}: was not measured, so there is nothing to look at")
    wall, cpu = (np.array(series, np.float64) / 1e6 for series in (row.repeats[0].wall_ns, row.repeats[0].cpu_ns))
    starts = (np.cumsum(wall) - wall) / 1e3
    number = (starts // window_seconds).astype(np.int64)
    whole = int((starts[-1] + wall[-1] / 1e3) // window_seconds)
    if whole < FEWEST:
        raise BadInputError(
            f"{whole} windows of {window_seconds:g} s are too few to see a change; {FEWEST} are needed: measure longer"
        )
    windows = tuple(
        Window(
            float(n * window_seconds),
            int(of.sum()),
            float(np.median(wall[of])),
            float(np.percentile(wall[of], 90)),
            float(np.median(cpu[of])),
        )
        for n in range(whole)
        if (of := number == n).any()
    )
    levels = np.array([window.p50_ms for window in windows])
    split = change_point(levels)
    if split is None:
        middle = float(np.median(levels))
        return Soak(windows, window_seconds, None, middle, middle, 1.0, 1.0)
    before, after = float(np.median(levels[:split])), float(np.median(levels[split:]))
    clock = np.array([window.cpu_p50_ms for window in windows])
    cpu_ratio = float(np.median(clock[split:]) / np.median(clock[:split]))
    return Soak(windows, window_seconds, windows[split].start, before, after, after / before, cpu_ratio)


def change_point(levels: Values) -> int | None:
    """Where (n,) levels step up for good: the position of the first higher one, or None where they don't."""
    if len(levels) < FEWEST:
        return None
    splits = range(EDGE, len(levels) - EDGE + 1)
    split = min(splits, key=lambda place: _deviation(levels[:place]) + _deviation(levels[place:]))
    before, after = np.median(levels[:split]), np.median(levels[split:])
    rest = np.concatenate([levels[:split] - before, levels[split:] - after])
    scatter = NORMAL_MAD * float(np.median(np.abs(rest)))
    error = scatter * (1 / split + 1 / (len(levels) - split)) ** 0.5
    if after < SLOWER * before or after - before < SCATTERS * error:
        return None
    return split


def _deviation(levels: Values) -> float:
    return float(np.abs(levels - np.median(levels)).sum())


def in_words(soaks: Sequence[tuple[str, Soak]]) -> list[str]:
    """A line a file, for people."""
    lines = []
    for name, soak in soaks:
        minutes = (soak.windows[-1].start + soak.window_seconds) / 60
        if soak.onset is None:
            lines.append(f"{name}: {minutes:.1f} minutes at {soak.before_ms:.2f} ms, no slowing down")
        else:
            lines.append(
                f"{name}: {soak.before_ms:.2f} ms until {soak.onset / 60:.1f} minutes, then {soak.after_ms:.2f} ms "
                f"({soak.slowdown:.2f} times); {soak.cause}"
            )
    return lines
