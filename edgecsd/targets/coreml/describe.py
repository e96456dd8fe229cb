"""What a Core ML package is made of, in the words of `description`: read from its protobuf, weights not loaded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from edgecsd.errors import EdgecsdError
from edgecsd.targets.coreml.package import (
    _operations,
    _shape,
    _size,
    _stored,
    _type,
    damaged,
    open_package,
    require_weights,
)
from edgecsd.targets.coreml.weights import PREFIX
from edgecsd.targets.description import SCALES, UNREAD, Description, Value, WeightCount, by_count
from edgecsd.targets.metadata import METADATA_KEY

_SCALE_NAMES = frozenset({"scale", "zero_point", "offset", "axis"})
_ARRAYS = {65600: "fp64", 65568: "fp32", 65552: "fp16", 131104: "int32", 131080: "int8"}


def describe(path: Path) -> Description:
    """The description of a .mlpackage; DamagedFileError for one whose parts are not all there."""
    package = open_package(path)
    try:
        spec = package.get_spec()
        require_weights(path, package)
        operations = list(_operations(spec))
        return Description(
            format=f"Core ML {spec.WhichOneof('Type')}, specification {spec.specificationVersion}",
            inputs=tuple(_value(each, operations) for each in spec.description.input),
            outputs=tuple(_value(each, operations) for each in spec.description.output),
            operators=by_count(Counter(each.type for each in operations if not _is_constant(each))),
            quantised_operators=by_count(_quantised(operations)),
            weights=_weights(operations).result(),
            metadata=package.user_defined_metadata.get(METADATA_KEY),
        )
    except EdgecsdError:
        raise
    except Exception:
        raise damaged(path) from None


def _is_constant(operation: Any) -> bool:
    return operation.type == "const" or str(operation.type).startswith(PREFIX)


def _value(description: Any, operations: list[Any]) -> Value:
    kind = description.type
    if kind.WhichOneof("Type") == "imageType":
        image = kind.imageType
        colours = image.ColorSpace.Name(image.colorSpace)
        return Value(description.name, f"image {colours}", (image.height, image.width))
    array = kind.multiArrayType
    shape, dtype = tuple(array.shape), _ARRAYS.get(array.dataType, f"type {array.dataType}")
    if not shape:  # the specification may leave an output's shape to the program
        declared = {output.name: output.type for operation in operations for output in operation.outputs}
        shape = _shape(declared[description.name]) if description.name in declared else ()
    return Value(description.name, dtype, tuple(int(side) for side in shape))


def _names(argument: Any) -> list[str]:
    return [each.name for each in argument.arguments if each.WhichOneof("binding") == "name"]


def _weights(operations: list[Any]) -> WeightCount:
    """What stands in the weight file, by the operator that reads it, through however many `constexpr_*`."""
    readers: dict[str, tuple[Any, str]] = {}
    for operation in operations:
        for key, argument in operation.inputs.items():
            for name in _names(argument):
                readers.setdefault(name, (operation, key))
    counted = WeightCount()
    for operation, key, value in _stored(operations):
        counted.add(_reader(operation, key, readers), _type(value.type), _size(value.type))
    return counted


def _reader(operation: Any, key: str, readers: dict[str, tuple[Any, str]]) -> str:
    if not _is_constant(operation):
        return str(operation.type)
    if operation.type != "const" and key in _SCALE_NAMES:
        return SCALES
    found = [readers[output.name] for output in operation.outputs if output.name in readers]
    return _reader(*found[0], readers) if found else UNREAD


def _quantised(operations: list[Any]) -> Counter[str]:
    """Operators that read the output of a `dequantize`."""
    rounded = {output.name for each in operations if each.type == "dequantize" for output in each.outputs}
    return Counter(
        str(each.type)
        for each in operations
        if each.type not in ("quantize", "dequantize")
        and any(rounded & set(_names(argument)) for argument in each.inputs.values())
    )
