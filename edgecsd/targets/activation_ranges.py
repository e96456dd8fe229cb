"""Ranges of activations for 8 bit: from all calibration photos, the same way for every target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgecsd.quantisation.precisions import STANDARD_PERCENTILE

BINS = 8192  # of a histogram between the smallest and the largest value: finer than 8 bit by 32
NARROWEST = 1e-6  # of a range: a constant value (a dead channel, an untrained layer) has none of its own
STEPS = 255  # of a range in 8 bit

Range = tuple[float, float]
Values = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.float32]]]


@dataclass
class _Seen:
    """Of one activation: each photo's extremes and mean square, and how often which values are met.

    counts   histogram of all values between the extremes of all photos
    shares   the same, each photo's values divided by their mean square
    """

    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))
    shares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))

    @property
    def extremes(self) -> Range:
        return min(self.lows), max(self.highs)

    @property
    def mean_extremes(self) -> Range:
        return float(np.mean(self.lows)), float(np.mean(self.highs))

    def begin(self, array: NDArray[np.float32]) -> None:
        self.lows.append(float(array.min()))
        self.highs.append(float(array.max()))
        self.squares.append(float(np.square(array, dtype=np.float64).mean()))

    def count(self, array: NDArray[np.float32], photo: int) -> None:
        low, high = self.extremes
        if np.isfinite(high - low) and high - low > NARROWEST:
            places = ((array.ravel() - low) * ((BINS - 1) / (high - low))).astype(np.int32)
            found = np.bincount(places, minlength=BINS)
            self.counts += found
            self.shares += found / max(self.squares[photo] * array.size, np.finfo(np.float64).tiny)


def activation_ranges(
    values: Values, pixels: NDArray[np.uint8], percentile: float = STANDARD_PERCENTILE
) -> dict[str, Range]:
    """(lowest, highest) by value, 0 within it, so that zero padding and ReLU's zero are exact.

    values      (1, S, S, 3) uint8 -> every activation of one photo by name; it is called twice for each photo
    pixels      (n, S, S, 3) uint8 calibration photos
    percentile  of all values that the range holds. At the standard one the mean over the photos of each photo's
                extremes is tried beside it, and for each value the one is taken whose rounding and clipping is the
                smaller part of the photo, in the mean square and over all photos: one photo that answers with values
                a hundred times the others' widens the percentile's range for all of them
    Two passes: the extremes first, then histograms between them. The memory of one photo's activations is enough.
    """
    seen: dict[str, _Seen] = {}
    for photo in range(len(pixels)):
        for name, array in values(pixels[photo : photo + 1]).items():
            seen.setdefault(name, _Seen()).begin(array)
    for photo in range(len(pixels)):
        for name, array in values(pixels[photo : photo + 1]).items():
            seen[name].count(array, photo)
    return {name: _range(each, percentile) for name, each in seen.items()}


def _range(seen: _Seen, percentile: float) -> Range:
    cut = _with_zero(_cut(seen.counts, seen.extremes, percentile))
    if percentile != STANDARD_PERCENTILE or not seen.counts.any():
        return cut
    return min(cut, _with_zero(seen.mean_extremes), key=lambda ends: _error(seen, ends))


def _error(seen: _Seen, ends: Range) -> float:
    """Mean square that 8 bit between these ends costs, as a share of each photo's own."""
    low, high = seen.extremes
    values = np.linspace(low, high, BINS)
    beyond = np.maximum(values - ends[1], 0) + np.maximum(ends[0] - values, 0)
    rounding = ((ends[1] - ends[0]) / STEPS) ** 2 / 12
    return float((seen.shares * np.where(beyond > 0, beyond**2, rounding)).sum())


def _cut(counts: NDArray[np.float64], extremes: Range, percentile: float) -> Range:
    """The range between the two percentiles, inside the extremes; the extremes themselves without a histogram."""
    low, high = extremes
    if not counts.any():
        return extremes
    share = np.cumsum(counts) / counts.sum()
    rest = (100.0 - percentile) / 200.0
    width = (high - low) / (BINS - 1)
    first, last = int(np.searchsorted(share, rest)), int(np.searchsorted(share, 1.0 - rest))
    return low + first * width, min(high, low + (last + 1) * width)


def _with_zero(ends: Range) -> Range:
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    return low, max(high, low + NARROWEST)
