"""Core ML operators on feature maps (n, C, then one to three sides): by coremltools' MIL reference."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgecsd.targets.coreml.arguments import Arguments, Operator


def _by_rank(name: str, image: Tensor) -> Any:
    """torch's function for the number of sides: conv2d for (n, C, h, w)."""
    return getattr(F, f"{name}{image.ndim - 2}d")


def _convolution(a: Arguments) -> Tensor:
    image, weight = a.tensor("x"), a.tensor("weight")
    sides = image.ndim - 2
    strides, dilations = a.integers("strides", [1] * sides), a.integers("dilations", [1] * sides)
    widths = _widths(a, image, list(weight.shape[2:]), strides, dilations)
    padded = F.pad(image, _flat(widths))
    groups = a.integer("groups", 1)
    result: Tensor = _by_rank("conv", image)(padded, weight, a.optional("bias"), strides, 0, dilations, groups)
    return result


def _widths(
    a: Arguments, image: Tensor, kernel: list[int], strides: list[int], dilations: list[int]
) -> list[tuple[int, int]]:
    """How much is padded before and behind each side. By "same" an odd pixel goes behind, by "same_lower" before."""
    kind = a.text("pad_type", "valid")
    if kind == "custom":
        given = a.integers("pad", [0] * (2 * len(kernel)))
        return list(zip(given[::2], given[1::2], strict=True))
    if kind == "valid":
        return [(0, 0)] * len(kernel)
    pairs = []
    for side, size, stride, dilation in zip(image.shape[2:], kernel, strides, dilations, strict=True):
        reach = (size - 1) * dilation + 1
        total = max(0, (-(-side // stride) - 1) * stride + reach - side)
        less, more = total // 2, total - total // 2
        pairs.append((more, less) if kind == "same_lower" else (less, more))
    return pairs


def _flat(pairs: list[tuple[int, int]]) -> list[int]:
    """torch counts from the last axis."""
    return [width for pair in reversed(pairs) for width in pair]


def _pool_settings(a: Arguments, image: Tensor) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    kernel = a.integers("kernel_sizes")
    strides = a.integers("strides", [1] * len(kernel))
    return kernel, strides, _widths(a, image, kernel, strides, [1] * len(kernel))


def _max_pool(a: Arguments) -> Tensor:
    image = a.tensor("x")
    kernel, strides, widths = _pool_settings(a, image)
    if a.flag("ceil_mode"):  # MIL asks for symmetric padding there, and its sizes are then torch's
        padding = [before for before, _ in widths]
        result: Tensor = _by_rank("max_pool", image)(image, kernel, strides, padding, ceil_mode=True)
        return result
    pooled: Tensor = _by_rank("max_pool", image)(F.pad(image, _flat(widths), value=float("-inf")), kernel, strides)
    return pooled


def _average_pool(a: Arguments) -> Tensor:
    image, exclude = a.tensor("x"), a.flag("exclude_padding_from_average")
    kernel, strides, widths = _pool_settings(a, image)
    pool = _by_rank("avg_pool", image)
    if a.flag("ceil_mode"):
        padding = [before for before, _ in widths]
        ceiled: Tensor = pool(image, kernel, strides, padding, ceil_mode=True, count_include_pad=not exclude)
        return ceiled
    averaged: Tensor = pool(F.pad(image, _flat(widths)), kernel, strides)
    if not exclude:
        return averaged
    share: Tensor = pool(F.pad(torch.ones_like(image), _flat(widths)), kernel, strides)
    return averaged / share


def _pad(a: Arguments) -> Tensor:
    """The widths are those of the last axes; "replicate" and "reflect" as in torch."""
    image, given = a.tensor("x"), a.integers("pad")
    flat = _flat(list(zip(given[::2], given[1::2], strict=True)))
    mode = a.text("mode", "constant")
    if mode == "constant":
        return F.pad(image, flat, value=a.number("constant_val"))
    while len(flat) > 2 and flat[-2:] == [0, 0]:  # torch pads the last axes alone in these modes
        flat = flat[:-2]
    return F.pad(image, flat, mode=mode)


def _batch_norm(a: Arguments) -> Tensor:
    epsilon = a.number("epsilon", 1e-5)
    return F.batch_norm(
        a.tensor("x"), a.tensor("mean"), a.tensor("variance"), a.optional("gamma"), a.optional("beta"), eps=epsilon
    )


def _instance_norm(a: Arguments) -> Tensor:
    gamma, beta = a.optional("gamma"), a.optional("beta")
    return F.instance_norm(a.tensor("x"), weight=gamma, bias=beta, eps=a.number("epsilon", 1e-5))


def _layer_norm(a: Arguments) -> Tensor:
    """Over any axes; gamma and beta have the sides of those axes, in ascending order."""
    values = a.tensor("x")
    axes = sorted(axis % values.ndim for axis in a.integers("axes", list(range(values.ndim))))
    shape = [side if axis in axes else 1 for axis, side in enumerate(values.shape)]
    centred = values - values.mean(axes, keepdim=True)
    result = centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + a.number("epsilon", 1e-5))
    gamma, beta = a.optional("gamma"), a.optional("beta")
    result = result if gamma is None else result * gamma.reshape(shape)
    return result if beta is None else result + beta.reshape(shape)


def _l2_norm(a: Arguments) -> Tensor:
    """Over the last three axes."""
    values = a.tensor("x")
    return values * torch.rsqrt(values.square().sum((-3, -2, -1), keepdim=True) + a.number("epsilon", 1e-6))


def _upsample_nearest(a: Arguments) -> Tensor:
    values = a.tensor("x")
    for axis, name in ((-2, "scale_factor_height"), (-1, "scale_factor_width")):
        factor = a.number(name, 1)
        rows = (torch.arange(int(values.shape[axis] * factor)) / factor).floor().long()
        values = values.index_select(axis, rows)
    return values


def _upsample_bilinear(a: Arguments) -> Tensor:
    values = a.tensor("x")
    mode = "ALIGN_CORNERS" if bool(a.number("align_corners", 1)) else "UNALIGN_CORNERS"
    for axis, name in ((-2, "scale_factor_height"), (-1, "scale_factor_width")):
        values = _interpolated(values, axis, int(values.shape[axis] * a.number(name, 1)), mode)
    return values


def _resize_bilinear(a: Arguments) -> Tensor:
    values, mode = a.tensor("x"), a.text("sampling_mode", "DEFAULT")
    values = _interpolated(values, -2, a.integer("target_size_height", 1), mode)
    return _interpolated(values, -1, a.integer("target_size_width", 1), mode)


def _interpolated(values: Tensor, axis: int, target: int, mode: str) -> Tensor:
    """Linear between neighbours along one axis, at the grid points of MIL's sampling modes."""
    source = values.shape[axis]
    points = _grid(source, target, mode).clamp(0, source - 1)
    before = points.floor().long()
    behind = (before + 1).clamp_max(source - 1)
    share = (points - before).reshape([-1] + [1] * (-axis - 1)).float()
    return values.index_select(axis, before) * (1 - share) + values.index_select(axis, behind) * share


def _grid(source: int, target: int, mode: str) -> Tensor:
    steps = torch.arange(target, dtype=torch.float64)
    if mode == "UNALIGN_CORNERS":
        return (steps + 0.5) * (source / target) - 0.5
    if mode == "OFFSET_CORNERS":
        return (steps + 0.5) * (max(1, source - 1) / target)
    if mode == "DEFAULT":
        return steps * (source / target)
    if target == 1:
        return torch.tensor([(source - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0], dtype=torch.float64)
    return steps * ((source - 1) / (target - 1))


SPATIAL: dict[str, Operator] = {
    "conv": _convolution,
    "avg_pool": _average_pool,
    "max_pool": _max_pool,
    "pad": _pad,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "l2_norm": _l2_norm,
    "upsample_nearest_neighbor": _upsample_nearest,
    "upsample_bilinear": _upsample_bilinear,
    "resize_bilinear": _resize_bilinear,
    "pixel_shuffle": lambda a: F.pixel_shuffle(a.tensor("x"), a.integer("upscale_factor", 1)),
    "pixel_unshuffle": lambda a: F.pixel_unshuffle(a.tensor("x"), a.integer("downscale_factor", 1)),
}
