"""inspect: real files of every target, files of others, and files that somebody changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgecsd.errors import BadInputError, DamagedFileError, EdgecsdError
from edgecsd.exporting import export
from edgecsd.files import sha256_file, size_bytes, write_json
from edgecsd.inspecting import SCHEMA_VERSION, Inspection, Outcome, inspect
from edgecsd.query_models import create_query_model, save_query_model
from edgecsd.space import EmbeddingSpace
from edgecsd.targets.artifact import METADATA_KEY, load_runner
from edgecsd.targets.content_digest import seal
from edgecsd.targets.embedder import ArtifactEmbedder

TARGETS = {"onnx": "onnx", "tflite": "tflite", "coreml": "mlpackage"}
FILES = [*TARGETS, "ort"]
KEYS = [
    "schema_version", "kind", "file", "target", "format", "size_bytes", "sha256", "written_by_edgecsd", "metadata",
    "inputs", "outputs", "operators", "quantised_operators", "quantised_operator_count", "weights", "parts", "checks",
    "holds",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with one float file of each target in its `exports`."""
    folder = tmp_path_factory.mktemp("run")
    space = EmbeddingSpace(gallery_model="g", dim=16)
    model = create_query_model("test_efficientnet", space, pretrained=False, size=48)
    save_query_model(model, folder)
    for target in TARGETS:
        export(folder, target, "fp32")
    export(folder, "onnx", "fp32", ort_format=True)
    return folder


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


@pytest.mark.parametrize("target", TARGETS)
def test_everything_holds_in_what_export_wrote(target: str, run: Path) -> None:
    path = exported(run, target)
    result = inspect(path, sha256=sha256_file(path))
    assert result.holds and result.written_by_edgecsd
    assert result.metadata is not None and result.metadata.dim == 16
    outcomes = {check.name: check.outcome for check in result.checks}
    names = ["SHA-256", "metadata", "fingerprint", "target", "precision", "content digest", "weights digest"]
    assert outcomes == dict.fromkeys(names, Outcome.OK)
    assert sum(part.size_bytes for part in result.parts) == size_bytes(path) == result.size_bytes
    assert all(part.size_bytes > 0 for part in result.parts)
    assert {"graph", "edgecsd metadata"} < {part.name for part in result.parts}


@pytest.mark.parametrize("target", TARGETS)
def test_the_json_document(target: str, run: Path) -> None:
    document = inspect(exported(run, target)).as_dict()
    assert list(document) == KEYS and document["schema_version"] == SCHEMA_VERSION == 1
    assert json.loads(json.dumps(document)) == document
    assert document["inputs"][0]["name"] == "image" and document["outputs"][0]["shape"] == [1, 16]
    assert document["metadata"]["recipe"] == "float32"
    assert document["quantised_operator_count"] == 0


def outcome(result: Inspection, name: str) -> Outcome:
    (found,) = [check.outcome for check in result.checks if check.name == name]
    return found


def weights_of(path: Path) -> Path:
    """The file of an artifact that holds its weights: the largest."""
    return path if path.is_file() else max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("target", FILES)
def test_a_flipped_bit_of_a_weight_is_found(target: str, run: Path, tmp_path: Path) -> None:
    source = exported(run, target)
    path = tmp_path / source.name
    shutil.copytree(source, path) if source.is_dir() else shutil.copy(source, path)
    assert outcome(inspect(path), "content digest") is Outcome.OK
    data = bytearray(weights_of(path).read_bytes())
    data[len(data) // 2] ^= 4
    weights_of(path).write_bytes(data)
    result = inspect(path)
    assert outcome(result, "content digest") is Outcome.DIFFERS and not result.holds
    assert [check.name for check in result.checks if check.outcome is Outcome.DIFFERS] == ["content digest"]


def test_metadata_that_was_edited_is_found(run: Path, tmp_path: Path) -> None:
    result = inspect(changed(run, tmp_path / "a.onnx", licence="mine"))
    assert outcome(result, "metadata") is Outcome.OK and outcome(result, "content digest") is Outcome.DIFFERS
    twice = changed(run, tmp_path / "b.onnx", licence='content_digest":"' + "0" * 64)
    assert outcome(inspect(twice), "content digest") is Outcome.DIFFERS


@pytest.mark.parametrize("named", ["fp16", "w8a32", "w8a8"])
def test_a_precision_that_the_file_does_not_hold_is_found(named: str, run: Path, tmp_path: Path) -> None:
    result = inspect(changed(run, tmp_path / "a.onnx", precision=named))
    (check,) = [check for check in result.checks if check.name == "precision"]
    assert check.outcome is Outcome.DIFFERS and not result.holds
    assert check.reason.startswith(f"{named} by its metadata, but") and check.reason.endswith("those of fp32")


def test_a_converter_that_writes_no_metadata_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no metadata")
    with pytest.raises(EdgecsdError, match=r"a\.onnx: the converter wrote 0 places"):
        seal(tmp_path / "a.onnx")


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    result = inspect(foreign(tmp_path / "theirs.onnx"))
    assert not result.written_by_edgecsd and result.metadata is None and result.checks == ()
    assert result.holds and result.description.operators == {"Identity": 1}


def test_another_digest_is_told(run: Path) -> None:
    result = inspect(exported(run, "onnx"), sha256="0" * 64)
    assert not result.holds
    assert result.checks[0].outcome is Outcome.DIFFERS and "the digest given says 000" in result.checks[0].reason
    with pytest.raises(BadInputError, match="'abc': not a SHA-256"):
        inspect(exported(run, "onnx"), sha256="abc")


def changed(run: Path, path: Path, **changes: Any) -> Path:
    """The ONNX file with other metadata."""
    model = onnx.load(str(exported(run, "onnx")))
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    entry.value = json.dumps({**json.loads(entry.value), **changes})
    onnx.save(model, str(path))
    return path


def test_a_file_of_the_first_version_is_read(run: Path, tmp_path: Path) -> None:
    model = onnx.load(str(exported(run, "onnx")))
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    stated = json.loads(entry.value)
    entry.value = json.dumps(
        {**{k: v for k, v in stated.items() if k not in ("pixels", "content_digest")}, "schema_version": 1}
    )
    onnx.save(model, str(tmp_path / "old.onnx"))
    result = inspect(tmp_path / "old.onnx")
    assert result.holds and result.metadata is not None and "pixels" not in result.as_dict()["metadata"]
    assert result.checks[0].reason == "schema version 1"
    assert outcome(result, "content digest") is Outcome.NOT_CHECKED
    embedder = ArtifactEmbedder(tmp_path / "old.onnx")  # what check and bench run it by
    assert embedder.embed(np.zeros((1, 48, 48, 3), np.uint8)).shape == (1, 16)
    said = command(tmp_path / "old.onnx").stdout
    assert "the other steps of the pixel contract are not stated (schema version 1)" in said


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fingerprint": "es1-" + "0" * 32}, "fingerprint es1-0+ is not that of the embedding space"),
        ({"dim": 99}, "dim 99 is not that of the embedding space"),
        ({"schema_version": 9}, "schema_version 9 is unknown"),
    ],
)
def test_metadata_that_contradicts_itself(changes: dict[str, Any], reason: str, run: Path, tmp_path: Path) -> None:
    result = inspect(changed(run, tmp_path / "a.onnx", **changes))
    (check,) = result.checks
    assert check.outcome is Outcome.DIFFERS and re.search(reason, check.reason)
    assert result.metadata is None and result.written_by_edgecsd and not result.holds


def test_weights_of_another_run_are_told(run: Path, tmp_path: Path) -> None:
    (tmp_path / "exports").mkdir()
    path = tmp_path / "exports" / "a.onnx"
    shutil.copy(exported(run, "onnx"), path)
    weights = {check.name: check for check in inspect(path).checks}["weights digest"]
    assert weights.outcome is Outcome.NOT_CHECKED and "needs the run folder" in weights.reason
    write_json(tmp_path / "query_model.json", {"weights_digest": "other"})
    result = inspect(path)
    weights = {check.name: check for check in result.checks}["weights digest"]
    assert weights.outcome is Outcome.DIFFERS and weights.reason.endswith("query_model.json says other")
    assert not result.holds


def test_missing_and_damaged_files(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such artifact"):
        inspect(tmp_path / "none.onnx")
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(exported(run, "tflite").read_bytes()[:2000])
    with pytest.raises(DamagedFileError, match="broken"):
        inspect(broken)


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


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
        "coreml", lambda path: (path / "Manifest.json").write_text("{}"),
        r"\.mlpackage: Manifest\.json does not list the package's parts",
    ),
    "part": (
        "coreml", lambda path: shutil.rmtree(path / "Data" / "com.apple.CoreML" / "weights"),
        r"\.mlpackage: Data/com\.apple\.CoreML/weights, which Manifest\.json names, is missing",
    ),
    "program": (
        "coreml", lambda path: cut(path / "Data" / "com.apple.CoreML" / "model.mlmodel", 3000),
        r"\.mlpackage: its program cannot be read",
    ),
}  # fmt: skip


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


def command(*arguments: Any) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "edgecsd", "inspect", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)


def test_the_command(run: Path, tmp_path: Path) -> None:
    path = exported(run, "onnx")
    done = command(path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == inspect(path).as_dict() | {"file": str(path)}
    text = command(path).stdout
    for words in ("query model test_efficientnet, fp32, recipe float32", "input image: uint8 (1, 48, 48, 3)",
                  f"SHA-256 {sha256_file(path)}", "fingerprint: ok", "0 of them on 8-bit activations",
                  "pixels, in this order: 8-bit RGB, EXIF orientation applied, colour profile ignored, transparency "
                  "over white; resize with antialias to uint8; in the file (value * scale - mean) / std, scale "
                  "0.00392157"):  # fmt: skip
        assert words in text
    assert not re.search(r" 0\.0+$", text, re.MULTILINE)  # every part has a size that can be seen
    theirs = command(foreign(tmp_path / "theirs.onnx"))
    assert theirs.returncode == 0 and "no edgecsd metadata" in theirs.stdout and "next:" not in theirs.stdout
    wrong = command(changed(run, tmp_path / "a.onnx", dim=99))
    assert wrong.returncode == 2 and "metadata: differs" in wrong.stdout and wrong.stderr == ""
