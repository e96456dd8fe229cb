"""Attention in ONNX graphs, written so that onnxruntime loads it in every precision."""

from __future__ import annotations

from onnx import ModelProto, helper


def scale_keys(proto: ModelProto) -> None:
    """Multiply the keys by attention's scale where the graph multiplies the queries: the same products.

    onnxruntime fuses the attention of FastViT and MobileCLIP (AttentionFusion, 1.32) by that multiplication, and reads
    the weights in front of it as float, also where they are half: such a file does not load.
    """
    graph = proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    made_by = {value: node for node in graph.node for value in node.output}
    readers: dict[str, int] = {}
    for node in graph.node:
        for value in node.input:
            readers[value] = readers.get(value, 0) + 1
    for product in [node for node in graph.node if node.op_type == "MatMul"]:
        queries, keys = product.input
        scaled = made_by.get(queries)
        if scaled is None or scaled.op_type != "Mul" or scaled.input[1] not in constants or keys in constants:
            continue
        if readers[queries] > 1:
            continue
        scale = helper.make_node("Mul", [keys, scaled.input[1]], [f"{keys}_scaled"], name=f"{scaled.name}_of_keys")
        product.input[0], product.input[1] = scaled.input[0], scale.output[0]
        graph.node.insert(list(graph.node).index(product), scale)
        graph.node.remove(scaled)
