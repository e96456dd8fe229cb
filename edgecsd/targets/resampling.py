"""Pillow's antialiased resize as numbers: for each output pixel the source pixels that count, and their weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecsd.photos.contract import Interpolation, Preprocess, Resize

PRECISION_BITS = 22  # behind the point of Pillow's 8-bit weights
SUPPORT = {Interpolation.BILINEAR: 1.0, Interpolation.BICUBIC: 2.0}  # source pixels on each side, before antialias


@dataclass(frozen=True)
class Pass:
    """Resampling along one axis. axis: 0 down, 1 across; weights: (size, length) float64, in steps of 2^-22."""

    axis: int
    weights: NDArray[np.float64]

    def block(self, first: int, last: int) -> tuple[int, int, NDArray[np.float64]]:
        """Of the outputs from `first` to `last`, excluded: the sources that count, from and to, and their weights."""
        rows = self.weights[first:last]
        used = np.flatnonzero(rows.any(axis=0))
        low, high = int(used[0]), int(used[-1]) + 1
        return low, high, rows[:, low:high]


def passes(contract: Preprocess, height: int, width: int) -> tuple[Pass, Pass]:
    """The two passes over a photo of this size, in Pillow's order: each rounds its result to 8 bit."""
    sides, size = (height, width), contract.size
    both = [Pass(axis, _weights(sides[axis], *_box(contract, sides, axis), contract)) for axis in (0, 1)]
    # Pillow since 13 takes the pass first that leaves less to the other
    tall = height > size and height - size > 2 * (width - size)
    return (both[0], both[1]) if tall else (both[1], both[0])


def _box(contract: Preprocess, sides: tuple[int, int], axis: int) -> tuple[float, float]:
    """From and to, in source pixels, in single precision, as Pillow takes them."""
    if contract.resize is not Resize.SHORTER_SIDE:
        return 0.0, float(sides[axis])
    side = contract.crop_pct * min(sides)
    begin = (sides[axis] - side) / 2
    return float(np.float32(begin)), float(np.float32(begin + side))


def _weights(length: int, begin: float, end: float, contract: Preprocess) -> NDArray[np.float64]:
    step = float(np.float32(end) - np.float32(begin)) / contract.size
    stretch = max(step, 1.0)  # antialias: the filter covers all that an output pixel stands for
    centres = begin + (np.arange(contract.size) + 0.5) * step
    offsets = np.abs((np.arange(length) - centres[:, None] + 0.5) * (1 / stretch))
    falling = np.maximum(1 - offsets, 0) if contract.interpolation is Interpolation.BILINEAR else _cubic(offsets)
    shares = falling / falling.sum(axis=1, keepdims=True)
    scale = float(2**PRECISION_BITS)
    return np.asarray(np.sign(shares) * np.floor(np.abs(shares * scale) + 0.5) / scale)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -0.5."""
    near, far = ((1.5 * x - 2.5) * x) * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
