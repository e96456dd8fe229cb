"""Ranges of a Core ML program's values, measured by the evaluator on every calibration photo."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgecsd.targets.coreml.evaluator import CoremlEvaluator
from edgecsd.targets.coreml.program import Step

PERCENTILE = 99.99  # of a value's elements over all photos; what lies outside is clipped
BINS = 2048
_READS_8_BIT = frozenset({"conv", "avg_pool", "max_pool"})  # and add, where both operands are computed


@dataclass(frozen=True)
class Range:
    """From where to where a value goes."""

    lowest: float
    highest: float

    @property
    def can_be_binned(self) -> bool:
        """Whether there is something between its ends, and both are finite."""
        return math.isfinite(self.lowest) and math.isfinite(self.highest) and self.lowest < self.highest


@dataclass(frozen=True)
class Body:
    """What may be computed in 8 bit.

    values  names of the values to be rounded to 8 bit, in the order in which they are made
    last    output of the last convolution; whoever reads a value behind it reads it as it was computed
    """

    values: tuple[str, ...]
    last: str


def body_of(steps: list[Step], given: str) -> Body | None:
    """The values between the first convolution and the last that convolutions, poolings and residual sums read.

    None for a program without a convolution of feature maps. Convolutions of a single pixel, which are the gates of
    squeeze-and-excite, stay float: they cost nothing, and their few values decide about whole channels. What follows
    the last convolution (pooling, projection, L2) and what precedes the first (normalisation) stays float too.
    """
    shapes = {output.name: output.shape for step in steps for output in step.outputs}
    places = [number for number, step in enumerate(steps) if step.operator == "conv"]
    if not places:
        return None
    body = steps[places[0] : places[-1] + 1]
    read: set[str] = set()
    for step in body:
        operands = _operands(step)
        if all(len(shapes.get(name, ())) == 4 and shapes[name][2:] != (1, 1) for name in operands):
            read |= set(operands)
    made = [given, *(output.name for step in steps for output in step.outputs)]
    values = tuple(name for name in made if name in read)
    return Body(values, steps[places[-1]].outputs[0].name) if values else None


def _operands(step: Step) -> list[str]:
    if step.operator in _READS_8_BIT:
        names = [step.values["x"]]
    elif step.operator == "add" and {"x", "y"} <= set(step.values):
        names = [step.values["x"], step.values["y"]]
    else:
        names = []
    return [name for name in names if isinstance(name, str)]


def measured_ranges(
    evaluator: CoremlEvaluator, pixels: NDArray[np.uint8], names: tuple[str, ...], percentile: float = PERCENTILE
) -> dict[str, Range]:
    """The range that holds `percentile` percent of each value's elements on all of (n, S, S, 3) photos.

    Two passes: the first finds the extremes, the second counts elements in 2048 bins between them. coremltools 9.0
    cannot do it: it runs the model by macOS, and its range is that of the last sample alone.
    """
    extremes = {name: Range(float("inf"), float("-inf")) for name in names}
    counts = {name: torch.zeros(BINS, dtype=torch.float64) for name in names}

    def widen(name: str, value: Tensor) -> None:
        if name in extremes:
            known, (lowest, highest) = extremes[name], (float(each) for each in torch.aminmax(value))
            extremes[name] = Range(min(known.lowest, lowest), max(known.highest, highest))

    def count(name: str, value: Tensor) -> None:
        if name in counts and extremes[name].can_be_binned:
            counts[name] += torch.histc(value.float(), BINS, extremes[name].lowest, extremes[name].highest)

    _watch(evaluator, pixels, widen)
    if percentile < 100:
        _watch(evaluator, pixels, count)
        return {name: _clipped(extremes[name], counts[name].numpy(), percentile) for name in names}
    return extremes


def _watch(evaluator: CoremlEvaluator, pixels: NDArray[np.uint8], observer: Callable[[str, Tensor], None]) -> None:
    for number in range(len(pixels)):
        evaluator.observe(pixels[number : number + 1], observer)


def _clipped(extremes: Range, counts: NDArray[np.float64], percentile: float) -> Range:
    """Half of what is cut lies at each end; a value that is constant keeps its extremes."""
    total = counts.sum()
    if total == 0:
        return extremes
    share = np.cumsum(counts) / total
    outside = (100 - percentile) / 200
    edges = np.linspace(extremes.lowest, extremes.highest, len(counts) + 1)
    first = int(np.searchsorted(share, outside, side="right"))
    last = int(np.searchsorted(share, 1 - outside, side="left"))
    return Range(float(edges[first]), float(edges[min(last, len(counts) - 1) + 1]))
