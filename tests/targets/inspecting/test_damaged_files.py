"""inspect: files that are missing, damaged or not whole."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from model_files import cut, exported, foreign
from onnx import TensorProto

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.files.whole import size_bytes
from edgecsd.targets.artifact import load_runner
from edgecsd.targets.inspecting import inspect


def test_missing_and_damaged_files(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such artifact"):
        inspect(tmp_path / "none.onnx")
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(exported(run, "tflite").read_bytes()[:2000])
    with pytest.raises(DamagedFileError, match="broken"):
        inspect(broken)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, "weights/weight.bin, which holds its weights, is missing"),
        (lambda path: cut(path, 1000), r"weights/weight.bin has \d+ bytes, and a constant reaches to byte \d+"),
        (lambda path: path.write_bytes(b""), "weights/weight.bin has 0 bytes, and a constant reaches to byte"),
        (
            lambda path: path.write_bytes(bytes(path.stat().st_size)),
            r"weights/weight.bin has no constant of \d+ bytes at byte",
        ),
    ],
    ids=["deleted", "cut", "empty", "zeros"],
)
def test_a_package_without_all_its_weights_is_not_whole(
    damage: Callable[[Path], Any], said: str, run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.mlpackage"
    shutil.copytree(exported(run, "coreml"), path)
    damage(path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin")
    with pytest.raises(DamagedFileError, match=rf"a\.mlpackage: not a whole \.mlpackage: {said}"):
        inspect(path)


INTERNALS = re.compile(r"Error|Errno|unpack|flatbuffer|\.cc:|://|0x[0-9a-f]|Exception|\n")
DAMAGES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "onnx": ("onnx", lambda path: cut(path, 50_000), "ONNX file: its protobuf message cannot be read to its end"),
    "tflite": ("tflite", lambda path: cut(path, 50_000), r"TFLite file: its tables point beyond its \d+ bytes"),
    "ort": ("ort", lambda path: cut(path, 50_000), r"\.ort file: ORT model verification failed"),
    "manifest": ("coreml", lambda path: (path / "Manifest.json").unlink(), r"\.mlpackage: Manifest\.json is missing"),
    "listed": (
        "coreml",
        lambda path: (path / "Manifest.json").write_text("{}"),
        r"\.mlpackage: Manifest\.json does not list the package's parts",
    ),
    "part": (
        "coreml",
        lambda path: shutil.rmtree(path / "Data" / "com.apple.CoreML" / "weights"),
        r"\.mlpackage: Data/com\.apple\.CoreML/weights, which Manifest\.json names, is missing",
    ),
    "program": (
        "coreml",
        lambda path: cut(path / "Data" / "com.apple.CoreML" / "model.mlmodel", 3000),
        r"\.mlpackage: its program cannot be read",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_said_in_plain_words(damage: str, run: Path, tmp_path: Path) -> None:
    target, do, said = DAMAGES[damage]
    source = exported(run, target)
    path = tmp_path / f"a{source.suffix}"
    shutil.copytree(source, path) if source.is_dir() else shutil.copy(source, path)
    do(path)
    with pytest.raises(DamagedFileError, match=rf"a{re.escape(source.suffix)}: not a whole {said}") as caught:
        inspect(path)
    assert not INTERNALS.search(str(caught.value))
    with pytest.raises(DamagedFileError) as caught:
        load_runner(path)
    assert not INTERNALS.search(str(caught.value))


def test_weights_beside_the_file_are_looked_for(run: Path, tmp_path: Path) -> None:
    path, beside = tmp_path / "a.onnx", tmp_path / "a.data"
    onnx.save(onnx.load(str(exported(run, "onnx"))), str(path), save_as_external_data=True, location="a.data")
    result = inspect(path)
    assert all(part.size_bytes > 0 for part in result.parts)
    assert sum(part.size_bytes for part in result.parts) == size_bytes(path) + result.description.beside
    assert 0 < result.description.beside <= size_bytes(beside)
    cut(beside, size_bytes(beside) // 2)
    with pytest.raises(DamagedFileError, match=r"not a whole ONNX file: a\.data beside it, which holds weights, has"):
        inspect(path)
    beside.unlink()
    with pytest.raises(DamagedFileError, match=r"a\.data beside it, which holds weights, is missing"):
        inspect(path)


def test_more_weights_than_bytes_is_not_whole(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.onnx")
    model = onnx.load(str(path))
    model.graph.initializer.append(TensorProto(name="w", dims=[1000], data_type=TensorProto.FLOAT, raw_data=b"1234"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DamagedFileError, match=r"a\.onnx: not a whole \.onnx: its graph declares \d+ bytes more than"):
        inspect(path)
