"""The Core ML (MIL) operators that convolutional query models need, by coremltools' MIL reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Arguments:
    """An operator's inputs by name: tensors, and constants as coremltools holds them (arrays, numbers, strings)."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def tensor(self, name: str) -> Tensor:
        """A float32 tensor: fp16 values are computed in fp32, and the result is rounded by the caller."""
        return self.raw(name).float()

    def raw(self, name: str) -> Tensor:
        value = self._given[name]
        return value if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))

    def tensors(self, name: str) -> list[Tensor]:
        return list(self._given[name])

    def number(self, name: str, default: float = 0.0) -> float:
        return float(self._given.get(name, default))

    def integers(self, name: str) -> list[int]:
        return [int(value) for value in np.atleast_1d(self._given[name])]

    def text(self, name: str, default: str) -> str:
        return str(self._given.get(name, default))

    def flag(self, name: str) -> bool:
        return bool(self._given.get(name, False))


Operator = Callable[[Arguments], Tensor]


def _elementwise(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda a: function(a.tensor("x"), a.tensor("y"))


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda a: function(a.tensor("x"))


def _reduction(function: Callable[..., Tensor]) -> Operator:
    return lambda a: function(a.tensor("x"), dim=a.integers("axes"), keepdim=a.flag("keep_dims"))


def _convolution(a: Arguments) -> Tensor:
    image, weight = a.tensor("x"), a.tensor("weight")
    strides, dilations = a.integers("strides"), a.integers("dilations")
    kind = a.text("pad_type", "valid")
    if kind == "custom":
        top, bottom, left, right = a.integers("pad")
        image = F.pad(image, (left, right, top, bottom))
    elif kind != "valid":
        kernel = list(weight.shape[2:])
        image = F.pad(image, _same_padding(image, kernel, strides, dilations, lower=kind == "same_lower"))
    bias = a.tensor("bias") if "bias" in a else None
    return F.conv2d(image, weight, bias, strides, 0, dilations, int(a.number("groups", 1)))


def _same_padding(image: Tensor, kernel: list[int], strides: list[int], dilations: list[int], lower: bool) -> list[int]:
    """left, right, top, bottom; an odd pixel goes behind, or in front with same_lower."""
    pads: list[int] = []
    for axis in (1, 0):
        side, reach = image.shape[2 + axis], (kernel[axis] - 1) * dilations[axis] + 1
        total = max(0, (-(-side // strides[axis]) - 1) * strides[axis] + reach - side)
        pads += [total - total // 2, total // 2] if lower else [total // 2, total - total // 2]
    return pads


def _pad(a: Arguments) -> Tensor:
    widths = a.integers("pad")
    pairs = [widths[i : i + 2] for i in range(0, len(widths), 2)]
    flat = [width for pair in reversed(pairs) for width in pair]  # torch counts from the last axis
    return F.pad(a.tensor("x"), flat, a.text("mode", "constant"), a.number("constant_val"))


def _max_pool(a: Arguments) -> Tensor:
    padded = _pool_padded(a, a.tensor("x"), float("-inf"))
    return F.max_pool2d(padded, a.integers("kernel_sizes"), a.integers("strides"))


def _average_pool(a: Arguments) -> Tensor:
    def average(values: Tensor) -> Tensor:
        return F.avg_pool2d(_pool_padded(a, values, 0.0), a.integers("kernel_sizes"), a.integers("strides"))

    result = average(a.tensor("x"))
    return result / average(torch.ones_like(a.tensor("x"))) if a.flag("exclude_padding_from_average") else result


def _pool_padded(a: Arguments, image: Tensor, value: float) -> Tensor:
    kind = a.text("pad_type", "valid")
    if kind == "custom":
        top, bottom, left, right = a.integers("pad")
    elif kind == "valid":
        return image
    else:
        kernel, strides = a.integers("kernel_sizes"), a.integers("strides")
        left, right, top, bottom = _same_padding(image, kernel, strides, [1, 1], lower=kind == "same_lower")
    return F.pad(image, (left, right, top, bottom), value=value)


def _batch_norm(a: Arguments) -> Tensor:
    gamma, beta = (a.tensor(name) if name in a else None for name in ("gamma", "beta"))
    return F.batch_norm(a.tensor("x"), a.tensor("mean"), a.tensor("variance"), gamma, beta, eps=a.number("epsilon"))


def _gelu(a: Arguments) -> Tensor:
    return F.gelu(a.tensor("x"), approximate="none" if a.text("mode", "EXACT") == "EXACT" else "tanh")


def _expand_dims(a: Arguments) -> Tensor:
    result = a.raw("x")
    for axis in sorted(a.integers("axes")):
        result = result.unsqueeze(axis)
    return result


def _squeeze(a: Arguments) -> Tensor:
    return a.raw("x").squeeze(a.integers("axes") if "axes" in a else list(range(a.raw("x").ndim)))


def _clip(a: Arguments) -> Tensor:
    return a.tensor("x").clamp(a.number("alpha"), a.number("beta"))


def _hard_sigmoid(a: Arguments) -> Tensor:
    return (a.tensor("x") * a.number("alpha", 0.2) + a.number("beta", 0.5)).clamp(0, 1)


OPERATORS: dict[str, Operator] = {
    "add": _elementwise(torch.add),
    "sub": _elementwise(torch.sub),
    "mul": _elementwise(torch.mul),
    "real_div": _elementwise(torch.div),
    "maximum": _elementwise(torch.maximum),
    "minimum": _elementwise(torch.minimum),
    "pow": _elementwise(torch.pow),
    "abs": _unary(torch.abs),
    "sqrt": _unary(torch.sqrt),
    "relu": _unary(torch.relu),
    "relu6": _unary(F.relu6),
    "sigmoid": _unary(torch.sigmoid),
    "silu": _unary(F.silu),
    "tanh": _unary(torch.tanh),
    "reduce_mean": _reduction(torch.mean),
    "reduce_sum": _reduction(torch.sum),
    "reduce_max": _reduction(torch.amax),
    "cast": lambda a: a.raw("x"),  # every result is rounded to its declared type
    "identity": lambda a: a.raw("x"),
    "conv": _convolution,
    "linear": lambda a: F.linear(a.tensor("x"), a.tensor("weight"), a.tensor("bias") if "bias" in a else None),
    "batch_norm": _batch_norm,
    "avg_pool": _average_pool,
    "max_pool": _max_pool,
    "pad": _pad,
    "clip": _clip,
    "gelu": _gelu,
    "sigmoid_hard": _hard_sigmoid,
    "concat": lambda a: torch.cat(a.tensors("values"), dim=int(a.number("axis"))),
    "transpose": lambda a: a.raw("x").permute(a.integers("perm")),
    "reshape": lambda a: a.raw("x").reshape(a.integers("shape")),
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
}
