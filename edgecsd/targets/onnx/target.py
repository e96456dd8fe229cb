"""ONNX artifacts, .onnx and .ort: metadata and runner. onnxruntime's flatbuffers readers give an .ort file's graph."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import DamagedFileError, first_line, missing_extra
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME, OneByOne, no_metadata, session_options
from edgecsd.targets.metadata import METADATA_KEY, ORT_SUFFIX, ArtifactMetadata

if TYPE_CHECKING:
    pass


try:
    import onnx
    import onnxruntime
except ImportError as error:
    raise missing_extra(error.name or "onnxruntime", "onnx") from None
PRECISIONS = frozenset(Precision)
_OF_THE_RUNTIME = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:\S+\.(?:cc|h):\d+ \S+ )?")
HALF_PRECISIONS = frozenset({Precision.FP16})
RECIPES = {
    Precision.FP32: "float32",
    Precision.FP16: "float16",
    Precision.W8A32: "int8-weights-per-channel",
    Precision.W8A8: "qdq-u8s8-per-channel-percentile-99.99-or-mean-extremes-body-only-bias-corrected-float-gates",
}


def versions() -> dict[str, str]:
    """Versions of the converter and the runtime."""
    return {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}


def _read(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(str(path))
    except Exception as error:  # protobuf's DecodeError, or onnx's own for what follows it
        raise DamagedFileError(f"{path}: not a whole ONNX file: {reason(error)}") from None
    if not proto.HasField("graph") or not proto.graph.node:
        raise DamagedFileError(f"{path}: not a whole ONNX file: it has no graph")
    return proto


def read_metadata_json(path: Path) -> str:
    """The JSON under the key "edgecsd" of metadata_props, which both formats have."""
    if path.suffix == ORT_SUFFIX:
        properties = _session(path, 1, {}).get_modelmeta().custom_metadata_map
    else:
        properties = {entry.key: entry.value for entry in _read(path).metadata_props}
    if METADATA_KEY not in properties:
        raise no_metadata(path)
    return str(properties[METADATA_KEY])


def session(path: Path, threads: int, metadata: ArtifactMetadata) -> onnxruntime.InferenceSession:
    """An onnxruntime session with an explicit number of threads."""
    return _session(path, threads, session_options(metadata))


def _session(path: Path, threads: int, settings: dict[str, str]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # errors reach us as exceptions
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has one exception class a status code, without a public base
        raise DamagedFileError(f"{path}: onnxruntime cannot load it: {reason(error)}") from None


class OnnxRunner(OneByOne):
    """An ONNX artifact in onnxruntime, on the CPU."""

    def __init__(self, path: Path, threads: int, metadata: ArtifactMetadata) -> None:
        self._session = session(path, threads, metadata)
        inputs = self._session.get_inputs()
        if [i.name for i in inputs] != [INPUT_NAME] or [o.name for o in self._session.get_outputs()] != [OUTPUT_NAME]:
            raise DamagedFileError(f"{path}: its input and output are not {INPUT_NAME!r} and {OUTPUT_NAME!r}")
        super().__init__(None if metadata.baked and metadata.baked.sides is None else tuple(inputs[0].shape[1:3]))
        self.kind = f"onnxruntime {'.'.join(onnxruntime.__version__.split('.')[:2])}, CPU"

    def embed_one(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        (vector,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: self.check(pixels)})
        return np.asarray(vector, np.float32)


def load_runner(path: Path, threads: int) -> OnnxRunner:
    """The artifact in onnxruntime on `threads` threads."""
    from edgecsd.targets.metadata import metadata_from_json

    return OnnxRunner(path, threads, metadata_from_json(read_metadata_json(path), str(path)))


def reason(error: Exception) -> str:
    """What protobuf, onnx or onnxruntime found wrong, without the names and numbers of their own errors."""
    if type(error).__name__ == "DecodeError":
        return "its protobuf message cannot be read to its end; it was cut or changed, or is of another program"
    return _OF_THE_RUNTIME.sub("", first_line(error))


try:
    from onnx import GraphProto, TensorProto, helper
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import InferenceSession
except ImportError as error:
    raise missing_extra(error.name or "onnxruntime", "onnx") from None


def read_graph(path: Path) -> GraphProto:
    """Nodes and initializers of the file, without attributes and data.

    The numbers of its types are those of ONNX. flatbuffers reads wherever an offset points: a file that is not whole
    raises almost anything.
    """
    found = InferenceSession.GetRootAs(path.read_bytes(), 0).Model().Graph()
    graph = GraphProto()
    for node in (found.Nodes(i) for i in range(found.NodesLength())):
        inputs, outputs = (_names(node, side) for side in ("Inputs", "Outputs"))
        graph.node.append(helper.make_node(node.OpType().decode(), inputs, outputs, domain=node.Domain().decode()))
    for tensor in (found.Initializers(i) for i in range(found.InitializersLength())):
        dims = [tensor.Dims(i) for i in range(tensor.DimsLength())]
        graph.initializer.append(TensorProto(name=tensor.Name().decode(), dims=dims, data_type=tensor.DataType()))
    return graph


def _names(node: Any, side: str) -> list[str]:
    length, name = getattr(node, f"{side}Length")(), getattr(node, side)
    return [name(i).decode() for i in range(length)]
