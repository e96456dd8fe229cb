"""A Core ML package on disk: opened, its program read, and its weights found in their file or refused as damaged."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from edgecsd.errors import DamagedFileError, missing_extra
from edgecsd.targets.description import packed_bytes

try:
    import coremltools
except ImportError as error:
    raise missing_extra(error.name or "coremltools", "coreml") from None

MODEL_PATH = "@model_path/"  # in a program: the folder of its model.mlmodel
HEADER = struct.Struct("<IIQQ")  # mark, type, bytes of data, where they begin
MARK = 0xDEADBEEF


class Blob(NamedTuple):
    """A constant outside the program: the file as the program names it, where its header is, bytes its type needs."""

    file: str
    offset: int
    size_bytes: int


def require_whole(package: Path, folder: Path, blobs: Iterable[Blob]) -> None:
    """DamagedFileError unless every blob lies inside its file.

    folder   that of model.mlmodel in `package`, which stands in the error
    """
    files: dict[str, list[Blob]] = {}
    for blob in blobs:
        files.setdefault(blob.file, []).append(blob)
    for name, named in files.items():
        if problem := _problem(folder, name, named):
            raise DamagedFileError(f"{package}: not a whole .mlpackage: {problem}")


def _problem(folder: Path, name: str, blobs: list[Blob]) -> str:
    """What is wrong with a weight file; "" if nothing is."""
    short = name.removeprefix(MODEL_PATH)
    if short == name or ".." in Path(short).parts:
        return f"its program names weights in {name!r}, outside the package"
    file = folder / short
    if not file.is_file():
        return f"{short}, which holds its weights, is missing"
    length = file.stat().st_size
    with open(file, "rb") as handle:
        for blob in blobs:
            if blob.offset + HEADER.size > length:
                return _beyond(short, length, blob.offset + HEADER.size + blob.size_bytes)
            handle.seek(blob.offset)
            mark, _, size, begin = HEADER.unpack(handle.read(HEADER.size))
            if mark != MARK or size < blob.size_bytes:
                return f"{short} has no constant of {blob.size_bytes} bytes at byte {blob.offset}"
            if begin + size > length:
                return _beyond(short, length, begin + size)
    return ""


def _beyond(name: str, length: int, needed: int) -> str:
    return f"{name} has {length} bytes, and a constant reaches to byte {needed}"


WEIGHTS = "Data/com.apple.CoreML/weights"  # where coremltools puts them
_TYPES = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_BITS = {"fp64": 64, "fp32": 32, "fp16": 16, "bf16": 16, "bool": 8}


def require_weights(path: Path, package: Any) -> None:
    """DamagedFileError unless the weights that the program names are where it names them."""
    weights = Path(package.weights_dir or path / WEIGHTS)
    require_whole(
        path, weights.parent, [_blob(value) for _, _, value in _stored(list(_operations(package.get_spec())))]
    )


def _operations(spec: Any) -> Iterator[Any]:
    """Of every function's blocks; none for a model that is not an ML Program."""
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            yield from block.operations


def _shape(kind: Any) -> tuple[int, ...]:
    return tuple(int(side.constant.size) or -1 for side in kind.tensorType.dimensions)


def _type(kind: Any) -> str:
    tensor = kind.tensorType
    name = str(tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number[tensor.dataType].name).lower()
    return _TYPES.get(name, name)


def _size(kind: Any) -> int:
    name = _type(kind)
    bits = _BITS[name] if name in _BITS else int("".join(filter(str.isdigit, name)) or 8)
    return packed_bytes(prod(_shape(kind)), bits)


def _stored(operations: list[Any]) -> Iterator[tuple[Any, str, Any]]:
    """Values in the weight file: the operation that holds each, under which name, and the value."""
    for operation in operations:
        stored = {**operation.attributes}
        for key, argument in operation.inputs.items():
            values = [each.value for each in argument.arguments if each.WhichOneof("binding") == "value"]
            stored |= {key: values[-1]} if values else {}
        for key, value in stored.items():
            if value.WhichOneof("value") == "blobFileValue":
                yield operation, key, value


def _blob(value: Any) -> Blob:
    return Blob(value.blobFileValue.fileName, value.blobFileValue.offset, _size(value.type))


MANIFEST = "Manifest.json"


def open_package(path: Path) -> Any:
    """The coremltools model of a folder, not compiled; DamagedFileError if its parts are not all there."""
    if problem := _missing(path):
        raise damaged(path, problem)
    try:
        return coremltools.models.MLModel(str(path), skip_model_load=True)
    except Exception:  # protobuf, C++ and plain RuntimeErrors
        raise damaged(path) from None


def _missing(path: Path) -> str:
    """Which part that its manifest names is not there; "" if all are."""
    manifest = path / MANIFEST
    if not manifest.is_file():
        return f"{MANIFEST} is missing"
    try:
        parts = [str(item["path"]) for item in json.loads(manifest.read_bytes())["itemInfoEntries"].values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} does not list the package's parts"
    absent = [part for part in parts if not (path / "Data" / part).exists()]
    return f"Data/{absent[0]}, which {MANIFEST} names, is missing" if absent else ""


def damaged(path: Path, reason: str = "its program cannot be read; it was cut or changed") -> DamagedFileError:
    """The one error for a package that cannot be read."""
    return DamagedFileError(f"{path}: not a whole .mlpackage: {reason}")
