"""Compressed weights of Core ML programs (`constexpr_*`), expanded by the formulas of coremltools' MIL reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError

Array = NDArray[Any]
Inputs = Mapping[str, Array]
PREFIX = "constexpr_"


def is_compressed(value: Any) -> bool:
    """Whether a MIL value is the output of a `constexpr_*` operator."""
    return value.op is not None and value.op.op_type.startswith(PREFIX)


def expanded(value: Any) -> Array:
    """The array behind a MIL value whose operator is `constexpr_*`; one may take another's output.

    Raises BadInputError, with the list of those that are known, for an operator that is not.
    """
    operator = value.op
    if operator.op_type not in EXPANSIONS:
        known = ", ".join(sorted(EXPANSIONS))
        raise BadInputError(f"weights compressed by {operator.op_type!r} cannot be expanded (known: {known})")
    inputs = {
        name: expanded(given) if is_compressed(given) else np.asarray(given.val)
        for name, given in operator.inputs.items()
        if given is not None
    }
    result = EXPANSIONS[operator.op_type](inputs)
    return result if isinstance(result, np.ndarray) else result[list(operator.outputs).index(value)]


def _affine(given: Inputs) -> Array:
    """iOS 16: scale * (q - zero point), each a scalar or one for each position along `axis`."""
    integers, axis = given["quantized_data"], int(given["axis"])
    shape = [-1 if i == axis % integers.ndim else 1 for i in range(integers.ndim)]
    scale, zero_point = (
        given[name].reshape(shape if given[name].size > 1 else [1] * integers.ndim) for name in ("scale", "zero_point")
    )
    whole = integers.astype(np.int32) - zero_point.astype(np.int32)
    return np.asarray(scale * whole.astype(scale.dtype))


def _blockwise(given: Inputs) -> Array:
    """iOS 18: scale * (data - offset); each scale is for a block of data.shape / scale.shape values."""
    return _shifted_and_scaled(given["data"], given)


def _shifted_and_scaled(data: Array, given: Inputs) -> Array:
    scale = given["scale"]
    whole = data.astype(np.float32)
    if "offset" in given:
        whole = whole - _in_blocks(given["offset"].astype(np.float32), whole.shape)
    return np.asarray(_in_blocks(scale, whole.shape) * whole.astype(scale.dtype))


def _in_blocks(values: Array, shape: tuple[int, ...]) -> Array:
    """`values` repeated along each axis until they have `shape`."""
    for axis, side in enumerate(shape):
        values = np.repeat(values, side // values.shape[axis], axis=axis)
    return values


def _palette(given: Inputs) -> Array:
    """iOS 16 (one table, indices packed into bytes, lowest bit first) or iOS 18 (tables by block, entries vectors)."""
    if "shape" in given:
        shape = [int(side) for side in given["shape"]]
        bits = int(np.log2(given["lut"].size))
        return np.asarray(given["lut"][_unpacked(given["indices"], bits, int(np.prod(shape)))].reshape(shape))
    return _looked_up(given["indices"], given)


def _unpacked(packed: Array, bits: int, count: int) -> Array:
    stream = np.unpackbits(packed.view(np.uint8), bitorder="little")[: bits * count].reshape(count, bits)
    return np.asarray(stream @ (1 << np.arange(bits)))


def _looked_up(indices: Array, given: Inputs) -> Array:
    """lut is (blocks along each axis of indices..., entries, vector length); a vector lies along `vector_axis`."""
    lut = given["lut"]
    *blocks, _, length = lut.shape
    tables = [np.arange(side) // (side // count) for side, count in zip(indices.shape, blocks, strict=True)]
    found = lut[(*np.ix_(*tables), indices.astype(np.int64))]  # (*indices.shape, length)
    if length == 1:
        return np.asarray(found[..., 0])
    axis = int(given["vector_axis"]) % indices.ndim
    shape = [side * (length if i == axis else 1) for i, side in enumerate(indices.shape)]
    return np.asarray(np.moveaxis(found, -1, axis + 1).reshape(shape))


def _sparse(given: Inputs) -> Array:
    """The stored values where the mask is 1, in order, and 0 elsewhere; iOS 16 packs the mask's bits into bytes."""
    values, mask = given["nonzero_data"], given["mask"]
    if "shape" in given:
        shape = [int(side) for side in given["shape"]]
        mask = _unpacked(mask, 1, int(np.prod(shape))).reshape(shape)
    return _spread(values, mask)


def _spread(values: Array, mask: Array) -> Array:
    dense = np.zeros(mask.shape, values.dtype)
    dense[mask != 0] = values
    return dense


def _sparse_palette(given: Inputs) -> tuple[Array, Array]:
    """Mask and values of a sparse tensor whose values were indices."""
    mask = given["indices_mask"]
    dense = _looked_up(_spread(given["indices_nonzero_data"], mask), given)
    for axis, side in enumerate(dense.shape):  # a vector fills several places where its index had one
        mask = np.repeat(mask, side // mask.shape[axis], axis=axis)
    return mask, dense[mask != 0]


def _sparse_blockwise(given: Inputs) -> tuple[Array, Array]:
    """Mask and values of a sparse tensor whose values were integers with a scale."""
    mask = given["data_mask"]
    dense = _shifted_and_scaled(_spread(given["nonzero_data"], mask), given)
    return mask, dense[mask != 0]


def _cast(given: Inputs) -> Array:
    """To the type that is named; iOS 16 knows fp32 alone."""
    wanted = str(given.get("output_dtype", "fp32"))
    return given["source_val"].astype({"fp32": np.float32, "fp16": np.float16}[wanted])


EXPANSIONS: dict[str, Callable[[Inputs], Array | tuple[Array, Array]]] = {
    "constexpr_affine_dequantize": _affine,
    "constexpr_blockwise_shift_scale": _blockwise,
    "constexpr_cast": _cast,
    "constexpr_lut_to_dense": _palette,
    "constexpr_lut_to_sparse": _sparse_palette,
    "constexpr_sparse_blockwise_shift_scale": _sparse_blockwise,
    "constexpr_sparse_to_dense": _sparse,
}
