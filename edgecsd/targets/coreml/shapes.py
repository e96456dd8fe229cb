"""Core ML operators that move values or multiply matrices: by coremltools' MIL reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgecsd.targets.coreml.arguments import Arguments, Operator


def _reshape(a: Arguments) -> Tensor:
    """A 0 in the shape keeps the side that the input has there."""
    values, shape = a.raw("x"), a.integers("shape")
    return values.reshape([values.shape[i] if side == 0 else side for i, side in enumerate(shape)])


def _expand_dims(a: Arguments) -> Tensor:
    result = a.raw("x")
    rank = result.ndim + len(a.integers("axes"))
    for axis in sorted(axis % rank for axis in a.integers("axes")):
        result = result.unsqueeze(axis)
    return result


def _squeeze(a: Arguments) -> Tensor:
    values = a.raw("x")
    return values.squeeze(a.integers("axes", list(range(values.ndim))))


def _slice_by_index(a: Arguments) -> Tensor:
    """x[begin:end:stride] on every axis; the masks stand for open ends and for a single position."""
    values = a.raw("x")
    rank = values.ndim
    begin, end, stride = a.integers("begin"), a.integers("end"), a.integers("stride", [1] * rank)
    open_begin, open_end, single = (a.flags(f"{name}_mask", rank) for name in ("begin", "end", "squeeze"))
    for axis in reversed(range(rank)):  # from the last, so that a removed axis moves none that is to come
        side, first = values.shape[axis], begin[axis]
        if single[axis]:
            values = values.select(axis, first)
            continue
        wanted = slice(None if open_begin[axis] else first, None if open_end[axis] else end[axis], stride[axis])
        values = values.index_select(axis, torch.tensor(range(side)[wanted], dtype=torch.long))
    return values


def _slice_by_size(a: Arguments) -> Tensor:
    """A size of -1 takes everything from `begin` on."""
    values = a.raw("x")
    for axis, (begin, size) in enumerate(zip(a.integers("begin"), a.integers("size"), strict=True)):
        values = values.narrow(axis, begin, values.shape[axis] - begin if size == -1 else size)
    return values


def _split(a: Arguments) -> tuple[Tensor, ...]:
    values, axis = a.raw("x"), a.integer("axis")
    if "split_sizes" in a:
        return tuple(torch.split(values, a.integers("split_sizes"), dim=axis))
    return tuple(torch.chunk(values, a.integer("num_splits"), dim=axis))


def _concat(a: Arguments) -> Tensor:
    """With `interleave` the slices of the inputs alternate along the axis."""
    parts, axis = a.tensors("values"), a.integer("axis")
    if not a.flag("interleave"):
        return torch.cat(parts, dim=axis)
    axis %= parts[0].ndim
    return torch.stack(parts, dim=axis + 1).flatten(axis, axis + 1)


def _gather(a: Arguments) -> Tensor:
    """Slices along `axis` by an index of any shape, which takes its place; negative indices count from the end."""
    values, indices, axis = a.raw("x"), a.raw("indices").long(), a.integer("axis")
    if a.integer("batch_dims"):
        raise NotImplementedError("gather with batch_dims")
    axis %= values.ndim
    taken = values.index_select(axis, indices.reshape(-1) % values.shape[axis])
    return taken.reshape([*values.shape[:axis], *indices.shape, *values.shape[axis + 1 :]])


def _gather_along_axis(a: Arguments) -> Tensor:
    values, axis = a.raw("x"), a.integer("axis")
    return values.gather(axis, a.raw("indices").long() % values.shape[axis])


def _matrix_product(a: Arguments) -> Tensor:
    left, right = a.tensor("x"), a.tensor("y")
    left = left.transpose(-1, -2) if a.flag("transpose_x") else left
    return left @ (right.transpose(-1, -2) if a.flag("transpose_y") else right)


def _attention(a: Arguments) -> Tensor:
    mask = a.raw("attn_mask") if "attn_mask" in a else None
    mask = mask if mask is None or mask.dtype == torch.bool else mask.float()
    return F.scaled_dot_product_attention(a.tensor("query"), a.tensor("key"), a.tensor("value"), mask)


def _flatten(a: Arguments) -> Tensor:
    """Two axes: everything before `axis`, and the rest."""
    values = a.raw("x")
    axis = a.integer("axis", 1) % values.ndim
    return values.reshape(int(torch.tensor(values.shape[:axis]).prod()), -1)


SHAPES: dict[str, Operator] = {
    "cast": lambda a: a.raw("x"),  # every result is rounded to its declared type
    "identity": lambda a: a.raw("x"),
    "transpose": lambda a: a.raw("x").permute(a.integers("perm")),
    "reshape": _reshape,
    "flatten2d": _flatten,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "split": _split,
    "concat": _concat,
    "stack": lambda a: torch.stack(a.tensors("values"), dim=a.integer("axis")),
    "tile": lambda a: a.raw("x").repeat(a.integers("reps")),
    "reverse": lambda a: a.raw("x").flip(a.integers("axes", list(range(a.raw("x").ndim)))),
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "fill": lambda a: torch.full(a.integers("shape"), a.number("value")),
    "linear": lambda a: F.linear(a.tensor("x"), a.tensor("weight"), a.optional("bias")),
    "matmul": _matrix_product,
    "einsum": lambda a: torch.einsum(a.text("equation", ""), *[value.float() for value in a.tensors("values")]),
    "scaled_dot_product_attention": _attention,
}
