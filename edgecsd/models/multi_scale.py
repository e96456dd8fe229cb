"""Multi-scale test-time features: one image tensor at several scales, the mean of their unit vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from edgecsd.errors import BadInputError

SINGLE_SCALE = (1.0,)
SMALLEST_SIDE, LARGEST_SIDE = 16, 2048  # pixels; what a pixel contract allows too


def scaled_sides(size: int, scales: Sequence[float], name: str) -> list[int]:
    """The side in pixels of a `size` x `size` input at each scale, rounded down as torch's interpolate does.

    Raises BadInputError, naming the scale, for a side that no network is meant for.
    """
    sides = [math.floor(size * scale) for scale in scales]
    for scale, side in zip(scales, sides, strict=True):
        if not SMALLEST_SIDE <= side <= LARGEST_SIDE:
            raise BadInputError(
                f"scale {scale:g} makes the {size} px input of {name} {side} px wide; "
                f"{SMALLEST_SIDE} to {LARGEST_SIDE} px are allowed: leave this scale out, or choose another input size"
            )
    return sides


def multi_scale(pooled: Callable[[Tensor], Tensor], batch: Tensor, scales: Sequence[float]) -> Tensor:
    """The unit vectors that `pooled` gives at every scale, averaged and scaled to unit length again.

    pooled  (B, 3, s, s) normalised float -> (B, D), for any s
    batch   (B, 3, S, S) normalised float
    returns (B, D) float32; NaN where one scale gave a zero vector, so that it cannot pass for an embedding

    As the reference code of Radenovic, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
    TPAMI 2019 (`extract_ms`, exponent 1): the normalised tensor is resized bilinearly, without antialiasing and with
    align_corners=False, by the scale factor itself. Raises BadInputError where the network takes one size only.
    """
    total = torch.zeros(())
    for scale in scales:
        scaled = batch if scale == 1 else interpolate(batch, scale_factor=scale, mode="bilinear", align_corners=False)
        total = total + _unit(_at_scale(pooled, scaled, scale).float().flatten(1))
    return _unit(total / len(scales))


def _at_scale(pooled: Callable[[Tensor], Tensor], scaled: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return pooled(scaled)
    try:
        return pooled(scaled)
    except (AssertionError, RuntimeError) as error:
        why = str(error).partition("\n")[0]
        raise BadInputError(
            f"scale {scale:g}: the network does not take images of {scaled.shape[-1]} px ({why}); networks of one "
            "input size have one scale"
        ) from None


def _unit(vectors: Tensor) -> Tensor:
    unit: Tensor = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return unit
