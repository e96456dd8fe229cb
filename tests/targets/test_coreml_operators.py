"""Each operator of the evaluator against coremltools' own inference on constants, or against slow loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder
from numpy.typing import NDArray

from edgecsd.targets.coreml.arguments import Arguments
from edgecsd.targets.coreml.program import OPERATORS

RANDOM = np.random.default_rng(3)
X = (RANDOM.standard_normal((2, 4, 3, 6)) * 3).astype(np.float32)
Y = (RANDOM.standard_normal((2, 4, 3, 6)) * 3).astype(np.float32)
Z = np.abs(X) + 0.5
INDICES = RANDOM.integers(-5, 5, (2, 4, 3, 6)).astype(np.int32)
PER_CHANNEL = RANDOM.uniform(0.05, 0.2, 4).astype(np.float32)
BINARY = [
    "add",
    "sub",
    "mul",
    "real_div",
    "floor_div",
    "mod",
    "maximum",
    "minimum",
    "equal",
    "not_equal",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
]
UNARY = [
    "abs",
    "ceil",
    "cos",
    "erf",
    "exp",
    "exp2",
    "floor",
    "round",
    "sign",
    "sin",
    "square",
    "relu",
    "relu6",
    "sigmoid",
    "softplus",
    "softsign",
    "tanh",
    "gelu",
]
REDUCTIONS = [
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "reduce_l1_norm",
    "reduce_l2_norm",
    "reduce_log_sum_exp",
    "reduce_sum_square",
]
# What coremltools can compute by itself when all inputs are constants
INFERRED: list[tuple[str, dict[str, Any]]] = [
    *((name, {"x": X, "y": Y}) for name in BINARY),
    ("pow", {"x": Z, "y": Y}),
    *((name, {"x": X}) for name in UNARY),
    ("gelu", {"x": X, "mode": "TANH_APPROXIMATION"}),
    ("gelu", {"x": X, "mode": "SIGMOID_APPROXIMATION"}),
    *((name, {"x": Z}) for name in ("sqrt", "log", "rsqrt", "inverse")),
    ("log", {"x": Z, "epsilon": np.float32(0.5)}),
    ("rsqrt", {"x": Z, "epsilon": np.float32(0.5)}),
    *((name, {"x": X, "axes": [1, -1], "keep_dims": False}) for name in REDUCTIONS),
    *((name, {"x": X, "axes": [2], "keep_dims": True}) for name in REDUCTIONS),
    ("reduce_mean", {"x": X, "keep_dims": True}),
    ("reduce_argmax", {"x": X, "axis": 1, "keep_dims": True}),
    ("reduce_argmin", {"x": X, "axis": -1, "keep_dims": False}),
    ("clip", {"x": X, "alpha": np.float32(-1), "beta": np.float32(2)}),
    ("threshold", {"x": X, "alpha": np.float32(0.3)}),
    ("elu", {"x": X, "alpha": np.float32(0.7)}),
    ("leaky_relu", {"x": X, "alpha": np.float32(0.1)}),
    ("linear_activation", {"x": X, "alpha": np.float32(2), "beta": np.float32(-1)}),
    ("prelu", {"x": X, "alpha": PER_CHANNEL}),
    ("scaled_tanh", {"x": X, "alpha": np.float32(2), "beta": np.float32(0.5)}),
    ("sigmoid_hard", {"x": X, "alpha": np.float32(1 / 6), "beta": np.float32(0.5)}),
    ("thresholded_relu", {"x": X, "alpha": np.float32(-1.5)}),
    ("softmax", {"x": X, "axis": 1}),
    ("select", {"cond": X > 0, "a": X, "b": Y}),
    ("cast", {"x": X, "dtype": "int32"}),
    ("quantize", {"input": X, "scale": np.float32(0.05), "zero_point": np.int8(-3), "output_dtype": "int8"}),
    ("quantize", {"input": X, "scale": np.float32(0.02), "zero_point": np.uint8(9), "output_dtype": "uint8"}),
    ("quantize", {"input": X, "scale": PER_CHANNEL, "axis": 1, "output_dtype": "int8"}),
    ("transpose", {"x": X, "perm": [2, 0, 3, 1]}),
    ("reshape", {"x": X, "shape": [8, -1]}),
    ("expand_dims", {"x": X, "axes": [0, -1]}),
    ("squeeze", {"x": X[:, :1], "axes": [1]}),
    ("squeeze", {"x": X[:1, :1]}),
    ("slice_by_index", {"x": X, "begin": [0, 1, 0, 5], "end": [2, 4, 3, 0], "stride": [1, 2, 1, -2]}),
    (
        "slice_by_index",
        {
            "x": X,
            "begin": [1, 0, -2, 3],
            "end": [0, 2, 0, 0],
            "end_mask": [False, False, True, True],
            "begin_mask": [False, True, False, False],
            "squeeze_mask": [True, False, False, False],
        },
    ),
    ("slice_by_size", {"x": X, "begin": [0, 1, 2, 2], "size": [2, 2, 1, -1]}),
    ("split", {"x": X, "num_splits": 3, "axis": -1}),
    ("split", {"x": X, "split_sizes": [1, 3], "axis": 1}),
    ("concat", {"values": (X, Y), "axis": 1}),
    ("stack", {"values": (X, Y), "axis": 1}),
    ("tile", {"x": X, "reps": [1, 2, 1, 3]}),
    ("reverse", {"x": X, "axes": [1, 3]}),
    ("gather", {"x": X, "indices": np.array([[2, 0], [1, 1]], np.int32), "axis": 2}),
    ("gather_along_axis", {"x": X, "indices": np.abs(INDICES) % 3, "axis": 2}),
    ("fill", {"shape": [2, 3], "value": np.float32(1.5)}),
    ("flatten2d", {"x": X, "axis": 2}),
    ("matmul", {"x": X, "y": Y, "transpose_y": True}),
    ("matmul", {"x": X, "y": Y, "transpose_x": True}),
    ("linear", {"x": X, "weight": np.ones((5, 6), np.float32) * 0.3, "bias": np.arange(5, dtype=np.float32)}),
    ("einsum", {"values": (X, Y.transpose(0, 3, 2, 1).copy()), "equation": "nchw,nwhu->nchu"}),
]


def inferred(name: str, given: dict[str, Any]) -> tuple[NDArray[Any], ...]:
    """What coremltools computes, in numpy, when it builds the operator from constants."""
    made: list[Any] = []

    @Builder.program(input_specs=[], opset_version=coremltools.target.iOS17)  # type: ignore[untyped-decorator]
    def program() -> Any:
        made.append(getattr(Builder, name)(**given))
        return made[0]

    outputs = made[0] if isinstance(made[0], (list, tuple)) else [made[0]]
    return tuple(np.asarray(each.val) for each in outputs)


def evaluated(name: str, given: dict[str, Any]) -> tuple[NDArray[Any], ...]:
    tensors = {
        key: tuple(torch.from_numpy(each) for each in value) if isinstance(value, tuple) else value
        for key, value in given.items()
    }
    result = OPERATORS[name](Arguments(tensors))
    return tuple(each.numpy() for each in (result if isinstance(result, tuple) else (result,)))


@pytest.mark.parametrize(("name", "given"), INFERRED, ids=[f"{i}-{name}" for i, (name, _) in enumerate(INFERRED)])
def test_operator_is_coremltools_own(name: str, given: dict[str, Any]) -> None:
    expected = inferred(name, given)
    assert expected[0].dtype != object, "coremltools does not infer this operator from constants"
    found = evaluated(name, given)
    assert [each.shape for each in found] == [each.shape for each in expected]
    for mine, theirs in zip(found, expected, strict=True):
        if name == "cast":
            mine = mine.astype(theirs.dtype)
        np.testing.assert_allclose(mine.astype(np.float64), theirs.astype(np.float64), rtol=2e-5, atol=2e-5)


def test_what_coremltools_does_not_infer() -> None:
    np.testing.assert_allclose(evaluated("silu", {"x": X})[0], X / (1 + np.exp(-X)), rtol=1e-5, atol=1e-6)
    (mixed,) = evaluated("concat", {"values": (X, Y), "axis": -2, "interleave": True})
    np.testing.assert_array_equal(mixed[:, :, 0::2], X)
    np.testing.assert_array_equal(mixed[:, :, 1::2], Y)
    np.testing.assert_array_equal(evaluated("identity", {"x": X})[0], X)
    (large,) = evaluated("pixel_shuffle", {"x": X, "upscale_factor": np.int32(2)})
    expected = X.reshape(2, 1, 2, 2, 3, 6).transpose(0, 1, 4, 2, 5, 3).reshape(2, 1, 6, 12)
    np.testing.assert_array_equal(large, expected)
    np.testing.assert_array_equal(evaluated("pixel_unshuffle", {"x": large, "downscale_factor": 2})[0], X)
    clamped = evaluated("clamped_relu", {"x": X, "alpha": np.float32(0.1), "beta": np.float32(2)})[0]
    np.testing.assert_allclose(clamped, np.minimum(np.where(X >= 0, X, 0.1 * X), 2), rtol=1e-6)


def test_every_operator_of_the_evaluator_is_tested_here() -> None:
    source = Path(__file__).read_text()
    assert [name for name in OPERATORS if f'"{name}"' not in source] == []


def test_dequantize_undoes_quantize() -> None:
    integers = RANDOM.integers(-128, 128, X.shape).astype(np.int8)
    given = {"input": integers, "scale": PER_CHANNEL, "zero_point": np.array([1, -2, 3, 0], np.int8), "axis": -3}
    (found,) = evaluated("dequantize", given)
    for channel in range(4):
        whole = integers[:, channel].astype(np.float64) - float(given["zero_point"][channel])
        np.testing.assert_allclose(found[:, channel], whole * PER_CHANNEL[channel], rtol=1e-6)


def padding(
    kind: str, pad: list[int] | None, sides: tuple[int, int], kernel: tuple[int, int], strides: list[int]
) -> list[tuple[int, int]]:
    """By the words of the MIL reference: (before, behind) for the height and the width."""
    if kind == "valid":
        return [(0, 0), (0, 0)]
    if kind == "custom":
        assert pad is not None
        return [(pad[0], pad[1]), (pad[2], pad[3])]
    pairs = []
    for side, size, stride in zip(sides, kernel, strides, strict=True):
        total = max(0, (int(np.ceil(side / stride)) - 1) * stride + size - side)
        small, large = total // 2, total - total // 2
        pairs.append((small, large) if kind == "same" else (large, small))
    return pairs


def windows(image: NDArray[Any], kernel: tuple[int, int], strides: list[int], pairs: list[tuple[int, int]]) -> Any:
    """Every window of a feature map, where a NaN stands for padding."""
    padded = np.pad(image, [(0, 0), (0, 0), *pairs], constant_values=np.nan)
    rows = (padded.shape[2] - kernel[0]) // strides[0] + 1
    columns = (padded.shape[3] - kernel[1]) // strides[1] + 1
    for row in range(rows):
        for column in range(columns):
            top, left = row * strides[0], column * strides[1]
            yield row, column, (rows, columns), padded[:, :, top : top + kernel[0], left : left + kernel[1]]


KINDS = [("valid", None), ("same", None), ("same_lower", None), ("custom", [1, 0, 2, 1])]


@pytest.mark.parametrize(("kind", "pad"), KINDS)
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_is_its_sum(kind: str, pad: list[int] | None, groups: int) -> None:
    image = RANDOM.standard_normal((1, 4, 6, 7)).astype(np.float32)
    weight = RANDOM.standard_normal((6, 4 // groups, 3, 2)).astype(np.float32)
    bias, strides = np.arange(6, dtype=np.float32), [2, 3]
    given = {"x": image, "weight": weight, "bias": bias, "strides": strides, "pad_type": kind, "groups": groups}
    (found,) = evaluated("conv", given | ({"pad": pad} if pad else {}))
    inputs, outputs = 4 // groups, 6 // groups
    for row, column, shape, window in windows(image, (3, 2), strides, padding(kind, pad, (6, 7), (3, 2), strides)):
        assert found.shape == (1, 6, *shape)
        filled = np.nan_to_num(window)
        for channel in range(6):
            first = channel // outputs * inputs
            expected = (filled[0, first : first + inputs] * weight[channel]).sum() + bias[channel]
            assert abs(found[0, channel, row, column] - expected) < 1e-4


@pytest.mark.parametrize(("kind", "pad"), KINDS)
@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("exclude", [False, True])
def test_pooling_is_its_window(kind: str, pad: list[int] | None, name: str, exclude: bool) -> None:
    image = RANDOM.standard_normal((1, 2, 6, 7)).astype(np.float32)
    strides = [2, 2]
    given: dict[str, Any] = {"x": image, "kernel_sizes": [3, 3], "strides": strides, "pad_type": kind}
    given |= {"pad": pad} if pad else {}
    given |= {"exclude_padding_from_average": exclude} if name == "avg_pool" else {}
    (found,) = evaluated(name, given)
    for row, column, shape, window in windows(image, (3, 3), strides, padding(kind, pad, (6, 7), (3, 3), strides)):
        assert found.shape[2:] == shape
        if name == "max_pool":
            expected = np.nanmax(window, axis=(2, 3))
        else:
            expected = np.nanmean(window, axis=(2, 3)) if exclude else np.nan_to_num(window).mean(axis=(2, 3))
        np.testing.assert_allclose(found[:, :, row, column], expected, rtol=1e-5, atol=1e-6)


def test_norms_by_their_formulas() -> None:
    gamma, beta = PER_CHANNEL, -PER_CHANNEL
    over = {"x": X, "gamma": gamma, "beta": beta, "epsilon": np.float32(1e-3)}
    column = (1, 4, 1, 1)
    (batch,) = evaluated("batch_norm", {**over, "mean": gamma * 2, "variance": gamma * 3})
    expected = (X - (gamma * 2).reshape(column)) / np.sqrt((gamma * 3).reshape(column) + 1e-3)
    np.testing.assert_allclose(batch, expected * gamma.reshape(column) + beta.reshape(column), rtol=1e-4, atol=1e-5)
    (instance,) = evaluated("instance_norm", over)
    centred = (X - X.mean((2, 3), keepdims=True)) / np.sqrt(X.var((2, 3), keepdims=True) + 1e-3)
    np.testing.assert_allclose(instance, centred * gamma.reshape(column) + beta.reshape(column), rtol=1e-4, atol=1e-5)
    (layer,) = evaluated("layer_norm", {**over, "axes": [1]})
    centred = (X - X.mean(1, keepdims=True)) / np.sqrt(X.var(1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(layer, centred * gamma.reshape(column) + beta.reshape(column), rtol=1e-4, atol=1e-5)
    (unit,) = evaluated("l2_norm", {"x": X, "epsilon": np.float32(1e-3)})
    np.testing.assert_allclose(unit, X / np.sqrt((X**2).sum((1, 2, 3), keepdims=True) + 1e-3), rtol=1e-5)


# The grid points that the MIL reference lists for two pixels, 0 and 1
GRIDS = {
    ("UNALIGN_CORNERS", 5): [0.0, 0.1, 0.5, 0.9, 1.0],
    ("STRICT_ALIGN_CORNERS", 5): [0.0, 0.25, 0.5, 0.75, 1.0],
    ("ALIGN_CORNERS", 6): [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    ("DEFAULT", 5): [0.0, 0.4, 0.8, 1.0, 1.0],
    ("OFFSET_CORNERS", 5): [0.1, 0.3, 0.5, 0.7, 0.9],
    ("ALIGN_CORNERS", 1): [0.5],
    ("STRICT_ALIGN_CORNERS", 1): [0.0],
}


@pytest.mark.parametrize(("mode", "target"), GRIDS)
def test_bilinear_grid_is_the_references(mode: str, target: int) -> None:
    ramp = np.array([[[[0.0, 1.0]]]], np.float32)
    given = {"x": ramp, "target_size_height": 1, "target_size_width": target, "sampling_mode": mode}
    (found,) = evaluated("resize_bilinear", given)
    np.testing.assert_allclose(found[0, 0, 0], GRIDS[mode, target], atol=1e-6)


def test_upsampling_is_torchs() -> None:
    image = torch.from_numpy(X)
    factors = {"scale_factor_height": 3, "scale_factor_width": 2}
    (nearest,) = evaluated("upsample_nearest_neighbor", {"x": X, **factors})
    np.testing.assert_array_equal(nearest, X.repeat(3, axis=2).repeat(2, axis=3))
    for corners in (False, True):
        (found,) = evaluated("upsample_bilinear", {"x": X, **factors, "align_corners": corners})
        expected = torch.nn.functional.interpolate(image, (9, 12), mode="bilinear", align_corners=corners)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_padding_by_numpy() -> None:
    for mode, theirs in (("constant", "constant"), ("reflect", "reflect"), ("replicate", "edge")):
        (found,) = evaluated("pad", {"x": X, "pad": [0, 0, 0, 0, 1, 2, 3, 0], "mode": mode, "constant_val": 0.0})
        np.testing.assert_array_equal(found, np.pad(X, [(0, 0), (0, 0), (1, 2), (3, 0)], mode=theirs))  # type: ignore[call-overload]


def test_attention_by_its_formula() -> None:
    query, key, value = (RANDOM.standard_normal((1, 2, 5, 4)).astype(np.float32) for _ in range(3))
    (found,) = evaluated("scaled_dot_product_attention", {"query": query, "key": key, "value": value})
    logits = np.exp(query @ key.transpose(0, 1, 3, 2) / 2.0)
    np.testing.assert_allclose(found, logits / logits.sum(-1, keepdims=True) @ value, atol=1e-5)
