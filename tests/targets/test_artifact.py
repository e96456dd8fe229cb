"""Artifact metadata: what is refused, and that reading it loads no converter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from model_files import foreign

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.photos.contract import PIXEL_STEPS, Preprocess
from edgecsd.targets.artifact import parse_target, read_metadata, target_module
from edgecsd.targets.metadata import ArtifactMetadata, Target, metadata_from_json

SPACE = EmbeddingSpace(gallery_model="g", dim=16)


def metadata(**changes: Any) -> dict[str, Any]:
    """Valid metadata of an ONNX artifact as parsed JSON, with changes."""
    whole = ArtifactMetadata(
        target=Target.ONNX,
        precision="fp32",
        recipe="float32",
        space=SPACE,
        fingerprint=SPACE.fingerprint,
        dim=16,
        metric="cosine",
        preprocess=Preprocess(size=32),
        backbone="b",
        weights_digest="w",
        versions={"edgecsd": "0"},
    )
    return {**whole.model_dump(mode="json"), **changes}


def test_metadata_survives_json() -> None:
    read = metadata_from_json(json.dumps(metadata()), "a.onnx")
    assert read.model_dump(mode="json") == metadata()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 3}, "schema_version 3 is unknown to this edgecsd, which reads 1 and 2"),
        ({"schema_version": None}, "schema_version None is unknown"),
        ({"fingerprint": "es1-" + "0" * 32}, "fingerprint es1-0+ is not that of the embedding space"),
        ({"dim": 17}, "dim 17 is not that of the embedding space it names .16."),
        ({"precision": "int8"}, "not valid.*precision"),
        ({"colour": "red"}, "not valid.*colour"),
        ({"preprocess": {"size": 4}}, "not valid.*size"),
        ({"kind": "something else"}, "not valid.*kind"),
        ({"pixels": None}, "not valid: pixels are not stated in schema version 2"),
        ({"schema_version": 1}, "not valid: pixels are stated in schema version 1"),
        (
            {"pixels": {**PIXEL_STEPS.model_dump(), "transparency": "over black"}},
            "not valid: this edgecsd makes pixels by other steps: transparency 'over black', not 'over white'$",
        ),
    ],
)
def test_wrong_metadata_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DamagedFileError, match=f"(?s)a.onnx.*{message}"):
        metadata_from_json(json.dumps(metadata(**changes)), "a.onnx")


def first_version() -> dict[str, Any]:
    """As edgecsd wrote metadata before it stated the steps of the pixel contract."""
    return {name: value for name, value in metadata(schema_version=1).items() if name != "pixels"}


def test_metadata_of_the_first_version_is_read_and_written_as_it_was() -> None:
    read = metadata_from_json(json.dumps(first_version()), "a.onnx")
    assert read.pixels is None and read.preprocess == Preprocess(size=32)
    assert read.model_dump(mode="json") == first_version()


def test_what_is_wrong_is_said_in_a_line() -> None:
    with pytest.raises(DamagedFileError) as caught:
        metadata_from_json(json.dumps(metadata(precision="int8", dim="many")), "a.onnx")
    assert "\n" not in str(caught.value) and "://" not in str(caught.value)
    assert "precision = 'int8'" in str(caught.value) and "dim = 'many'" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"x"'])
def test_metadata_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(DamagedFileError, match=r"a\.onnx"):
        metadata_from_json(text, "a.onnx")


def test_a_model_that_edgecsd_did_not_write(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"foreign\.onnx: has no edgecsd metadata") as caught:
        read_metadata(foreign(tmp_path / "foreign.onnx"))
    assert not isinstance(caught.value, DamagedFileError)


def test_foreign_tflite_and_coreml(tmp_path: Path) -> None:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers = 3, [schema.SubGraphT()], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "foreign.tflite").write_bytes(bytes(builder.Output()))
    with pytest.raises(BadInputError, match="has no edgecsd metadata"):
        read_metadata(tmp_path / "foreign.tflite")
    (tmp_path / "empty.mlpackage").mkdir()
    with pytest.raises(DamagedFileError, match=r"empty\.mlpackage"):
        read_metadata(tmp_path / "empty.mlpackage")


def test_metadata_of_another_target_is_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.onnx", json.dumps(metadata(target="tflite")))
    with pytest.raises(DamagedFileError, match="says tflite, its suffix says onnx"):
        read_metadata(path)


def test_metadata_around_another_network_is_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path / "a.onnx", json.dumps(metadata()))
    with pytest.raises(DamagedFileError, match="its input and output are not 'image' and 'embedding'"):
        target_module(Target.ONNX).load_runner(path, 1)


def test_targets_by_name() -> None:
    assert parse_target("litert") is Target.TFLITE
    assert [parse_target(target) for target in Target] == [*Target]
    with pytest.raises(
        BadInputError, match="'tensorrt' is not known; choose one of: onnx, tflite, coreml, coreai, litert"
    ):
        parse_target("tensorrt")


def test_the_door_loads_no_heavy_library() -> None:
    code = (
        "import sys, edgecsd.targets.artifact, edgecsd.quantisation.calibration, edgecsd.exporting.export; "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'ai_edge_litert', 'litert_torch', 'coremltools', 'coreai', "
        "'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("target", "allowed"),
    [("onnx", "onnxruntime"), ("tflite", "ai_edge_litert"), ("coreml", "coremltools"), ("coreai", "coreai")],
)
def test_a_target_without_its_library_names_the_extra(target: str, allowed: str) -> None:
    code = (
        f"import sys; sys.modules['{allowed}'] = None\n"
        "from edgecsd.errors import MissingBackendError\n"
        "from edgecsd.targets.metadata import Target; from edgecsd.targets.artifact import target_module\n"
        f"try: target_module(Target('{target}'))\n"
        "except MissingBackendError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'edgecsd[{target}]'" in done.stdout
    assert done.stderr == ""
