"""Compressed weights, as coremltools writes them, are expanded to what coremltools itself expands them to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import pytest
import torch
from coremltools.optimize import coreml as optimize
from torch import nn

from edgecsd.errors import BadInputError
from edgecsd.quiet import quiet_conversion
from edgecsd.targets.coreml.program import CoremlProgram
from edgecsd.targets.coreml.weights import EXPANSIONS, expanded

Model = Any
Compress = Callable[[Model], Model]
SHAPE = (1, 16, 6, 6)


@pytest.fixture(scope="module")
def packages() -> dict[str, Model]:
    """One convolution, float16 weights, for iOS 16 and iOS 18."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(16, 64, 3), nn.ReLU(), nn.Conv2d(64, 32, 1)).eval()
    made = {}
    with quiet_conversion("the conversion"):
        for name in ("iOS16", "iOS18"):
            program = torch.export.export(network, (torch.zeros(SHAPE),)).run_decompositions({})
            made[name] = coremltools.convert(
                program,
                inputs=[coremltools.TensorType("x", SHAPE)],
                convert_to="mlprogram",
                skip_model_load=True,
                minimum_deployment_target=getattr(coremltools.target, name),
            )
    return made


def linear(**settings: Any) -> Compress:
    config = optimize.OptimizationConfig(optimize.OpLinearQuantizerConfig(weight_threshold=16, **settings))
    return lambda model: optimize.linear_quantize_weights(model, config)


def palette(**settings: Any) -> Compress:
    config = optimize.OptimizationConfig(optimize.OpPalettizerConfig(weight_threshold=16, **settings))
    return lambda model: optimize.palettize_weights(model, config)


def pruned(model: Model) -> Model:
    settings = optimize.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=16)
    return optimize.prune_weights(model, optimize.OptimizationConfig(settings))


def pruned_palette(model: Model) -> Model:
    settings = optimize.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=16)
    return optimize.palettize_weights(pruned(model), optimize.OptimizationConfig(settings), joint_compression=True)


def pruned_integers(model: Model) -> Model:
    settings = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=16)
    return optimize.linear_quantize_weights(
        pruned(model), optimize.OptimizationConfig(settings), joint_compression=True
    )


def palette_of_integers(model: Model) -> Model:
    """A look-up table whose entries are 8-bit integers with a scale: one constexpr operator reads another."""
    settings = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", granularity="per_tensor", weight_threshold=16)
    return optimize.linear_quantize_weights(
        palette(mode="uniform", nbits=4)(model), optimize.OptimizationConfig(settings), joint_compression=True
    )


CASES: list[tuple[str, str, Compress, str]] = [
    ("affine, per channel", "iOS16", linear(mode="linear_symmetric"), "constexpr_affine_dequantize"),
    ("affine, unsigned", "iOS16", linear(mode="linear", dtype="uint8"), "constexpr_affine_dequantize"),
    ("palette of 6 bits", "iOS16", palette(mode="uniform", nbits=6), "constexpr_lut_to_dense"),
    ("sparse", "iOS16", pruned, "constexpr_sparse_to_dense"),
    (
        "blockwise, 4 bits",
        "iOS18",
        linear(mode="linear", dtype="int4", granularity="per_block", block_size=8),
        "constexpr_blockwise_shift_scale",
    ),
    ("blockwise, 8 bits", "iOS18", linear(mode="linear_symmetric"), "constexpr_blockwise_shift_scale"),
    (
        "palettes by group",
        "iOS18",
        palette(mode="uniform", nbits=3, granularity="per_grouped_channel", group_size=8),
        "constexpr_lut_to_dense",
    ),
    ("sparse", "iOS18", pruned, "constexpr_sparse_to_dense"),
    ("sparse palette", "iOS18", pruned_palette, "constexpr_lut_to_sparse"),
    ("sparse integers", "iOS18", pruned_integers, "constexpr_sparse_blockwise_shift_scale"),
    ("palette of integers", "iOS18", palette_of_integers, "constexpr_lut_to_dense"),
]


def saved(model: Model, path: Path) -> CoremlProgram:
    model.save(str(path))
    return CoremlProgram(path)


def weights(program: CoremlProgram) -> list[torch.Tensor]:
    return [step.constants["weight"] for step in program.steps if step.operator == "conv"]


@pytest.mark.parametrize(("name", "system", "compress", "operator"), CASES, ids=[f"{c[1]} {c[0]}" for c in CASES])
def test_weights_are_those_that_coremltools_expands(
    name: str, system: str, compress: Compress, operator: str, packages: dict[str, Model], tmp_path: Path
) -> None:
    with quiet_conversion(f"compressing: {name}"):
        compressed = compress(packages[system])
        mine = saved(compressed, tmp_path / "compressed.mlpackage")
        theirs = saved(optimize.decompress_weights(compressed), tmp_path / "expanded.mlpackage")
    spec = compressed.get_spec()
    used = {
        op.type
        for f in spec.mlProgram.functions.values()
        for b in f.block_specializations.values()
        for op in b.operations
    }
    assert operator in used
    assert len(weights(mine)) == 2
    for ours, other in zip(weights(mine), weights(theirs), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-6)  # fp16 products
        assert len(ours.unique()) > 4
    given = torch.randn(SHAPE)
    torch.testing.assert_close(mine.run(given), theirs.run(given), rtol=2e-3, atol=2e-3)


class Double:
    """As much of a MIL value as `expanded` reads."""

    def __init__(self, operator: str, **given: Any) -> None:
        self.op: Any = self
        self.op_type, self.outputs = operator, [self]
        self.inputs = {name: Constant(value) for name, value in given.items()}


class Constant:
    op = None

    def __init__(self, value: Any) -> None:
        self.val = value


def test_the_references_examples() -> None:
    """Those that the MIL reference works out for palettes by group, vector palettes and blocks."""
    indices = np.array([2, 3, 3, 0, 1, 0, 3, 0, 2, 1, 0, 3], np.uint8).reshape(6, 2)
    lut = np.array([1, 5, 9, 13, 2, 10, 18, 26], np.float16).reshape(2, 1, 4, 1)
    found = expanded(Double("constexpr_lut_to_dense", indices=indices, lut=lut))
    assert found.tolist() == [[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]]
    indices = np.array([0, 0, 1, 0, 1, 1, 0, 0], np.uint8).reshape(2, 2, 2)
    lut = np.array([1, 2, 3, 11, 12, 13], np.int8).reshape(1, 1, 1, 2, 3)
    down = expanded(Double("constexpr_lut_to_dense", indices=indices, lut=lut, vector_axis=1))
    assert down[0].tolist() == [[1, 1], [2, 2], [3, 3], [11, 1], [12, 2], [13, 3]]
    across = expanded(Double("constexpr_lut_to_dense", indices=indices, lut=lut, vector_axis=2))
    assert across[1].tolist() == [[11, 12, 13, 11, 12, 13], [1, 2, 3, 1, 2, 3]]
    data, scale = np.arange(8, dtype=np.int8).reshape(2, 4), np.array([[0.5, 2]], np.float32)
    offset = np.array([[1, -1]], np.int8)
    blocks = expanded(Double("constexpr_blockwise_shift_scale", data=data, scale=scale, offset=offset))
    assert blocks.tolist() == [[-0.5, 0, 6, 8], [1.5, 2, 14, 16]]


def test_sparse_vectors_by_the_references_example() -> None:
    mask = np.array([[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1], [0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]], np.uint8)
    values = np.array([0, 1, 1, 0, 1, 1, 0, 0, 1], np.uint8)
    lut = np.array([[2, 2], [3, 3]], np.float16).reshape(1, 1, 2, 2)
    given = {"indices_mask": mask, "indices_nonzero_data": values, "lut": lut, "vector_axis": np.int32(0)}
    wide, dense = EXPANSIONS["constexpr_lut_to_sparse"](given)
    np.testing.assert_array_equal(wide, mask.repeat(2, axis=0))
    first = [2, 3]
    assert dense[:4].tolist() == first * 2 and len(dense) == 18


def test_an_unknown_compression_is_named() -> None:
    with pytest.raises(BadInputError, match=r"'constexpr_magic' cannot be expanded \(known: constexpr_affine_"):
        expanded(Double("constexpr_magic"))


def test_cast() -> None:
    half = np.array([1.5, -2], np.float16)
    assert expanded(Double("constexpr_cast", source_val=half, output_dtype="fp32")).dtype == np.float32
