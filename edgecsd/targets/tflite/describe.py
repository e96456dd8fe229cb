"""What a TFLite file is made of, in the words of `description`."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from edgecsd.errors import BadInputError, DamagedFileError, missing_extra
from edgecsd.targets.description import UNREAD, Description, Value, WeightCount, by_count, packed_bytes
from edgecsd.targets.metadata import METADATA_KEY
from edgecsd.targets.tflite.file import damaged

try:
    from ai_edge_litert import schema_py_generated as schema
except ImportError as error:
    raise missing_extra(error.name or "ai-edge-litert", "tflite") from None

FLAT_RANK = 3
_IDENTIFIER = b"TFL3"
_PAIR = frozenset({"QUANTIZE", "DEQUANTIZE"})
_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int64": 64, "int32": 32, "int16": 16, "int4": 4, "int2": 2}


def describe(path: Path) -> Description:
    """The description of a TFLite file; DamagedFileError for what is none, or is not whole."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror or error}") from None
    if data[4:8] != _IDENTIFIER:
        raise DamagedFileError(f"{path}: not a TFLite file: {_IDENTIFIER.decode()} is missing at byte 4")
    try:
        return _describe(schema.ModelT.InitFromPackedBuf(data, 0))
    except Exception:  # flatbuffers reads wherever an offset points: struct, index, value and type errors
        raise damaged(path, len(data)) from None


def _describe(model: Any) -> Description:
    names = [_operator(code) for code in model.operatorCodes or []]
    graphs = list(model.subgraphs)
    main = graphs[0]
    named = [(names[each.opcodeIndex], each, graph) for graph in graphs for each in graph.operators or []]
    return Description(
        format=f"TFLite, schema {model.version}",
        inputs=_values(model, main, "inputs"),
        outputs=_values(model, main, "outputs"),
        operators=by_count(Counter(name for name, _, _ in named)),
        quantised_operators=by_count(Counter(name for name, each, graph in named if _is_quantised(name, each, graph))),
        weights=_weights(model, named).result(),
        metadata=_metadata(model),
        notes=_notes(named),
    )


def _notes(named: list[tuple[str, Any, Any]]) -> tuple[str, ...]:
    flat = [
        each
        for name, each, graph in named
        if name == "BATCH_MATMUL" and len(graph.tensors[each.inputs[0]].shape) == FLAT_RANK
    ]
    if not flat:
        return ()
    return (
        f"{len(flat)} attention products of rank 3: LiteRT's GPU delegate may compute them wrongly and say nothing "
        f"(LiteRT issue 8619); run the file on the CPU, or compare its embeddings on that GPU (edgecsd check --device)",
    )


def _names(enumeration: type) -> dict[int, str]:
    return {number: name for name, number in vars(enumeration).items() if isinstance(number, int)}


_OPERATORS, _TYPES = _names(schema.BuiltinOperator), _names(schema.TensorType)


def _operator(code: Any) -> str:
    """A builtin's name, or a custom operator's; old files have the number in a field of 8 bits."""
    if code.customCode:
        return str(code.customCode.decode())
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _OPERATORS.get(number, f"operator {number}")


def _type(tensor: Any) -> str:
    return _TYPES.get(tensor.type, f"type {tensor.type}").lower()


def _values(model: Any, graph: Any, side: str) -> tuple[Value, ...]:
    """By the names of the first signature, which are what an app sees; by the tensors' own where there is none."""
    aliases = {}
    for signature in (model.signatureDefs or [])[:1]:
        aliases = {each.tensorIndex: each.name.decode() for each in getattr(signature, side) or []}
    found = []
    for number in getattr(graph, side):
        tensor = graph.tensors[number]
        own = (tensor.name or b"").decode()
        shape = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
        found.append(Value(aliases.get(number, own), _type(tensor), tuple(int(length) for length in shape)))
    return tuple(found)


def _is_quantised(name: str, operator: Any, graph: Any) -> bool:
    """Whether it reads an 8-bit value with a scale that is not a constant: pixels are uint8 too, without a scale."""
    made = {int(number) for each in graph.operators for number in each.outputs} | {int(n) for n in graph.inputs}
    taken = [graph.tensors[number] for number in operator.inputs if int(number) in made]
    return name not in _PAIR and any(_type(tensor) in ("int8", "uint8") and _has_scale(tensor) for tensor in taken)


def _has_scale(tensor: Any) -> bool:
    return tensor.quantization is not None and tensor.quantization.scale is not None


def _weights(model: Any, named: list[tuple[str, Any, Any]]) -> WeightCount:
    """By the first operator that reads them; behind a DEQUANTIZE, by the one that reads its output."""
    readers: dict[tuple[int, int], tuple[str, Any]] = {}
    for name, operator, graph in named:
        for number in operator.inputs:
            readers.setdefault((id(graph), int(number)), (name, operator))
    counted, seen = WeightCount(), set()
    for graph in model.subgraphs:
        for number, tensor in enumerate(graph.tensors):
            if tensor.buffer in seen or not _is_stored(model.buffers[tensor.buffer]):
                continue
            seen.add(tensor.buffer)
            size = packed_bytes(prod(tensor.shape if tensor.shape is not None else ()), _BITS.get(_type(tensor), 8))
            counted.add(_reader((id(graph), number), readers), _type(tensor), size)
    return counted


def _is_stored(buffer: Any) -> bool:
    return (buffer.data is not None and len(buffer.data) > 0) or buffer.size > 0


def _reader(tensor: tuple[int, int], readers: dict[tuple[int, int], tuple[str, Any]]) -> str:
    if tensor not in readers:
        return UNREAD
    name, operator = readers[tensor]
    return _reader((tensor[0], int(operator.outputs[0])), readers) if name == "DEQUANTIZE" else name


def _metadata(model: Any) -> str | None:
    for entry in model.metadata or []:
        if entry.name == METADATA_KEY.encode():
            return bytes(model.buffers[entry.buffer].data).decode()
    return None
