"""Bias correction, the rounding it is for, and recipes of w8a8 that the written file keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from torch import nn

from edgecsd.errors import BadInputError
from edgecsd.exporting.export import export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.query import create_query_model, save_query_model
from edgecsd.photos.finding import find_images
from edgecsd.quantisation.bias_correction import convolutions_in_order, correct_biases, rounded_weights
from edgecsd.quantisation.calibration import synthetic_pixels
from edgecsd.quantisation.precisions import STANDARD, EightBit
from edgecsd.targets.deploy import DeployModel


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    torch.manual_seed(1)
    space = EmbeddingSpace(gallery_model="g", dim=16)
    save_query_model(create_query_model("test_efficientnet", space, size=64, pretrained=False), folder)
    return folder


@pytest.fixture
def deploy() -> DeployModel:
    torch.manual_seed(2)
    space = EmbeddingSpace(gallery_model="g", dim=16)
    return DeployModel(create_query_model("test_efficientnet", space, size=64, pretrained=False))


def test_weights_round_to_255_levels_a_channel() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 3, 3) * torch.tensor([1e-3, 1, 10, 100, 0]).view(5, 1, 1, 1)
    rounded = rounded_weights(weight)
    for channel in range(4):
        step = weight[channel].abs().max() / 127
        assert (rounded[channel] / step).round().sub(rounded[channel] / step).abs().max() < 1e-3
        assert (rounded[channel] - weight[channel]).abs().max() <= step / 2 * 1.0001
    assert not rounded[4].any()


@pytest.mark.parametrize("backbone", ["test_efficientnet", "tf_efficientnet_lite0"])
def test_the_mean_of_each_channel_is_kept(backbone: str) -> None:
    """Of the first layer, whose input is the same: with rounded weights and the new bias its mean is the float's.

    Lite0's pads as TensorFlow does: 1 below and to the right where the other has 1 all around.
    """
    torch.manual_seed(2)
    space = EmbeddingSpace(gallery_model="g", dim=16)
    deploy = DeployModel(create_query_model(backbone, space, size=64, pretrained=False))
    pixels = synthetic_pixels(64, count=4)
    layer = convolutions_in_order(deploy, pixels[:1])[0]
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output.mean(dim=(0, 2, 3))))

    def means() -> torch.Tensor:
        seen.clear()
        with torch.inference_mode():
            for photo in pixels:
                deploy(torch.from_numpy(photo[None]))
        return torch.stack(seen).mean(dim=0)

    before = means()
    exact = layer.weight.data
    layer.weight.data = rounded_weights(exact)
    uncorrected = (means() - before).abs().max()
    layer.weight.data = exact
    assert correct_biases(deploy, pixels) == sum(isinstance(m, nn.Conv2d) for m in deploy.modules())
    layer.weight.data = rounded_weights(exact)
    assert uncorrected > 1e-4 and (means() - before).abs().max() < 1e-5
    handle.remove()


def test_weights_that_stay_float_are_not_corrected(deploy: DeployModel) -> None:
    pixels = synthetic_pixels(64, count=2)
    layers = convolutions_in_order(deploy, pixels[:1])
    depthwise = next(place for place, layer in enumerate(layers) if layer.weight.shape[1] == 1)
    before = [layer.bias is None for layer in layers]
    assert before[0] and before[depthwise] and depthwise != 0
    correct_biases(deploy, pixels, EightBit(float_convolutions=frozenset({0, depthwise})))
    assert [place for place, layer in enumerate(layers) if layer.bias is None] == [depthwise]


def test_float_weights_are_not_corrected(deploy: DeployModel) -> None:
    pixels = synthetic_pixels(64, count=2)
    layers = convolutions_in_order(deploy, pixels[:1])
    correct_biases(deploy, pixels, EightBit(float_convolutions=frozenset({0, 2}), float_weights=True))
    assert [place for place, layer in enumerate(layers) if layer.bias is None] == [0, 2]


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_named_convolutions_stay_float(target: str, run: Path, photos: Path, tmp_path: Path) -> None:
    """By their place, the same in both targets, read back from the files."""
    kept = frozenset({1, 4})
    counts = []
    for number, how in enumerate((STANDARD, EightBit(float_convolutions=kept))):
        out = tmp_path / f"{number}.{target}"
        made = export(run, target, "w8a8", out=out, calibration=find_images(photos), calibration_count=8, how=how)
        counts.append(float_convolutions(out))
        assert made.metadata.recipe.endswith("float-convolutions-1-4") == (how != STANDARD)
    assert counts[1] - counts[0] == kept


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_weights_of_float_convolutions_are_8_bit_unless_asked_for(
    target: str, run: Path, photos: Path, tmp_path: Path
) -> None:
    """Weight-only parts: read back from the files, two of which differ by nothing but those weights."""
    kept = frozenset({0, 4})
    sizes, weights = [], []
    for number, how in enumerate((EightBit(float_convolutions=kept), EightBit(100.0, kept, float_weights=True))):
        out = tmp_path / f"{number}.{target}"
        export(run, target, "w8a8", out=out, calibration=find_images(photos), calibration_count=8, how=how)
        assert kept <= float_convolutions(out)
        sizes.append(out.stat().st_size)
        weights.append(float_weights(out))
    assert not kept & weights[0] and kept <= weights[1] and sizes[0] < sizes[1]


def float_weights(file: Path) -> set[int]:
    """Places of the convolutions whose weights are stored in 32 bit."""
    if file.suffix == ".onnx":
        graph = onnx.load(str(file)).graph
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        layers = [node for node in graph.node if node.op_type == "Conv"]
        return {place for place, node in enumerate(layers) if types.get(node.input[1]) == onnx.TensorProto.FLOAT}
    interpreter = Interpreter(model_path=str(file), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    kinds = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    every = interpreter._get_ops_details()
    stored = {
        op["outputs"][0]: op["inputs"][0] for op in every if op["op_name"] == "DEQUANTIZE"
    }  # made float at run time
    operators = [op for op in every if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    weights = [op["inputs"][1] for op in operators]
    return {place for place, index in enumerate(weights) if kinds[stored.get(index, index)] is np.float32}


def float_convolutions(file: Path) -> set[int]:
    """Places of the convolutions that compute in float; onnxruntime takes one with a float bias for such."""
    if file.suffix == ".onnx":
        graph = onnx.load(str(file)).graph
        by = {value: node.op_type for node in graph.node for value in node.output}
        layers = [node for node in graph.node if node.op_type == "Conv"]
        return {
            place
            for place, node in enumerate(layers)
            if len(node.input) == 3 and by.get(node.input[2]) != "DequantizeLinear"
        }
    interpreter = Interpreter(model_path=str(file), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    types = {tensor["index"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    operators = [op for op in interpreter._get_ops_details() if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    return {place for place, op in enumerate(operators) if types[op["inputs"][0]] is np.float32}


def test_recipes_are_named_and_refused_where_they_do_not_apply(run: Path, photos: Path) -> None:
    assert STANDARD.changes == ""
    assert (
        EightBit(99.9, frozenset({7, 2}), False).changes
        == "percentile-99.9-biases-not-corrected-float-convolutions-2-7"
    )
    assert (
        EightBit(float_convolutions=frozenset({7}), equalisation=True, float_weights=True).changes
        == "equalised-float-convolutions-7-float-weights"
    )
    for wrong in (
        {"percentile": 50.0},
        {"percentile": 100.5},
        {"float_convolutions": frozenset({-1})},
        {"float_weights": True},
    ):
        with pytest.raises(BadInputError):
            EightBit(**wrong)
    with pytest.raises(BadInputError, match=r"fp16 has one recipe; percentile-100 goes with w8a8"):
        export(run, "onnx", "fp16", how=EightBit(100.0))
    with pytest.raises(BadInputError, match="target coreml has one recipe for w8a8, not biases-not-corrected"):
        export(
            run,
            "coreml",
            "w8a8",
            calibration=find_images(photos),
            calibration_count=8,
            how=EightBit(bias_correction=False),
        )
