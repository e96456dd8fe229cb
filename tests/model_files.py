"""Exported files of a run, a file of somebody else, and damage to files."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from edgecsd.targets.metadata import METADATA_KEY

TARGETS = {"onnx": "onnx", "tflite": "tflite", "coreml": "mlpackage"}


def exported(run: Path, target: str) -> Path:
    return run / "exports" / f"test_efficientnet-fp32.{TARGETS.get(target, target)}"


def foreign(path: Path, text: str | None = None) -> Path:
    """An ONNX file of somebody else's, or one with `text` as its metadata."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [out]))
    if text is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, text
    onnx.save(model, str(path))
    return path


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])
