"""Makes an ONNX file smaller without changing what it computes: no traces of its making, no long names."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onnx import ModelProto, TensorProto

# Endings that onnxruntime's quantiser gives to names, longest first; a name stands in the file once for each reader
ENDINGS = {
    "_DequantizeLinear_Output": ".dq",
    "_QuantizeLinear_Output": ".q",
    "_QuantizeLinear_Input": ".in",
    "_quantized_zero_point": ".zero",
    "_quantized_scale": ".scale",
    "_zero_point": ".zero",
    "_quantized": ".8bit",
}
PREFIXES = ("query_model.", "backbone.")
QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear"})


def compact(proto: ModelProto) -> None:
    """Drop the exporter's traces (they name files of this machine), value shapes and needless zeros, and cut names.

    In 8-bit files of small networks these are up to a tenth.
    """
    _drop_traces(proto)
    _drop_zeros_of_biases(proto)
    _cut_names(proto)


def _drop_traces(proto: ModelProto) -> None:
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]  # inferred again by whoever needs them
    for part in (*proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    for node in proto.graph.node:
        if node.op_type in QUANTISERS:
            node.name = ""  # named after their values, which say as much


def _drop_zeros_of_biases(proto: ModelProto) -> None:
    """The zero points of 32-bit biases, which can be nothing but 0. Those of weights onnxruntime rewrites for AVX2."""
    biases = {tensor.name for tensor in proto.graph.initializer if tensor.data_type == TensorProto.INT32}
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in biases and len(node.input) == 3:
            del node.input[2]
    used = {name for node in proto.graph.node for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)


def _cut_names(proto: ModelProto) -> None:
    outer = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    names = {name for node in proto.graph.node for name in (*node.input, *node.output)} - outer - {""}
    short = _distinct(names, outer)
    for tensor in proto.graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
    _rename(proto, lambda name: short.get(name, name))


def _distinct(names: Iterable[str], taken: set[str]) -> dict[str, str]:
    """A short form of each name, and the name itself where another has that form already."""
    used = set(taken) | set(names)
    result: dict[str, str] = {}
    for name in sorted(names):
        short = _short(name)
        if short and short not in used:
            used.add(short)
            result[name] = short
    return result


def _short(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    for ending, mark in ENDINGS.items():
        if name.endswith(ending):
            return name.removesuffix(ending) + mark
    return name


def _rename(proto: ModelProto, change: Callable[[str], str]) -> None:
    for node in proto.graph.node:
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = change(name)
