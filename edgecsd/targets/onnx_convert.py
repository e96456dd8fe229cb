"""Torch -> ONNX: float, half, 8-bit weights, and 8-bit convolutions with a float head."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import missing_extra
from edgecsd.quantization import Precision
from edgecsd.targets.artifact import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, ArtifactMetadata
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.quiet import quiet_conversion

try:
    import onnx
    import onnxscript  # noqa: F401  torch's exporter loads it by itself, and fails late and unclearly without it
    import torch
    from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from onnxruntime.transformers.float16 import convert_float_to_float16
except ImportError as error:
    raise missing_extra(error.name or "onnx", "onnx") from None

PERCENTILE = 99.99  # of activations: cosine mean 0.993 against 0.991 for min-max, minimum 0.953 against 0.906 (Lite0)
WEIGHT_AXIS = {"Conv": 0, "MatMul": 1}  # output channels of the weight, its second input; Gemm depends on transB
ACTIVATIONS = frozenset({"Clip", "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Mul"})  # Mul: of SiLU
BODY_OPERATORS = [
    "Conv", "Clip", "Relu", "LeakyRelu", "Sigmoid", "Add", "Mul", "ReduceMean", "GlobalAveragePool", "AveragePool",
    "MaxPool", "Concat", "Pad", "Split",
]  # fmt: skip


def convert(
    model: DeployModel,
    out: Path,
    precision: Precision,
    calibration: NDArray[np.uint8] | None,
    metadata: ArtifactMetadata,
) -> None:
    """Write `model` to `out`; calibration (n, S, S, 3) uint8 is used by w8a8 alone."""
    with quiet_conversion(f"the conversion to ONNX {precision}"), tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "float.onnx"
        proto = _export(model, exported)
        if precision is Precision.FP16:
            proto = convert_float_to_float16(proto, keep_io_types=True)
        elif precision is Precision.W8A32:
            store_weights_in_8_bit(proto, {"Conv", "Gemm", "MatMul"})
        elif precision is Precision.W8A8:
            assert calibration is not None
            proto, ranges = _quantise_body(exported, calibration)
            metadata = metadata.model_copy(update={"recipe": recipe_name(ranges)})
            store_weights_in_8_bit(proto, {"Gemm", "MatMul"})
        entry = proto.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, metadata.model_dump_json()
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, str(out))


def recipe_name(ranges: CalibrationMethod) -> str:
    """What the metadata calls the w8a8 recipe, by how its ranges were chosen."""
    chosen = f"percentile-{PERCENTILE}" if ranges is CalibrationMethod.Percentile else "min-max"
    return f"qdq-u8s8-per-channel-{chosen}-body-only"


def _export(model: DeployModel, file: Path) -> ModelProto:
    torch.onnx.export(
        model, (model.example(),), str(file), dynamo=True, external_data=False,
        input_names=[INPUT_NAME], output_names=[OUTPUT_NAME],
    )  # fmt: skip
    return onnx.load(str(file))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Photos one at a time: with a stride of 1 the calibrator keeps the activations of one photo, not of all (GBs)."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._pixels, self._next, self._end = pixels, 0, len(pixels)

    def __len__(self) -> int:
        return len(self._pixels)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next, self._end = start_index, end_index

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        if self._next >= self._end:
            return None
        self._next += 1
        return {INPUT_NAME: self._pixels[self._next - 1 : self._next]}


def _quantise_body(exported: Path, calibration: NDArray[np.uint8]) -> tuple[ModelProto, CalibrationMethod]:
    """The model with 8-bit convolutions, and how the ranges of its activations were chosen."""
    prepared, written = exported.with_name("prepared.onnx"), exported.with_name("w8a8.onnx")
    # From a file: given a ModelProto it fails on external data. The symbolic pass fails on these graphs.
    quant_pre_process(str(exported), str(prepared), skip_symbolic_shape=True)
    nodes = list(onnx.load(str(prepared)).graph.node)
    body = body_nodes(nodes)
    outside = [node.name for node in nodes if node.name not in body]
    method = CalibrationMethod.Percentile
    try:
        _quantise(prepared, written, calibration, outside, method)
    except ValueError:  # numpy cannot cut an almost constant tensor (a dead or untrained layer) into 2048 bins
        method = CalibrationMethod.MinMax
        _quantise(prepared, written, calibration, outside, method)
    return onnx.load(str(written)), method


def _quantise(
    prepared: Path, written: Path, calibration: NDArray[np.uint8], outside: list[str], method: CalibrationMethod
) -> None:
    quantize_static(
        str(prepared), str(written), _Reader(calibration), quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        per_channel=True,  # per tensor costs 0.1 of cosine on depthwise nets
        op_types_to_quantize=BODY_OPERATORS, nodes_to_exclude=outside, calibrate_method=method,
        extra_options={"CalibPercentile": PERCENTILE, "CalibStridedMinMax": 1},
    )  # fmt: skip


def body_nodes(nodes: list[NodeProto]) -> set[str]:
    """Names of the nodes from the first convolution to the last and its activation; `nodes` are in topological order.

    What is outside stays float: the normalisation of the input in front, pooling, projection and L2 behind. 8-bit
    division and powers are wrong there without a warning (values of 1e10 were seen).
    """
    places = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
    if not places:
        return set()
    body = {node.name for node in nodes[places[0] : places[-1] + 1]}
    activated = set(nodes[places[-1]].output)
    for node in nodes[places[-1] + 1 :]:
        constants = {name for name in node.input if not any(name in other.output for other in nodes)}
        if node.op_type not in ACTIVATIONS or not set(node.input) - constants <= activated:
            break
        body.add(node.name)
        activated |= set(node.output)
    return body


def store_weights_in_8_bit(proto: ModelProto, operators: set[str]) -> None:
    """Replace float weights by int8, symmetric per output channel, and a DequantizeLinear; the operators stay float."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    added: list[NodeProto] = []
    for node in proto.graph.node:
        if node.op_type not in operators or len(node.input) < 2 or node.input[1] not in weights:
            continue
        tensor = weights[node.input[1]]
        depthwise = node.op_type == "Conv" and tensor.dims[1] == 1
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or depthwise:
            continue
        added.append(_dequantised(proto, tensor, _weight_axis(node)))
        node.input[1] = added[-1].output[0]
    nodes = [*added, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    _drop_unused(proto)


def _weight_axis(node: NodeProto) -> int:
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return WEIGHT_AXIS[node.op_type]


def _dequantised(proto: ModelProto, tensor: TensorProto, axis: int) -> NodeProto:
    values = numpy_helper.to_array(tensor)
    others = tuple(i for i in range(values.ndim) if i != axis)
    scale = np.maximum(np.abs(values).max(axis=others) / 127.0, 1e-12).astype(np.float32)
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    integers = np.clip(np.round(values / scale.reshape(shape)), -127, 127).astype(np.int8)
    # The zero points are written out, though 0 is the default: onnxruntime's rewriting for AVX2 fails without them.
    zeros = np.zeros(scale.shape, np.int8)
    names = [f"{tensor.name}_{part}" for part in ("8bit", "scale", "zero_point")]
    for name, array in zip(names, (integers, scale, zeros), strict=True):
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    result = f"{tensor.name}_float"
    return helper.make_node("DequantizeLinear", names, [result], name=f"{tensor.name}_dequantize", axis=axis)


def _drop_unused(proto: ModelProto) -> None:
    used = {name for node in proto.graph.node for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
