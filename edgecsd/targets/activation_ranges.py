"""Ranges of activations for 8 bit: percentiles over all calibration photos, the same way for every target."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from edgecsd.quantisation.precisions import STANDARD_PERCENTILE

BINS = 8192  # of a histogram between the smallest and the largest value: finer than 8 bit by 32
NARROWEST = 1e-6  # of a range: a constant value (a dead channel, an untrained layer) has none of its own

Range = tuple[float, float]
Values = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.float32]]]


def percentile_ranges(
    values: Values, pixels: NDArray[np.uint8], percentile: float = STANDARD_PERCENTILE
) -> dict[str, Range]:
    """(lowest, highest) by value, 0 within it, so that zero padding and ReLU's zero are exact.

    values   (1, S, S, 3) uint8 -> every activation of one photo by name; it is called twice for each photo
    pixels   (n, S, S, 3) uint8 calibration photos
    Two passes: the extremes first, then histograms between them. The memory of one photo's activations is enough.
    """
    extremes = _extremes(values, pixels)
    counts = {name: np.zeros(BINS, np.int64) for name in extremes}
    for photo in range(len(pixels)):
        for name, array in values(pixels[photo : photo + 1]).items():
            low, high = extremes[name]
            if high - low > NARROWEST:
                places = ((array.ravel() - low) * ((BINS - 1) / (high - low))).astype(np.int32)
                counts[name] += np.bincount(places, minlength=BINS)
    return {name: _with_zero(_cut(counts[name], extremes[name], percentile)) for name in extremes}


def _extremes(values: Values, pixels: NDArray[np.uint8]) -> dict[str, Range]:
    extremes: dict[str, Range] = {}
    for photo in range(len(pixels)):
        for name, array in values(pixels[photo : photo + 1]).items():
            low, high = extremes.get(name, (np.inf, -np.inf))
            extremes[name] = min(low, float(array.min())), max(high, float(array.max()))
    return extremes


def _cut(counts: NDArray[np.int64], extremes: Range, percentile: float) -> Range:
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
