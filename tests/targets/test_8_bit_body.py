"""w8a8 of three backbones, read back from the written files: where 8 bit is, where it must not be, and the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import TensorProto, numpy_helper

from edgecsd.exporting.export import ExportResult, export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.backbones import to_input
from edgecsd.models.query import create_query_model, save_query_model
from edgecsd.models.query_config import Pooling
from edgecsd.photos.decoding import read_image
from edgecsd.photos.finding import find_images

pytestmark = pytest.mark.slow  # five conversions

SIZE, DIM = 96, 32
# Pretrained Lite0 comes in a package; the others get batch-norm statistics from photos, which is what 8 bit needs
BACKBONES = ("tf_efficientnet_lite0", "efficientnet_b0", "mobilenetv3_large_100")
CASES = [
    ("tf_efficientnet_lite0", "onnx"),
    *((name, target) for name in BACKBONES[1:] for target in ("onnx", "tflite")),
]
JOINED = {"mobilenetv3_large_100"}  # those that join GeM and the average
GATED = {"efficientnet_b0": 16, "mobilenetv3_large_100": 8}  # squeeze-and-excite blocks
TAIL = {"onnx": {"Gemm", "ReduceMax", "Pow", "Sqrt"}, "tflite": {"FULLY_CONNECTED", "REDUCE_MAX", "POW", "SQRT"}}


@dataclass(frozen=True)
class Step:
    """An operator of a written file: its type, and whether any value that it reads or writes is held in 8 bit."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    eight_bit: bool
    gate: bool  # writes one value a channel


def run_folder(name: str, photos: Path, folder: Path) -> Path:
    torch.manual_seed(11)
    pretrained = name == "tf_efficientnet_lite0"
    space = EmbeddingSpace(gallery_model="g", dim=DIM)
    pooling = Pooling.GEM_AVERAGE if name in JOINED else Pooling.GEM
    model = create_query_model(name, space, size=SIZE, pretrained=pretrained, pooling=pooling)
    if not pretrained:
        images = find_images(photos)
        contract = model.config.preprocess
        pixels = np.stack([contract.pixels(read_image(images.path(i))[0]) for i in range(24)])
        model.train()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = 0.5
            for _ in range(6):
                model(to_input(pixels, contract))
    save_query_model(model.eval(), folder)
    return folder


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def exported(
    request: pytest.FixtureRequest, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str, ExportResult]:
    name, target = request.param
    run = run_folder(name, photos, tmp_path_factory.mktemp(name))
    made = export(run, target, "w8a8", calibration=find_images(photos), calibration_count=16)
    return name, target, made


def onnx_steps(path: Path) -> list[Step]:
    """A float value between DequantizeLinear and QuantizeLinear counts as 8 bit, which it is when it runs."""
    proto = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    nodes = list(proto.graph.node)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.value_info}
    weights = {tensor.name for tensor in proto.graph.initializer if tensor.data_type == TensorProto.INT8}
    rounded = {n.output[0] for n in nodes if n.op_type == "DequantizeLinear" and n.input[0] not in weights}
    rounded |= {n.input[0] for n in nodes if n.op_type == "QuantizeLinear"}
    quantisers = {"QuantizeLinear", "DequantizeLinear"}
    return [
        Step(
            node.op_type,
            tuple(node.input),
            tuple(node.output),
            any(v in rounded for v in node.output) and any(v in rounded for v in node.input),
            _one_a_channel(shapes.get(node.output[0])),
        )
        for node in nodes
        if node.op_type not in quantisers
    ]


def tflite_steps(path: Path) -> list[Step]:
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}

    def integer(indices: Any) -> bool:
        return any(tensors[i]["dtype"] is np.int8 for i in indices)

    return [
        Step(
            operator["op_name"],
            tuple(map(str, operator["inputs"])),
            tuple(map(str, operator["outputs"])),
            integer([*operator["inputs"], *operator["outputs"]]),
            _one_a_channel(list(tensors[operator["outputs"][0]]["shape"])),
        )
        for operator in interpreter._get_ops_details()
        if operator["op_name"] not in ("QUANTIZE", "DEQUANTIZE")
    ]


def _one_a_channel(shape: list[int] | None) -> bool:
    return shape is not None and sum(side > 1 for side in shape) <= 1


def steps_of(target: str, path: Path) -> list[Step]:
    return onnx_steps(path) if target == "onnx" else tflite_steps(path)


def is_convolution(step: Step) -> bool:
    return step.kind in ("Conv", "CONV_2D", "DEPTHWISE_CONV_2D")


def test_8_bit_is_between_the_convolutions_and_nowhere_else(exported: tuple[str, str, ExportResult]) -> None:
    name, target, made = exported
    steps = steps_of(target, made.path)
    places = [place for place, step in enumerate(steps) if is_convolution(step)]
    before, body, tail = steps[: places[0]], steps[places[0] : places[-1] + 1], steps[places[-1] + 1 :]
    assert {"Sub", "SUB"} & {step.kind for step in before}  # the division may be part of the first convolution
    assert {step.kind for step in before if step.eight_bit} <= {"PAD"}  # in front of the first convolution
    assert TAIL[target] <= {step.kind for step in tail}
    assert [step.kind for step in tail if step.eight_bit] == []
    gates = [step for step in body if step.gate]
    assert [step.kind for step in gates if step.eight_bit] == []
    assert sum(is_convolution(step) for step in gates) == 2 * GATED.get(name, 0)
    assert all(step.eight_bit for step in body if is_convolution(step) and not step.gate)


def test_embeddings_are_those_of_torch(exported: tuple[str, str, ExportResult]) -> None:
    name, _, made = exported
    assert np.isfinite(list(made.parity.values())).all()
    # Random weights amplify every rounding, by how much depends on the seed: these are not explosions
    assert made.parity["cosine_mean"] > (0.98 if name == "tf_efficientnet_lite0" else 0.85)


def test_nothing_in_the_file_is_32_bit_but_small_things(exported: tuple[str, str, ExportResult]) -> None:
    """The gates' convolutions and the projection compute in float, with weights of 8 bit."""
    _, target, made = exported
    if target == "onnx":
        arrays = [numpy_helper.to_array(tensor) for tensor in onnx.load(str(made.path)).graph.initializer]
        large = sum(a.nbytes for a in arrays if a.dtype == np.float32 and a.ndim > 1)
    else:
        details = Interpreter(model_path=str(made.path)).get_tensor_details()
        interpreter = Interpreter(model_path=str(made.path))
        large = 0
        for tensor in details:
            if tensor["dtype"] is np.float32 and len(tensor["shape"]) > 1 and min(tensor["shape"]) > 0:
                try:
                    interpreter.get_tensor(tensor["index"])  # constants alone have values before the first run
                except ValueError:
                    continue
                large += int(np.prod(tensor["shape"])) * 4
    assert large < 0.01 * made.size_bytes
