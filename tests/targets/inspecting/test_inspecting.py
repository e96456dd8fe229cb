"""inspect: real files of every target, files of others, and files that somebody changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import warm
from model_files import TARGETS, exported, foreign

from edgecsd.errors import BadInputError, EdgecsdError
from edgecsd.files.whole import sha256_file, size_bytes, write_json
from edgecsd.targets.artifact import ArtifactEmbedder
from edgecsd.targets.content_digest import seal
from edgecsd.targets.inspecting import SCHEMA_VERSION, Inspection, Outcome, inspect
from edgecsd.targets.metadata import METADATA_KEY

FILES = [*TARGETS, "ort"]
KEYS = [
    "schema_version",
    "kind",
    "file",
    "target",
    "format",
    "size_bytes",
    "sha256",
    "written_by_edgecsd",
    "metadata",
    "inputs",
    "outputs",
    "operators",
    "quantised_operators",
    "quantised_operator_count",
    "weights",
    "parts",
    "checks",
    "holds",
]


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


def command(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return warm.edgecsd(["inspect", *arguments], env={**os.environ, "COLUMNS": "200"})


def test_the_command(run: Path, tmp_path: Path) -> None:
    path = exported(run, "onnx")
    done = command(path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == inspect(path).as_dict() | {"file": str(path)}
    text = command(path).stdout
    for words in (
        "query model test_efficientnet, fp32, recipe float32",
        "input image: uint8 (1, 48, 48, 3)",
        f"SHA-256 {sha256_file(path)}",
        "fingerprint: ok",
        "0 of them on 8-bit activations",
        "pixels, in this order: 8-bit RGB, EXIF orientation applied, colour profile ignored, transparency "
        "over white; resize with antialias to uint8; in the file (value * scale - mean) / std, scale "
        "0.00392157",
    ):
        assert words in text
    assert not re.search(r" 0\.0+$", text, re.MULTILINE)  # every part has a size that can be seen
    theirs = command(foreign(tmp_path / "theirs.onnx"))
    assert theirs.returncode == 0 and "no edgecsd metadata" in theirs.stdout and "next:" not in theirs.stdout
    wrong = command(changed(run, tmp_path / "a.onnx", dim=99))
    assert wrong.returncode == 2 and "metadata: differs" in wrong.stdout and wrong.stderr == ""
