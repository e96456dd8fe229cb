"""Maps repeated along an axis: litert-torch turns torch's expansion of them into other numbers.

Behind a convolution whose map it keeps as NHWC, it takes the sides of the expanded value in the order NCHW: the
conversion fails where they do not fit, and is wrong without an error where they do. A sum with zeros of the wanted
shape is the same number, and one operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

EXPANDING = (Tensor.expand, Tensor.expand_as, Tensor.broadcast_to, torch.broadcast_to)
MAP_RANK = 4


class ExpansionsBySums(TorchFunctionMode):
    """While it is entered, a float map (B, C, h, w) that is expanded is added to zeros of that shape instead."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        expanded = func(*args, **(kwargs or {}))
        if func not in EXPANDING:
            return expanded
        given = args[0]
        if given.ndim != MAP_RANK or not given.is_floating_point() or expanded.numel() == given.numel():
            return expanded
        return given + torch.zeros(expanded.shape, dtype=given.dtype)
