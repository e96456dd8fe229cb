"""w8a8 computes in 8 bit from the first to the last convolution and nowhere else: read back from the written files.

The network has squeeze-and-excite; its gates compute in float. Four larger ones: test_8_bit_body.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from onnx import NodeProto, numpy_helper
from target_models import Make

from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.query import create_query_model
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME
from edgecsd.targets.deploy import DeployModel

QUANTISERS = {"QuantizeLinear", "DequantizeLinear"}


def _behind(nodes: list[NodeProto], name: str) -> Iterator[NodeProto]:
    """Every node that depends on the value `name`."""
    reached = {name}
    for node in nodes:
        if reached & set(node.input):
            reached |= set(node.output)
            yield node


def test_onnx_has_no_8_bit_activation_behind_the_last_convolution(artifact: Make) -> None:
    graph = onnx.load(str(artifact("onnx", "w8a8").path)).graph
    nodes = list(graph.node)
    last = [node for node in nodes if node.op_type == "Conv"][-1]
    tail = list(_behind(nodes, last.output[0]))
    kinds = [node.op_type for node in tail]
    assert "Conv" not in kinds
    first_float = next(i for i, kind in enumerate(kinds) if kind not in QUANTISERS | {"Clip", "Relu", "Sigmoid", "Mul"})
    assert not QUANTISERS & set(kinds[first_float:])  # the last convolution's own output may be the last 8-bit value
    assert {"Gemm", "ReduceMean", "Sqrt", "Div"} <= set(kinds[first_float:])


def test_onnx_convolutions_are_8_bit_per_channel(artifact: Make) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(artifact("onnx", "w8a8").path))).graph
    gates = {v.name for v in graph.value_info if _one_a_channel([d.dim_value for d in v.type.tensor_type.shape.dim])}
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 10
    for node in convolutions:
        weight = made_by[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert constants[weight.input[0]].dtype == np.int8
        assert constants[weight.input[1]].shape == (constants[weight.input[0]].shape[0],)
        in_8_bit = made_by[node.input[0]].op_type == "DequantizeLinear"
        assert in_8_bit == (node.output[0] not in gates)


def test_onnx_input_normalisation_is_float(artifact: Make) -> None:
    nodes = list(onnx.load(str(artifact("onnx", "w8a8").path)).graph.node)
    kinds = [node.op_type for node in nodes[: next(i for i, n in enumerate(nodes) if n.op_type == "Conv")]]
    assert "Sub" in kinds
    assert "QuantizeLinear" not in kinds[: kinds.index("Sub") + 2]


def _one_a_channel(shape: Any) -> bool:
    return sum(int(side) > 1 for side in shape) <= 1


def _operators(path: Path) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]]]:
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=_without_delegates())
    return interpreter._get_ops_details(), {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}


def _without_delegates() -> Any:
    from ai_edge_litert.interpreter import OpResolverType

    return OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def test_tflite_computes_in_8_bit_between_the_convolutions_only(artifact: Make) -> None:
    operators, tensors = _operators(artifact("tflite", "w8a8").path)
    places = [i for i, operator in enumerate(operators) if operator["op_name"].endswith("CONV_2D")]

    def in_8_bit(operator: dict[str, Any]) -> bool:
        return any(tensors[i]["dtype"] is np.int8 for i in operator["outputs"])

    gates = [i for i in places if _one_a_channel(tensors[operators[i]["outputs"][0]]["shape"])]
    assert len(gates) > 1
    assert all(in_8_bit(operators[i]) != (i in gates) for i in places)
    before, tail = operators[: places[0]], operators[places[-1] + 1 :]
    assert not [o["op_name"] for o in tail if in_8_bit(o)]
    assert {o["op_name"] for o in before if in_8_bit(o)} == {"QUANTIZE", "PAD"}
    assert [o["op_name"] for o in before[-2:]] == ["QUANTIZE", "PAD"], "only around the first convolution"
    assert {"FULLY_CONNECTED", "DIV", "SQRT"} <= {operator["op_name"] for operator in tail}


def test_tflite_weights_are_per_channel(artifact: Make) -> None:
    operators, tensors = _operators(artifact("tflite", "w8a8").path)
    stored = {o["outputs"][0]: o["inputs"][0] for o in operators if o["op_name"] == "DEQUANTIZE"}  # of the gates
    for operator in operators:
        if operator["op_name"] == "CONV_2D":
            weight = tensors[stored.get(operator["inputs"][1], operator["inputs"][1])]
            assert weight["dtype"] is np.int8
            assert len(weight["quantization_parameters"]["scales"]) == weight["shape"][0]


@pytest.mark.parametrize("precision", ["fp32", "w8a8"])
def test_tflite_signature_and_alignment(precision: str, artifact: Make) -> None:
    from ai_edge_litert import schema_py_generated as schema

    path = artifact("tflite", precision).path
    (signature,) = Interpreter(model_path=str(path)).get_signature_list().values()
    assert signature == {"inputs": [INPUT_NAME], "outputs": [OUTPUT_NAME]}
    data = path.read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        assert buffer.Offset() <= 1  # nothing behind the flatbuffer
        field = buffer._tab.Offset(4)
        assert not field or buffer._tab.Vector(field) % 16 == 0


def test_deploy_model_leaves_the_query_model_alone() -> None:
    space = EmbeddingSpace(gallery_model="g", dim=8)
    model = create_query_model("test_efficientnet", space, pretrained=False, size=64)
    deploy = DeployModel(model)
    assert not deploy.training
    assert model.projection.weight.requires_grad
    assert deploy.query_model.projection.weight.data_ptr() != model.projection.weight.data_ptr()
    expected = model.embed(deploy.example().numpy())
    np.testing.assert_allclose(deploy(deploy.example()).numpy(), expected, atol=1e-6)
