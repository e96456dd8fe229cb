"""Smaller ONNX and TFLite files that compute the same."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from target_models import DIM, PHOTOS, SIZE, Make

from edgecsd.exporting.export import export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.query import create_query_model, save_query_model
from edgecsd.photos.finding import find_images
from edgecsd.targets.onnx.compact import compact
from edgecsd.targets.onnx.quantise import store_weights_in_8_bit
from edgecsd.targets.tflite.convert import _short_name


def run(proto: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    return session.run(None, {"image": pixels})[0]


def test_files_name_no_file_of_the_machine_that_made_them(artifact: Make) -> None:
    for target in ("onnx", "tflite"):
        for precision in ("fp32", "w8a8"):
            data = artifact(target, precision).path.read_bytes()
            assert not [trace for trace in (b"site-packages", b"timm", b'File "', b"torch.nn") if trace in data]


def test_compacting_changes_no_number(artifact: Make) -> None:
    proto = onnx.load(str(artifact("onnx", "fp32").path))
    store_weights_in_8_bit(proto, {"Conv", "Gemm"})
    proto.graph.node[3].doc_string = "made in /home/somebody/model.py"
    small = copy.deepcopy(proto)
    compact(small)
    onnx.checker.check_model(small, full_check=True)
    np.testing.assert_array_equal(run(small), run(proto))
    assert small.ByteSize() < proto.ByteSize()
    names = [name for node in small.graph.node for name in node.output]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.endswith("_quantized") or name.startswith("query_model.")]


@pytest.mark.parametrize(("precision", "most"), [("fp32", 2), ("w8a32", 2), ("w8a8", 1)])
def test_weights_that_two_convolutions_read(precision: str, most: int, photos: Path, tmp_path: Path) -> None:
    """Equal small weights, as pruning leaves them, are one tensor in the graph that torch exports; w8a8 has two."""
    torch.manual_seed(5)
    space = EmbeddingSpace(gallery_model="g", dim=DIM)
    model = create_query_model("mobilenetv2_035", space, size=SIZE, pretrained=False)
    twins = [dict(model.backbone.named_modules())[f"blocks.{place}.conv_pw"] for place in ("1.0", "1.1")]
    twins[1].weight.data = twins[0].weight.data.clone()
    norms = [model.backbone.get_submodule(f"blocks.{place}.bn1") for place in ("1.0", "1.1")]
    norms[1].load_state_dict(norms[0].state_dict())
    save_query_model(model, tmp_path)
    made = export(
        tmp_path, "onnx", precision, out=tmp_path / "a.onnx", calibration=find_images(photos), calibration_count=PHOTOS
    )
    assert made.parity["cosine_mean"] > 0.9
    readers = Counter(node.input[1] for node in onnx.load(str(made.path)).graph.node if node.op_type == "Conv")
    assert max(readers.values()) == most


def test_names_that_would_become_equal_are_kept() -> None:
    nodes = [
        onnx.helper.make_node("Abs", ["image"], ["backbone.a"]),
        onnx.helper.make_node("Neg", ["backbone.a"], ["a"]),
        onnx.helper.make_node("Exp", ["a"], ["query_model.backbone.a"]),
        onnx.helper.make_node("Sqrt", ["query_model.backbone.a"], ["embedding"]),
    ]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("image", "embedding")]
    proto = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:]))
    compact(proto)
    onnx.checker.check_model(proto, full_check=True)
    outputs = [node.output[0] for node in proto.graph.node]
    assert len(set(outputs)) == 4 and outputs[-1] == "embedding"
    assert [node.input[0] for node in proto.graph.node] == ["image", *outputs[:-1]]


@pytest.mark.parametrize(
    ("long", "short"),
    [
        (
            "edgecsd._Named/torch.nn.Sequential_blocks/torch.nn.Sequential_4/torch.nn.Conv2d_conv_pw;",
            "blocks/4/conv_pw;",
        ),
        ("timm.layers.BatchNormAct2d_bn1;;timm.layers.Conv2d_conv;1", "bn1;1"),
        ("serving_default_image", "serving_default_image"),
        ("arith.constant17", "constant17"),
    ],
)
def test_tflite_names(long: str, short: str) -> None:
    assert _short_name(long).removeprefix("Named/") == short
