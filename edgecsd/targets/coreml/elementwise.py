"""Core ML operators that work on each value by itself, or reduce values: by coremltools' MIL reference."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edgecsd.targets.coreml.arguments import Arguments, Operator


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda a: function(a.tensor("x"), a.tensor("y"))


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda a: function(a.tensor("x"))


def _shifted(function: Callable[[Tensor], Tensor], epsilon: float) -> Operator:
    """A function of x + epsilon; `epsilon` is MIL's own value where the program gives none."""
    return lambda a: function(a.tensor("x") + a.number("epsilon", epsilon))


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def reduce(a: Arguments) -> Tensor:
        values = a.tensor("x")
        return function(values, a.integers("axes", list(range(values.ndim))), a.flag("keep_dims"))

    return reduce


def _product(values: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % values.ndim for axis in axes), reverse=True):
        values = values.prod(dim=axis, keepdim=keep)
    return values


def _position(function: Callable[..., Tensor]) -> Operator:
    return lambda a: function(a.tensor("x"), dim=a.integer("axis", -1), keepdim=a.flag("keep_dims"))


def _clip(a: Arguments) -> Tensor:
    return a.tensor("x").clamp(a.number("alpha"), a.number("beta"))


def _clamped_relu(a: Arguments) -> Tensor:
    values = a.tensor("x")
    return torch.where(values >= 0, values, values * a.number("alpha")).clamp(max=a.number("beta"))


def _gelu(a: Arguments) -> Tensor:
    values, mode = a.tensor("x"), a.text("mode", "EXACT")
    if mode == "SIGMOID_APPROXIMATION":
        return values * torch.sigmoid(1.702 * values)
    return F.gelu(values, approximate="none" if mode == "EXACT" else "tanh")


def _hard_sigmoid(a: Arguments) -> Tensor:
    return (a.tensor("x") * a.number("alpha", 0.2) + a.number("beta", 0.5)).clamp(0, 1)


def _prelu(a: Arguments) -> Tensor:
    return F.prelu(a.tensor("x"), a.tensor("alpha"))


def _thresholded_relu(a: Arguments) -> Tensor:
    values = a.tensor("x")
    return torch.where(values >= a.number("alpha", 1.0), values, 0.0)


def _select(a: Arguments) -> Tensor:
    return torch.where(a.raw("cond").bool(), a.tensor("a"), a.tensor("b"))


def _quantize(a: Arguments) -> Tensor:
    """clip(round(x / scale) + zero point), to int8 or uint8; halves are rounded to the even integer."""
    values = a.tensor("input")
    lowest, highest = (-128, 127) if a.text("output_dtype", "int8") == "int8" else (0, 255)
    scale, zero_point = (_along_axis(a, name, values) for name in ("scale", "zero_point"))
    return (torch.round(values / scale) + zero_point).clamp(lowest, highest)


def _dequantize(a: Arguments) -> Tensor:
    """(q - zero point) * scale."""
    values = a.tensor("input")
    return (values - _along_axis(a, "zero_point", values)) * _along_axis(a, "scale", values)


def _along_axis(a: Arguments, name: str, values: Tensor) -> Tensor:
    """A scale or a zero point, one for all or one for each position along `axis`; an absent zero point is 0."""
    given = a.optional(name)
    if given is None or given.numel() == 1:
        return torch.zeros(()) if given is None else given.reshape(())
    axis = a.integer("axis") % values.ndim
    return given.reshape([-1 if i == axis else 1 for i in range(values.ndim)])


ELEMENTWISE: dict[str, Operator] = {
    "add": _binary(torch.add),
    "sub": _binary(torch.sub),
    "mul": _binary(torch.mul),
    "real_div": _binary(torch.div),
    "floor_div": _binary(torch.floor_divide),
    "mod": _binary(torch.remainder),
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "pow": _binary(torch.pow),
    "equal": _binary(torch.eq),
    "not_equal": _binary(torch.ne),
    "greater": _binary(torch.gt),
    "greater_equal": _binary(torch.ge),
    "less": _binary(torch.lt),
    "less_equal": _binary(torch.le),
    "select": _select,
    "abs": _unary(torch.abs),
    "ceil": _unary(torch.ceil),
    "cos": _unary(torch.cos),
    "erf": _unary(torch.erf),
    "exp": _unary(torch.exp),
    "exp2": _unary(torch.exp2),
    "floor": _unary(torch.floor),
    "inverse": _shifted(torch.reciprocal, 1e-4),
    "log": _shifted(torch.log, 1e-45),
    "round": _unary(torch.round),
    "rsqrt": _shifted(torch.rsqrt, 1e-12),
    "sign": _unary(torch.sign),
    "sin": _unary(torch.sin),
    "sqrt": _unary(torch.sqrt),
    "square": _unary(torch.square),
    "threshold": lambda a: a.tensor("x").clamp_min(a.number("alpha")),
    "clip": _clip,
    "clamped_relu": _clamped_relu,
    "elu": lambda a: F.elu(a.tensor("x"), a.number("alpha", 1.0)),
    "gelu": _gelu,
    "leaky_relu": lambda a: F.leaky_relu(a.tensor("x"), a.number("alpha", 0.01)),
    "linear_activation": lambda a: a.tensor("x") * a.number("alpha", 1.0) + a.number("beta"),
    "prelu": _prelu,
    "relu": _unary(torch.relu),
    "relu6": _unary(F.relu6),
    "scaled_tanh": lambda a: a.number("alpha", 1.0) * torch.tanh(a.number("beta", 1.0) * a.tensor("x")),
    "sigmoid": _unary(torch.sigmoid),
    "sigmoid_hard": _hard_sigmoid,
    "silu": _unary(F.silu),
    "softmax": lambda a: torch.softmax(a.tensor("x"), dim=a.integer("axis", -1)),
    "softplus": lambda a: F.softplus(a.tensor("x"), threshold=30.0),
    "softsign": _unary(F.softsign),
    "thresholded_relu": _thresholded_relu,
    "tanh": _unary(torch.tanh),
    "reduce_max": _reduction(torch.amax),
    "reduce_mean": _reduction(torch.mean),
    "reduce_min": _reduction(torch.amin),
    "reduce_prod": _reduction(_product),
    "reduce_sum": _reduction(torch.sum),
    "reduce_l1_norm": _reduction(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "reduce_l2_norm": _reduction(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "reduce_log_sum_exp": _reduction(torch.logsumexp),
    "reduce_sum_square": _reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
    "reduce_argmax": _position(torch.argmax),
    "reduce_argmin": _position(torch.argmin),
    "quantize": _quantize,
    "dequantize": _dequantize,
}
