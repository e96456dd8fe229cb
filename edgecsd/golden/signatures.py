"""What a photo's tensor looks like with each known mistake, small enough to stand in a pack.

A signature is the tensor at GRID x GRID places, not its thumbnail: means over patches would hide what marks a filter
without antialias from one with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecsd.photos.contract import Preprocess
from edgecsd.photos.pixel_mistakes.mistakes import MISTAKES, Shot, right_pixels

GRID = 16
Pixels = NDArray[np.uint8]


def _scaled(pixels: Pixels) -> Pixels:
    return (pixels.astype(np.float32) / 255).round().astype(np.uint8)


def _signed(pixels: Pixels) -> Pixels:
    return (pixels.astype(np.int16) - 128).astype(np.int8).view(np.uint8)


# What goes wrong between a right tensor and the file's uint8 input, beside the mistakes with pixels.
INPUT_MISTAKES: tuple[tuple[str, Callable[[Pixels], Pixels]], ...] = (
    ("values scaled to 0 to 1 before the uint8 input", _scaled),
    ("values shifted to -128 to 127 before the uint8 input", _signed),
)


@dataclass(frozen=True)
class Mistaken:
    """The tensors of n photos with one mistake, (n, S, S, 3)."""

    name: str
    tensors: Pixels


def mistaken_tensors(shots: Sequence[Shot], contract: Preprocess) -> list[Mistaken]:
    """Every mistake that changes the tensor of at least one photo."""
    right = np.stack([right_pixels(shot, contract) for shot in shots])
    made = [
        Mistaken(mistake.name, np.stack([mistake.pixels(shot, contract) for shot in shots]))
        for mistake in MISTAKES
        if mistake.seen_as is None  # those of normalisation are inside the file, out of an app's reach
    ]
    made += [Mistaken(name, change(right)) for name, change in INPUT_MISTAKES]
    return [mistake for mistake in made if not np.array_equal(mistake.tensors, right)]


def samples(pixels: Pixels, grid: int = GRID) -> Pixels:
    """(h, w, 3) -> (grid, grid, 3): the pixels at rows floor((i + 0.5) h / grid), columns likewise."""
    height, width = pixels.shape[:2]
    rows, columns = ((2 * np.arange(grid) + 1) * side // (2 * grid) for side in (height, width))
    return np.ascontiguousarray(pixels[rows][:, columns])


def smallest_difference(right: Pixels, mistakes: Sequence[Mistaken]) -> float:
    """Levels: the mean difference over those photos that a mistake changes, of the mistake that changes them least."""
    found = []
    for mistake in mistakes:
        changes = np.abs(mistake.tensors.astype(np.int16) - right).mean(axis=(1, 2, 3))
        found.append(float(changes[changes > 0].mean()))
    return min(found, default=float("inf"))
