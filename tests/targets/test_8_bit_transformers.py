"""w8a8 of transformers and hybrids, read back from the written files: linear layers in 8 bit, norms and attention not.

The hybrids are a small convolutional network with one more module, written as timm writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from target_models import Make, Pixels
from test_8_bit_body import steps_of
from torch import Tensor, nn

from edgecsd.exporting.export import ExportResult, compare, export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.query import QueryModel, create_query_model, save_query_model
from edgecsd.photos.finding import find_images
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.artifact import convert, load_runner
from edgecsd.targets.coreml.program import CoremlProgram
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.inspecting import describe_file
from edgecsd.targets.metadata import Target

DIM, PHOTOS = 32, 12
TARGETS = ("onnx", "tflite", "coreml")
BLOCKS = 6  # of timm's test_vit
LAYERS = {"onnx": {"Conv", "MatMul", "Gemm"}, "tflite": {"CONV_2D", "FULLY_CONNECTED"}, "coreml": {"conv", "linear"}}
FLOATS = {
    "onnx": {"Softmax", "LayerNormalization", "Add", "Mul"},
    "tflite": {"SOFTMAX", "BATCH_MATMUL", "RSQRT", "MEAN", "ADD", "MUL"},
    "coreml": {"softmax", "layer_norm", "matmul", "add", "mul"},
}


class DividedAttention(nn.Module):
    """Linear attention (Cai et al., EfficientViT, ICCV 2023), as timm writes it; its sums are small."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        q, k, v = (0.01 * self.qkv(maps)).reshape(len(maps), 3, maps.shape[1], -1).transpose(2, 3).unbind(1)
        v = nn.functional.pad(v, (0, 1), value=1.0)
        found = q.relu() @ (k.relu().transpose(1, 2) @ v)
        found = found[..., :-1] / (found[..., -1:] + 1e-6)
        return maps + self.out(found.transpose(1, 2).reshape(maps.shape))


class GatedByColumn(nn.Module):
    """A vector of one column repeated over the map behind a convolution, as MobileViT v2's attention does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(width, 1 + 2 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        self.width = width

    def forward(self, maps: Tensor) -> Tensor:
        q, k, v = self.qkv(maps).split([1, self.width, self.width], dim=1)
        context = (k * q.softmax(dim=-1)).sum(dim=-1, keepdim=True)
        return maps + self.out(v.relu() * context.expand_as(v))


class Places(nn.Module):
    """Positions by a convolution of a constant, as EdgeNeXt does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.positions = nn.Conv2d(4, width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        rows = torch.linspace(0, 1, maps.shape[2])[:, None].expand(maps.shape[2:])
        constant = torch.stack([rows.sin(), rows.cos(), rows.T.sin(), rows.T.cos()])[None]
        return maps + self.out(maps + self.positions(constant))


def with_module(model: QueryModel, module: type[nn.Module]) -> DeployModel:
    """The model with one more module behind its blocks."""
    torch.manual_seed(3)
    deploy = DeployModel(model)
    backbone: Any = deploy.query_model.backbone
    backbone.blocks = nn.Sequential(backbone.blocks, module(backbone.blocks[-1][-1].bn3.num_features))  # type: ignore
    return deploy.eval()


def figures(
    deploy: DeployModel, made: ExportResult, target: str, precision: Precision, pixels: Pixels, folder: Path
) -> dict[str, float]:
    metadata = made.metadata.model_copy(update={"target": Target(target), "precision": precision})
    file = folder / f"file{Target(target).suffix}"
    convert(Target(target), deploy, file, precision, pixels if precision is Precision.W8A8 else None, metadata)
    with torch.inference_mode():
        expected = np.concatenate([deploy(torch.from_numpy(photo[None])).numpy() for photo in pixels])
    return compare(load_runner(file).embed(pixels), expected)


@pytest.mark.parametrize("target", TARGETS)
def test_a_division_keeps_its_epsilon(
    model: QueryModel, artifact: Make, pixels: Pixels, target: str, tmp_path: Path
) -> None:
    """In 8 bit the epsilon is 0, and so is the sum that it stands beside, at many places."""
    deploy = with_module(model, DividedAttention)
    found = figures(deploy, artifact("onnx", "fp32"), target, Precision.W8A8, pixels, tmp_path)
    assert found["cosine_mean"] > 0.97


@pytest.mark.parametrize("target", TARGETS)
def test_an_expanded_map_is_converted_as_torch_computes_it(
    model: QueryModel, artifact: Make, pixels: Pixels, target: str, tmp_path: Path
) -> None:
    deploy = with_module(model, GatedByColumn)
    found = figures(deploy, artifact("onnx", "fp32"), target, Precision.FP32, pixels[:2], tmp_path)
    assert found["max_difference"] < 1e-5


def test_a_convolution_of_a_constant_is_left_alone(
    model: QueryModel, artifact: Make, pixels: Pixels, tmp_path: Path
) -> None:
    deploy = with_module(model, Places)
    found = figures(deploy, artifact("onnx", "fp32"), "coreml", Precision.W8A8, pixels, tmp_path)
    assert found["cosine_mean"] > 0.97


@pytest.fixture(scope="module")
def transformer(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], ExportResult]:
    run = tmp_path_factory.mktemp("transformer")
    torch.manual_seed(0)
    model = create_query_model("test_vit", EmbeddingSpace(gallery_model="g", dim=DIM), pretrained=False)
    save_query_model(model.eval(), run)
    return lambda target, precision: export(
        run, target, precision, calibration=find_images(photos), calibration_count=PHOTOS, overwrite=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_linear_layers_of_a_transformer_are_in_8_bit(
    transformer: Callable[[str, str], ExportResult], target: str
) -> None:
    made = transformer(target, "w8a8")
    assert made.parity["cosine_mean"] > 0.99
    assert made.size_bytes < 0.4 * transformer(target, "fp32").size_bytes  # a small network: names are a tenth of it
    eight_bit = reading_8_bit(target, made.path)
    layers = sum(eight_bit.count(kind) for kind in LAYERS[target])
    assert layers == 4 * BLOCKS + 1, "query, key and value in one, three more; and the patches"
    assert not FLOATS[target] & set(eight_bit)


@pytest.mark.slow
def test_what_a_gpu_is_known_to_get_wrong_stands_with_the_file(transformer: Callable[[str, str], ExportResult]) -> None:
    (note,) = describe_file(Target.TFLITE, transformer("tflite", "fp32").path).notes
    assert note.startswith(f"{2 * BLOCKS} attention products of rank 3: LiteRT's GPU delegate may compute them wrongly")
    assert not describe_file(Target.ONNX, transformer("onnx", "fp32").path).notes


def reading_8_bit(target: str, path: Path) -> list[str]:
    """Types of the operators that read a computed value in 8 bit."""
    if target == "tflite":
        return [step.kind for step in steps_of(target, path) if step.eight_bit]
    if target == "coreml":
        steps = [(step.operator, step.values.values(), step.outputs[0].name) for step in CoremlProgram(path).steps]
        rounded = {output for kind, _, output in steps if kind == "dequantize"}
        return [kind for kind, given, _ in steps if rounded & set(map(str, given))]
    graph = onnx.load(str(path)).graph
    constants = {tensor.name for tensor in graph.initializer}
    rounded = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] not in constants}
    return [node.op_type for node in graph.node if rounded & set(node.input)]
