"""8 bit in ONNX: QDQ convolutions with percentile ranges and a float head, and 8-bit weights of float operators."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgecsd.quantisation.precisions import STANDARD, EightBit
from edgecsd.targets.activation_ranges import Range, activation_ranges
from edgecsd.targets.artifact import INPUT_NAME
from edgecsd.targets.graph_body import Operation, Shape, Words, eight_bit_operations

TABLE = 16384  # values; one scale a head, or a place
WEIGHT_AXIS = {"Conv": 0, "MatMul": 1}  # output channels of the weight, its second input; Gemm depends on transB
# Types with an 8-bit kernel in onnxruntime; HardSwish and HardSigmoid have none and compute in float between two 8-bit
# values. SiLU (Sigmoid, Mul) is 8 bit: left float it gained nothing (EfficientNet-B0, cosine of what differs between
# photos 0.905 against 0.907) and cost 13 % of the time.
WORDS = Words(
    convolutions=frozenset({"Conv"}),
    eight_bit=frozenset(
        {"Conv", "Clip", "Relu", "LeakyRelu", "Sigmoid", "Add", "Mul", "AveragePool", "MaxPool", "Concat", "Pad"}
    ),
    clamps=frozenset({"Clip", "Relu"}),
    products=frozenset({"MatMul", "Gemm"}),
    attention=frozenset({"Softmax"}),
    moves=frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Add", "Mul", "Cast"}),
)


def quantise_body(exported: Path, calibration: NDArray[np.uint8], how: EightBit = STANDARD) -> ModelProto:
    """The float model in the file `exported`, with its body in 8 bit and the weights of the rest stored in 8 bit.

    calibration   (n, S, S, 3) uint8 photos, one at a time through the float model, for the ranges of activations
    """
    prepared = exported.with_name("prepared.onnx")
    # From a file: given a ModelProto it fails on external data. The symbolic pass fails on these graphs.
    quant_pre_process(str(exported), str(prepared), skip_symbolic_shape=True)
    proto = onnx.load(str(prepared))
    _name_apart(proto.graph.node)
    _give_own_weights(proto)
    floats = how.float_convolutions
    chosen = set(eight_bit_operations(operations_of(proto), shapes_of(proto), WORDS, floats))
    left = _give_biases(proto, floats)
    if chosen:
        proto = _with_pairs(proto, chosen, calibration, how.percentile)
    store_weights_in_8_bit(proto, {"Conv", "Gemm", "MatMul"}, left if how.float_weights else frozenset())
    return proto


def _name_apart(nodes: Iterable[NodeProto]) -> None:
    """Give every node a name of its own: functions that the exporter writes out several times leave doubles."""
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type}_{number}"


def _give_own_weights(proto: ModelProto) -> None:
    """A copy of a weight that several layers read for each but the first.

    torch's exporter makes one of equal small ones; onnxruntime cannot load a file whose 8-bit convolutions share it.
    """
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    read: set[str] = set()
    for node in proto.graph.node:
        if node.op_type not in WORDS.convolutions | WORDS.products or node.input[1] not in weights:
            continue
        if node.input[1] in read:
            own = proto.graph.initializer.add()
            own.CopyFrom(weights[node.input[1]])
            own.name = node.input[1] = f"{node.input[1]}_of_{node.name}"
        read.add(node.input[1])


def _give_biases(proto: ModelProto, floats: frozenset[int]) -> frozenset[str]:
    """A bias of zeros for convolutions that stay float and have none; the names of their weights, of all of them.

    Between 8-bit values, onnxruntime takes a convolution of 8-bit weights for an 8-bit one unless it has a float bias.
    """
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    layers = [node for node in proto.graph.node if node.op_type in WORDS.convolutions]
    chosen = [layers[place] for place in floats if place < len(layers)]
    for node in chosen:
        if len(node.input) == 2:
            zeros = np.zeros(weights[node.input[1]].dims[0], np.float32)
            proto.graph.initializer.append(numpy_helper.from_array(zeros, f"{node.name}_bias"))
            node.input.append(f"{node.name}_bias")
    return frozenset(node.input[1] for node in chosen)


def operations_of(proto: ModelProto) -> list[Operation]:
    """The graph's nodes, without their constant inputs."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return [
        Operation(node.name, node.op_type, tuple(v for v in node.input if v and v not in constants), tuple(node.output))
        for node in proto.graph.node
    ]


def shapes_of(proto: ModelProto) -> dict[str, Shape]:
    """Shapes of the values that shape inference found."""
    return {
        value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
        for value in [*proto.graph.input, *proto.graph.value_info, *proto.graph.output]
    }


def _with_pairs(proto: ModelProto, chosen: set[str], calibration: NDArray[np.uint8], percentile: float) -> ModelProto:
    """The model with pairs of QuantizeLinear and DequantizeLinear around the chosen nodes: u8 values, s8 weights."""
    ranges = _ranges(proto, chosen, calibration, percentile)
    # MinMax: its two numbers are used as they are
    table = TensorsData(
        CalibrationMethod.MinMax,
        {name: tuple(np.array(end, np.float32) for end in ends) for name, ends in ranges.items()},
    )
    quantiser = QDQQuantizer(
        proto,
        True,  # per channel: per tensor costs 0.1 of cosine on depthwise nets
        False,
        QuantType.QInt8,
        QuantType.QUInt8,
        table,
        [node.name for node in proto.graph.node if node.name in chosen],
        [],
        sorted(WORDS.eight_bit | WORDS.products),
        {
            "OpTypesToExcludeOutputQuantization": sorted(WORDS.products),
            "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
        },
    )
    made = _made_in_float(proto, chosen)
    quantiser.quantize_model()
    quantiser.model.topological_sort()
    result: ModelProto = quantiser.model.model
    _read_as_made(result, made, chosen)
    return result


def _made_in_float(proto: ModelProto, chosen: set[str]) -> set[str]:
    """Names of the values that exist in float: results of float operators and of linear layers."""
    return {
        value
        for node in proto.graph.node
        if node.name not in chosen or node.op_type in WORDS.products
        for value in node.output
    }


def _read_as_made(proto: ModelProto, made: set[str], chosen: set[str]) -> None:
    """Let float operators read these float values themselves; the quantiser gives everybody the rounded ones."""
    rounded = {node.input[0]: node.output[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    floats = {rounded[value]: value for value in made & set(rounded)}
    floats = {
        node.output[0]: floats[node.input[0]]
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in floats
    }
    for node in proto.graph.node:
        if node.name not in chosen and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            for place, value in enumerate(node.input):
                node.input[place] = floats.get(value, value)


def _ranges(proto: ModelProto, chosen: set[str], calibration: NDArray[np.uint8], percentile: float) -> dict[str, Range]:
    floats = {v.name for v in proto.graph.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    constants = {tensor.name for tensor in proto.graph.initializer}
    read = {v for node in proto.graph.node if node.name in chosen for v in [*node.input, *node.output]}
    names = sorted((read & floats) - constants)
    seen = ModelProto()
    seen.CopyFrom(proto)
    del seen.graph.output[:]
    seen.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(seen.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return activation_ranges(
        lambda photo: dict(zip(names, session.run(names, {INPUT_NAME: photo}), strict=True)), calibration, percentile
    )


def store_weights_in_8_bit(proto: ModelProto, operators: set[str], left: frozenset[str] = frozenset()) -> None:
    """Replace float weights by int8, symmetric per output channel, and a DequantizeLinear; the operators stay float.

    Large constant summands too: torch's exporter writes tables of attention's biases out for every pair of places.
    left: names of weights that are not replaced; those of depthwise convolutions never are.
    """
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    added: dict[str, NodeProto] = {}  # by the weight's name: several operators may read one
    for node in proto.graph.node:
        for place, name in enumerate(node.input if node.op_type == "Add" else ()):
            if name in weights and _is_a_table(weights[name]):
                if name not in added:
                    axis = next(i for i, side in enumerate(weights[name].dims) if side > 1)
                    added[name] = _dequantised(proto, weights[name], axis)
                node.input[place] = added[name].output[0]
        if (
            node.op_type not in operators
            or len(node.input) < 2
            or node.input[1] not in weights
            or node.input[1] in left
        ):
            continue
        tensor = weights[node.input[1]]
        depthwise = node.op_type == "Conv" and tensor.dims[1] == 1
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or depthwise:
            continue
        if tensor.name not in added:
            added[tensor.name] = _dequantised(proto, tensor, _weight_axis(node))
        node.input[1] = added[tensor.name].output[0]
    nodes = [*added.values(), *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    _drop_unused(proto)


def _is_a_table(tensor: TensorProto) -> bool:
    """Whether a summand is as large as a weight: attention's bias of each place for each, (heads, N, N)."""
    return tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 2 and math.prod(tensor.dims) >= TABLE


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
