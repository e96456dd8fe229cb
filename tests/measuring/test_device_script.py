"""bench_device.py, run as a user would on a device: by a bare Python, in a fresh process."""

from __future__ import annotations

import ast
import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecsd.measuring.child import DEVICE_SCRIPT
from edgecsd.targets.artifact import load_runner


def run_script(script: Path, *arguments: object, text: str = "") -> tuple[int, list[Any]]:
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture()
def script(tmp_path: Path) -> Path:
    """A copy in a folder of its own: nothing beside it can be imported."""
    return Path(shutil.copy(DEVICE_SCRIPT, tmp_path / "bench_device.py"))


@pytest.fixture()
def pixels_file(tmp_path: Path, pixels: np.ndarray) -> Path:
    np.save(tmp_path / "pixels.npy", pixels)
    return tmp_path / "pixels.npy"


def quick(runs: int) -> tuple[object, ...]:
    return ("--min-runs", runs, "--min-seconds", 0.02, "--warmup-seconds", 0.02)


@pytest.mark.parametrize("artifact", ["onnx_file", "tflite_file"])
def test_one_document(
    artifact: str, request: pytest.FixtureRequest, script: Path, pixels_file: Path, pixels: np.ndarray
) -> None:
    file = request.getfixturevalue(artifact)
    code, (document,) = run_script(script, file, "--input", pixels_file, *quick(12))
    warm = document["warm"]
    assert code == 0
    assert document["schema_version"] == 1
    assert len(document["wall_ns"]) == len(document["cpu_ns"]) == warm["runs"] >= 12
    assert warm["p90_ms"] == pytest.approx(np.percentile(document["wall_ns"], 90) / 1e6)
    assert warm["min_ms"] == min(document["wall_ns"]) / 1e6
    assert document["warmup"]["runs"] >= 10
    assert document["memory"]["peak_kb"] >= document["memory"]["rss_loaded_kb"] > document["memory"]["rss_before_kb"]
    stored = document["embeddings"]
    embeddings = np.frombuffer(base64.b64decode(stored["base64"]), "<f4").reshape(stored["shape"])
    np.testing.assert_allclose(embeddings, load_runner(file).embed(pixels), atol=1e-6)


def test_p99_needs_a_thousand_runs(script: Path, pixels_file: Path, onnx_file: Path) -> None:
    short = ("--min-seconds", 0, "--warmup-seconds", 0)
    _, (few,) = run_script(script, onnx_file, "--input", pixels_file, "--min-runs", 999, *short)
    _, (many,) = run_script(script, onnx_file, "--input", pixels_file, "--min-runs", 1000, *short)
    assert few["warm"]["runs"] == 999 and "p99_ms" not in few["warm"]
    assert many["warm"]["runs"] == 1000 and many["warm"]["p99_ms"] >= many["warm"]["p95_ms"]


def test_embeddings_of_images_that_no_timed_run_reached(script: Path, tmp_path: Path, onnx_file: Path) -> None:
    many = np.random.default_rng(5).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "many.npy", many)
    out = tmp_path / "embeddings.npy"
    arguments = ("--min-runs", 1, "--min-seconds", 0, "--warmup-seconds", 0, "--embeddings", out)
    run_script(script, onnx_file, "--input", tmp_path / "many.npy", *arguments)
    np.testing.assert_allclose(np.load(out), load_runner(onnx_file).embed(many), atol=1e-6)


def test_serve_answers_each_count(script: Path, pixels_file: Path, onnx_file: Path) -> None:
    arguments = (onnx_file, "--input", pixels_file, "--serve", "--warmup-seconds", 0.02)
    code, lines = run_script(script, *arguments, text="4\n2\n")
    assert code == 0
    assert lines[0]["ready"] is True
    assert [len(line["cpu_ns"]) for line in lines[1:]] == [4, 2]
    assert [len(line["wall_ns"]) for line in lines[1:]] == [4, 2]


@pytest.mark.parametrize("name", ["missing.onnx", "pixels.npy"])
def test_a_reason_and_no_traceback(name: str, script: Path, pixels_file: Path) -> None:
    code, (document,) = run_script(script, pixels_file.parent / name, "--input", pixels_file)
    assert code == 1
    assert name in document["error"]


def test_pixels_of_another_type_are_refused(script: Path, tmp_path: Path, onnx_file: Path) -> None:
    np.save(tmp_path / "floats.npy", np.zeros((1, 32, 32, 3), np.float32))
    code, (document,) = run_script(script, onnx_file, "--input", tmp_path / "floats.npy")
    assert code == 1
    assert "uint8 is expected" in document["error"] and "float32" in document["error"]


def test_runs_on_python_3_8_and_imports_nothing_of_ours() -> None:
    tree = ast.parse(DEVICE_SCRIPT.read_text(), feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    allowed = {"numpy", "onnxruntime", "ai_edge_litert", "tflite_runtime"}
    assert imported - sys.stdlib_module_names <= allowed
