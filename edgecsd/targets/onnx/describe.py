"""What an ONNX file is made of, in the words of `description`."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from edgecsd.errors import DamagedFileError, missing_extra
from edgecsd.targets.description import SCALES, UNREAD, Description, Value, WeightCount, by_count, packed_bytes
from edgecsd.targets.metadata import METADATA_KEY, ORT_SUFFIX
from edgecsd.targets.onnx.target import reason

try:
    import onnx
    import onnxruntime
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto
except ImportError as error:
    raise missing_extra(error.name or "onnx", "onnx") from None

_PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})
_TO_FLOAT = _PAIR | {"Cast"}  # what may stand between weights and the operator that reads them
# These take x, scale, zero point, w, scale, zero point, and scale and zero point of what they give
_IN_INTEGERS = frozenset({"QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"})
_SCALE_PLACES = frozenset({1, 2, 4, 5, 6, 7})
_BITS = {"uint4": 4, "int4": 4, "float4e2m1": 4, "uint2": 2, "int2": 2}


def describe(path: Path) -> Description:
    """The description of an ONNX or .ort file, its weights inside it or beside it; DamagedFileError for what is none.

    An .ort file, onnxruntime's own format, holds the graph as onnxruntime optimised it.
    """
    if path.suffix == ORT_SUFFIX:
        return _describe_ort(path)
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, or onnx's own
        raise DamagedFileError(f"{path}: not a whole ONNX file: {reason(error)}") from None
    if not proto.graph.node:
        raise DamagedFileError(f"{path}: not a whole ONNX file: it has no graph")
    graph = proto.graph
    stored = {tensor.name: tensor for tensor in graph.initializer} | _constants(graph)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    return Description(
        format=_format(proto),
        inputs=tuple(_value(given) for given in graph.input if given.name not in stored),
        outputs=tuple(_value(result) for result in graph.output),
        operators=_operators(graph),
        quantised_operators=by_count(_quantised(graph, stored)),
        weights=_weights(graph, stored).result(),
        metadata=metadata.get(METADATA_KEY),
        beside=sum(_beside(path, tensor) for tensor in stored.values()),
    )


def _describe_ort(path: Path) -> Description:
    from edgecsd.targets.onnx.target import read_graph  # onnxruntime.tools loads torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors reach us as exceptions
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = read_graph(path)
    except Exception as error:  # onnxruntime has one exception class a status code, without a public base
        raise DamagedFileError(f"{path}: not a whole .ort file: {reason(error)}") from None
    stored = {tensor.name: tensor for tensor in graph.initializer}
    return Description(
        format="ONNX Runtime format (.ort)",
        inputs=tuple(_session_value(each) for each in session.get_inputs()),
        outputs=tuple(_session_value(each) for each in session.get_outputs()),
        operators=_operators(graph),
        quantised_operators=by_count(_quantised(graph, stored)),
        weights=_weights(graph, stored).result(),
        metadata=session.get_modelmeta().custom_metadata_map.get(METADATA_KEY),
    )


def _session_value(given: Any) -> Value:
    kind = str(given.type).removeprefix("tensor(").removesuffix(")")
    return Value(given.name, kind, tuple(side if isinstance(side, int) else -1 for side in given.shape))


def _operators(graph: GraphProto) -> dict[str, int]:
    return by_count(Counter(node.op_type for node in graph.node if node.op_type != "Constant"))


def _format(proto: ModelProto) -> str:
    opsets = ", ".join(f"{opset.domain or 'ai.onnx'} {opset.version}" for opset in proto.opset_import)
    return f"ONNX, IR {proto.ir_version}, opset {opsets}"


def _constants(graph: GraphProto) -> dict[str, TensorProto]:
    return {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    }


def _value(information: Any) -> Value:
    tensor = information.type.tensor_type
    shape = tuple(side.dim_value if side.HasField("dim_value") else -1 for side in tensor.shape.dim)
    return Value(information.name, _type(tensor.elem_type), shape)


def _type(number: int) -> str:
    return str(TensorProto.DataType.Name(number)).lower()


def _size(tensor: TensorProto) -> int:
    kind = _type(tensor.data_type)
    if kind in _BITS:
        return packed_bytes(prod(tensor.dims), _BITS[kind])
    return int(prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _beside(path: Path, tensor: TensorProto) -> int:
    """Bytes of a tensor in a file beside this one; 0 for one inside. DamagedFileError where they are not there."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return 0
    about, size = {entry.key: entry.value for entry in tensor.external_data}, _size(tensor)
    file = path.parent / about.get("location", "")
    end = int(about.get("offset", 0)) + size
    if not file.is_file() or file.stat().st_size < end:
        found = f"has {file.stat().st_size} bytes of {end}" if file.is_file() else "is missing"
        raise DamagedFileError(f"{path}: not a whole ONNX file: {file.name} beside it, which holds weights, {found}")
    return size


def _weights(graph: GraphProto, stored: dict[str, TensorProto]) -> WeightCount:
    """By the operator that reads them; behind a DequantizeLinear or a Cast, by the one that reads its output."""
    readers: dict[str, tuple[NodeProto, int]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            readers.setdefault(name, (node, place))
    counted = WeightCount()
    for name, tensor in stored.items():
        if tensor.data_type != TensorProto.STRING:
            counted.add(_reader(name, readers), _type(tensor.data_type), _size(tensor))
    return counted


def _reader(name: str, readers: dict[str, tuple[NodeProto, int]]) -> str:
    if name not in readers:
        return UNREAD
    node, place = readers[name]
    if node.op_type in _IN_INTEGERS and place in _SCALE_PLACES:
        return SCALES
    if node.op_type not in _TO_FLOAT:
        return str(node.op_type)
    return SCALES if place > 0 else _reader(node.output[0], readers)


def _quantised(graph: GraphProto, stored: dict[str, TensorProto]) -> Counter[str]:
    """Operators between roundings, and those that take 8-bit values themselves.

    The runtime has 8-bit kernels for what reads and writes rounded values. What only reads one runs in float.
    """
    rounded = {
        node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] not in stored
    }
    rounded |= {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    return Counter(
        node.op_type
        for node in graph.node
        if node.op_type.startswith("QLinear")
        or (node.op_type not in _PAIR and rounded & set(node.input) and rounded & set(node.output))
    )
