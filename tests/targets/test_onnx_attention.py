"""Attention in ONNX files: the scale on the keys is the scale on the queries."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgecsd.targets.onnx.attention import scale_keys
from edgecsd.targets.onnx.convert import _sorted

PLACES, WIDTH = 5, 4


def attention(queries_read_twice: bool = False) -> ModelProto:
    """(5, 4) -> (5, 4): softmax(s x (x W)^T) x, and maybe the scaled queries beside it."""
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["q"]),
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("Transpose", ["xw"], ["k"], perm=[1, 0]),
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"]),
        helper.make_node("MatMul", ["weights", "x"], ["found"]),
        helper.make_node("Add", ["found", "q"], ["y"])
        if queries_read_twice
        else helper.make_node("Relu", ["found"], ["y"]),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [PLACES, WIDTH]) for name in ("x", "y")]
    weights = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.float32(0.5), "scale")]
    graph = helper.make_graph(nodes, "attention", value[:1], value[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(proto: ModelProto) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(PLACES, WIDTH)).astype(np.float32)
    return np.asarray(session.run(None, {"x": x})[0])


def test_the_keys_take_the_scale_of_the_queries() -> None:
    proto = attention()
    before = run(proto)
    scale_keys(proto)
    scaled = [node.input[0] for node in proto.graph.node if node.op_type == "Mul"]
    assert scaled == ["k"]
    np.testing.assert_allclose(run(proto), before, rtol=1e-6)


def test_queries_that_something_else_reads_stay() -> None:
    proto = attention(queries_read_twice=True)
    before = proto.SerializeToString()
    scale_keys(proto)
    assert proto.SerializeToString() == before


def test_nodes_in_the_wrong_order_are_sorted() -> None:
    """As the conversion to fp16 leaves its casts."""
    proto = attention()
    wanted = run(proto)
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    np.testing.assert_array_equal(run(_sorted(proto)), wanted)
