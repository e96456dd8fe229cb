"""The folder for a Mac is whole, and its Python program runs with the reference evaluator in place of Core ML."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError
from edgecsd.measuring.imports import import_rows
from edgecsd.measuring.mac_program import write_program
from edgecsd.measuring.schema import Status
from edgecsd.photos.finding import find_images
from edgecsd.targets.artifact import load_runner


@pytest.fixture(scope="module")
def folder(coreml_file: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mac") / "for-the-mac"
    return write_program(coreml_file, out, images=find_images(photos), run=coreml_file.parent.parent)


def evaluator_as_coremltools() -> Any:
    """What the program uses of coremltools, with edgecsd's own evaluator in place of Core ML."""

    class Model:
        def __init__(self, path: str, compute_units: Enum) -> None:
            self.units, self.runner = compute_units, load_runner(Path(path))

        def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
            return {"embedding": self.runner.embed_one(np.asarray(inputs["image"])[None])}

    units = Enum("ComputeUnit", "CPU_ONLY CPU_AND_GPU CPU_AND_NE ALL")  # type: ignore[misc]
    return SimpleNamespace(models=SimpleNamespace(MLModel=Model), ComputeUnit=units, __version__="of the tests")


def test_the_program_measures_and_import_finds_it_right(folder: Path, coreml_file: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("bench_coreml_copy", folder / "bench_coreml.py")
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    document = program.measure(folder, evaluator_as_coremltools(), ["CPU_ONLY", "ALL"], 3, 0.0)
    (tmp_path / "coreml.json").write_text(json.dumps(document))
    rows = import_rows(tmp_path / "coreml.json", artifact=coreml_file)
    assert [row.backend for row in rows] == ["CPU_ONLY", "ALL"]
    for row in rows:
        assert row.status is Status.OK and row.kind == "imported" and row.precision == "fp32"
        assert row.figures is not None and row.figures.runs == 3 and row.figures.load_ms is not None
        assert row.parity is not None and row.parity.cosine_min > 0.9999 and row.parity.images == 24


def test_elsewhere_than_on_a_mac_it_says_so(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(folder / "bench_coreml.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4 and "Core ML runs on macOS only" in done.stderr and "Traceback" not in done.stderr


def test_the_swift_file_reads_and_writes_the_same_names(folder: Path, coreml_file: Path) -> None:
    """No Swift compiler is here: the names are compared, and the brackets counted."""
    swift, python = (folder / "BenchCoreML.swift").read_text(), (folder / "bench_coreml.py").read_text()
    about = json.loads((folder / "bench.json").read_text())
    assert set(re.findall(r"        let (\w+): (?:String|Int)\n", swift)) - {"text"} <= set(about)
    for name in (
        "kind",
        "schema_version",
        "tool",
        "device",
        "system",
        "model",
        "sha256",
        "compute_units",
        "expected",
        "load_ms",
        "first_ms",
        "wall_ns",
        "embeddings",
    ):
        assert f'"{name}"' in swift and f'"{name}"' in python
    code = re.sub(r'//.*|"(?:\\.|[^"\\])*"', "", swift)
    assert all(code.count(opening) == code.count(closing) for opening, closing in ("{}", "()", "[]"))
    assert (folder / coreml_file.name / "Manifest.json").is_file()


def test_what_is_refused(onnx_file: Path, folder: Path, coreml_file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="is of target onnx; bench script is for Core ML"):
        write_program(onnx_file, tmp_path / "x")
    with pytest.raises(BadInputError, match="exists already"):
        write_program(coreml_file, folder)


def test_the_command(coreml_file: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["bench", "script", str(coreml_file), "--out", str(tmp_path / "out")])
    assert told.exit_code == 0 and "python3 bench_coreml.py" in told.stdout
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["input"] == "synthetic"
