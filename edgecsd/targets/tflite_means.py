"""Means over large feature maps in two steps, because TFLite's kernels add up one value after the other in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Of a map of 112 x 112 the sum's relative error is 2e-5, a hundred times torch's, which adds in pairs; a random
# EfficientNet-B0 with squeeze-and-excite makes 1.4e-5 of the embedding's largest difference of it (measured). By rows
# first, it is that of 112 values. At most this many stay one operator, which every runtime has a fast kernel for.
MOST_AT_ONCE = 1024
MAP = {2, 3}


class MeansInSteps(TorchFunctionMode):
    """While it is entered, a mean over both sides of a large (B, C, h, w) map is taken over w, then over h."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        given = dict(kwargs or {})
        if func in (torch.mean, Tensor.mean) and _is_over_a_large_map(args, given):
            maps, keep = args[0], args[2] if len(args) > 2 else given.get("keepdim", False)
            mean = maps.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
            return mean if keep else mean.flatten(1)
        return func(*args, **given)


def _is_over_a_large_map(args: tuple[Any, ...], given: Mapping[str, Any]) -> bool:
    sides = args[1] if len(args) > 1 else given.get("dim")
    maps = args[0] if args else None
    if not isinstance(maps, Tensor) or maps.ndim != 4 or not isinstance(sides, tuple | list) or "dtype" in given:
        return False
    return {side % 4 for side in sides} == MAP and maps.shape[2] * maps.shape[3] > MOST_AT_ONCE
