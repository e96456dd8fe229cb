"""The graph of an .ort file, onnxruntime's own format, as an ONNX graph: by the flatbuffers readers in its package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecsd.errors import missing_extra

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
