"""What a file is made of, against what its own library says, for every target."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import TensorProto, helper, numpy_helper
from target_models import DIM, SIZE, Make

from edgecsd.errors import DamagedFileError
from edgecsd.exporting.export import export
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.coreml import describe as coreml_describe
from edgecsd.targets.description import SCALES, Description, StoredWeights, WeightCount, held_precision, packed_bytes
from edgecsd.targets.inspecting import Outcome, _precision
from edgecsd.targets.onnx import describe as onnx_describe
from edgecsd.targets.tflite import describe as tflite_describe

DESCRIBE = {"onnx": onnx_describe, "tflite": tflite_describe, "coreml": coreml_describe}
INPUTS = {
    "onnx": ("image", "uint8", (1, SIZE, SIZE, 3)),
    "tflite": ("image", "uint8", (1, SIZE, SIZE, 3)),
    "coreml": ("image", "image RGB", (SIZE, SIZE)),
}


def described(target: str, precision: str, artifact: Make) -> Description:
    description: Description = DESCRIBE[target].describe(artifact(target, precision).path)  # type: ignore[attr-defined]
    return description


@pytest.mark.parametrize("target", DESCRIBE)
def test_inputs_and_outputs(target: str, artifact: Make) -> None:
    description = described(target, "fp32", artifact)
    (given,), (result,) = description.inputs, description.outputs
    assert (given.name, given.dtype, given.shape) == INPUTS[target]
    assert (result.name, result.shape) == ("embedding", (1, DIM))
    assert result.dtype in ("float", "float32", "fp32")


@pytest.mark.parametrize("target", DESCRIBE)
def test_a_float_file_has_nothing_in_8_bit(target: str, artifact: Make) -> None:
    assert described(target, "fp32", artifact).quantised_operators == {}


@pytest.mark.parametrize(("target", "convolution"), [("onnx", "Conv"), ("tflite", "CONV_2D"), ("coreml", "conv")])
def test_weights_shrink_with_their_type(target: str, convolution: str, artifact: Make) -> None:
    def kinds(precision: str) -> dict[str, int]:
        weights = described(target, precision, artifact).weights
        return {each.dtype: each.size_bytes for each in weights if each.operator == convolution}

    full, eight = kinds("fp32"), kinds("w8a8")
    assert len(full) == 1
    assert 0.2 < eight["int8"] / sum(full.values()) < 0.27


@pytest.mark.parametrize(("target", "convolution"), [("onnx", "Conv"), ("tflite", "CONV_2D"), ("coreml", "conv")])
def test_convolutions_of_w8a8_read_8_bit_values(target: str, convolution: str, artifact: Make) -> None:
    description = described(target, "w8a8", artifact)
    found = description.quantised_operators[convolution]
    assert 10 < found <= description.operators[convolution]
    assert not {"DIV", "Div", "real_div", "SQRT", "Sqrt", "sqrt", "Gemm", "linear"} & set(
        description.quantised_operators
    )


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("target", DESCRIBE)
def test_the_precision_that_is_named_is_held(target: str, precision: Precision, artifact: Make) -> None:
    made = artifact(target, precision)
    description = described(target, precision, artifact)
    assert held_precision(description) is precision
    for named in Precision:
        check = _precision(made.metadata.model_copy(update={"precision": named}), description)
        assert (check.outcome is Outcome.OK) == (named is precision), check
        assert check.outcome is not Outcome.NOT_CHECKED


def test_without_convolutions_nothing_is_held() -> None:
    def of(*weights: StoredWeights, **quantised: int) -> Description:
        return Description("f", (), (), {}, quantised, weights, None)

    assert held_precision(of()) is None
    assert held_precision(of(StoredWeights("Gemm", "float", 1, 900))) is None
    assert held_precision(of(StoredWeights("Conv", "int4", 1, 900))) is None
    few = StoredWeights("Conv", "int8", 1, 10)
    assert held_precision(of(StoredWeights("Conv", "float", 1, 900), few)) is Precision.FP32
    assert held_precision(of(StoredWeights("Conv", "float", 1, 900), few, Conv=1)) is Precision.W8A8
    assert held_precision(of(StoredWeights("FULLY_CONNECTED", "float32", 2, 9000), few)) is Precision.W8A32


@pytest.mark.parametrize("precision", ["fp32", "w8a32", "w8a8"])
def test_onnx_weights_are_its_initializers(precision: str, artifact: Make) -> None:
    path = artifact("onnx", precision).path
    description = onnx_describe.describe(path)
    graph = onnx.load(str(path)).graph
    assert sum(each.size_bytes for each in description.weights) == sum(
        numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer
    ) + sum(numpy_helper.to_array(a.t).nbytes for n in graph.node if n.op_type == "Constant" for a in n.attribute)
    assert description.operators == dict(Counter(n.op_type for n in graph.node if n.op_type != "Constant"))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8a8"])
def test_tflite_operators_are_the_interpreters(precision: str, artifact: Make) -> None:
    path = artifact("tflite", precision).path
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    assert tflite_describe.describe(path).operators == Counter(o["op_name"] for o in interpreter._get_ops_details())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8a32", "w8a8"])
def test_coreml_weights_are_its_weight_file(precision: str, artifact: Make) -> None:
    path = artifact("coreml", precision).path
    description = coreml_describe.describe(path)
    (weight_file,) = path.rglob("weight.bin")
    counted = sum(each.size_bytes for each in description.weights)
    tensors = sum(each.tensors for each in description.weights)
    assert counted < weight_file.stat().st_size <= counted + 64 * (2 * tensors + 1)  # each has a header, both aligned


def test_coreml_weights_behind_two_expansions_belong_to_the_convolution(tmp_path: Path) -> None:
    import coremltools
    import torch
    from test_coreml_weights import palette_of_integers

    from edgecsd.quiet import quiet_conversion

    with quiet_conversion("the conversion"):
        program = torch.export.export(torch.nn.Conv2d(16, 64, 3).eval(), (torch.zeros(1, 16, 6, 6),))
        package = coremltools.convert(
            program.run_decompositions({}),
            convert_to="mlprogram",
            skip_model_load=True,
            minimum_deployment_target=coremltools.target.iOS18,
        )
        palette_of_integers(package).save(str(tmp_path / "a.mlpackage"))
    found = {(each.operator, each.dtype): each for each in coreml_describe.describe(tmp_path / "a.mlpackage").weights}
    assert found["conv", "uint4"].size_bytes == 64 * 16 * 9 // 2


def quantised_graph() -> onnx.ModelProto:
    """A convolution between roundings, one in integers, and one, a maximum and a sum that only read 8-bit values."""

    def stored(name: str, array: Any) -> TensorProto:
        return numpy_helper.from_array(np.asarray(array), name)

    scales = [
        stored("s", np.float32(0.1)),
        stored("z", np.uint8(0)),
        stored("sw", np.float32(0.1)),
        stored("zw", np.int8(0)),
    ]
    weight = stored("w", np.ones((2, 2, 1, 1), np.int8))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wd"]),
        helper.make_node("Conv", ["d", "wd"], ["a"]),
        helper.make_node("QLinearConv", ["q", "s", "z", "w", "sw", "zw", "s", "z"], ["b"]),
        helper.make_node("DequantizeLinear", ["b", "s", "z"], ["bd"]),
        helper.make_node("QuantizeLinear", ["a", "s", "z"], ["aq"]),
        helper.make_node("DequantizeLinear", ["aq", "s", "z"], ["ad"]),
        helper.make_node("ReduceMax", ["ad"], ["m"]),
        helper.make_node("Conv", ["ad", "wd"], ["c"]),
        helper.make_node("Add", ["c", "bd"], ["e"]),
        helper.make_node("Div", ["e", "m"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, "h", 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [*scales, weight])
    return helper.make_model(graph)


def test_8_bit_is_the_same_by_the_graph_and_by_the_description(artifact: Make) -> None:
    from test_8_bit_body import onnx_steps

    path = artifact("onnx", "w8a8").path
    counted = Counter(step.kind for step in onnx_steps(path) if step.eight_bit)
    assert onnx_describe.describe(path).quantised_operators == counted


def test_onnx_has_as_many_convolutions_and_sums_in_8_bit_as_tflite(artifact: Make) -> None:
    words = {"onnx": ("Conv", "Add"), "tflite": ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD")}
    found = {target: described(target, "w8a8", artifact).quantised_operators for target in words}
    counts = {target: sum(found[target].get(name, 0) for name in names) for target, names in words.items()}
    assert len(set(counts.values())) == 1, found
    float_everywhere = {"div", "reducemax", "reduce_max", "reducemean", "mean", "sqrt", "pow"}
    assert not float_everywhere & {name.lower() for names in found.values() for name in names}


def test_what_counts_as_8_bit_in_onnx(tmp_path: Path) -> None:
    onnx.save(quantised_graph(), str(tmp_path / "a.onnx"))
    description = onnx_describe.describe(tmp_path / "a.onnx")
    assert description.quantised_operators == {"Conv": 1, "QLinearConv": 1}
    assert description.inputs[0].shape == (1, 2, -1, 4)
    assert {(each.operator, each.tensors) for each in description.weights} >= {(SCALES, 1), ("Conv", 1)}
    assert description.metadata is None


@pytest.mark.parametrize("target", DESCRIBE)
def test_what_is_no_model_is_damaged(target: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(range(200)))
    with pytest.raises(DamagedFileError, match="not a whole"):
        DESCRIBE[target].describe(path)  # type: ignore[attr-defined]


def test_onnxruntimes_own_format(run: Path, tmp_path: Path) -> None:
    made = export(run, "onnx", "fp32", out=tmp_path / "a.ort", ort_format=True)
    description = onnx_describe.describe(made.path)
    (given,), (result,) = description.inputs, description.outputs
    assert (given.name, given.dtype, given.shape) == INPUTS["onnx"]
    assert (result.name, result.dtype, result.shape) == ("embedding", "float", (1, DIM))
    assert description.metadata == made.metadata.model_dump_json()
    made.path.write_bytes(made.path.read_bytes()[:900])
    with pytest.raises(DamagedFileError, match=r"not a whole \.ort file"):
        onnx_describe.describe(made.path)


def test_counting_weights() -> None:
    counted = WeightCount()
    for size in (3, 4):
        counted.add("conv", "int8", size)
    counted.add("linear", "fp16", 9)
    assert [(w.operator, w.tensors, w.size_bytes) for w in counted.result()] == [("linear", 1, 9), ("conv", 2, 7)]
    assert packed_bytes(5, 6) == 4
