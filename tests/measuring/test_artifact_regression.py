"""A new artifact beside the old one: which figures decide, and what they say of sound and of worse ones."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bench_models import make_model, save_artifact
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError
from edgecsd.measuring import ratio, regression
from edgecsd.measuring.bench import bench
from edgecsd.measuring.ratio import Ratio
from edgecsd.measuring.regression import Change, Comparison, compare_artifacts
from edgecsd.measuring.schema import BenchResult

QUICK = {"threads": (1,), "min_runs": 3, "min_seconds": 0.0}
SMALL = ["--threads", "1", "--min-runs", "3", "--min-seconds", "0"]


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny network's times are mostly overhead and never precise: what was asked for is enough."""
    monkeypatch.setattr(ratio, "MOST_TIMES", 1)
    monkeypatch.setattr(regression, "interleaved_ratio", partial(ratio.interleaved_ratio, warmup_seconds=0.05))


@pytest.fixture(scope="module")
def measured(onnx_file: Path, tflite_file: Path) -> BenchResult:
    return bench([onnx_file, tflite_file], **QUICK)  # type: ignore[arg-type]


def test_the_figures_are_those_of_the_rows(measured: BenchResult, onnx_file: Path, tflite_file: Path) -> None:
    found = compare_artifacts(measured, None, max_regression=1e6, blocks=3, runs=2)
    assert (found.before, found.after) == (str(onnx_file), str(tflite_file)) and found.passed
    cpu, memory, size, distance = found.changes
    assert cpu.ratio == found.cpu.ratio and cpu.after == found.cpu.a_ms and cpu.low == found.cpu.low
    old, new = measured.rows
    assert old.figures and new.figures and old.figures.peak_kb and new.figures.peak_kb
    assert memory.ratio == pytest.approx(new.figures.peak_kb / old.figures.peak_kb)
    assert size.ratio == pytest.approx(tflite_file.stat().st_size / onnx_file.stat().st_size)
    assert distance.ratio == 1.0 and distance.after < 1e-4, "both are torch's to the eye"


def test_a_file_beside_itself_takes_the_same(onnx_file: Path, run_folder: Path, tmp_path: Path) -> None:
    twin = save_artifact(run_folder, make_model(), tmp_path / "twin.onnx")
    found = compare_artifacts(bench([onnx_file, twin], **QUICK), None, blocks=9, runs=5)  # type: ignore[arg-type]
    assert found.changes[0].ratio == pytest.approx(1, abs=0.5)  # a tiny network's times are mostly overhead
    assert all(change.limit is None and change.passed for change in found.changes)


@pytest.mark.parametrize(("by", "passes"), [(0.5, True), (1.05, True), (1.0501, False)])
def test_the_limit(by: float, passes: bool) -> None:
    sound = Change("size", 1, 1, "MB", 1, 1.05)
    cpu = Ratio(1, 1, 1, 1, 1, 1, 1, 1)
    assert Comparison("a", "b", (sound, Change("peak memory", 1, by, "MB", by, 1.05)), cpu).passed is passes


def test_three_files_and_a_failed_row(measured: BenchResult, onnx_file: Path) -> None:
    with pytest.raises(BadInputError, match="compares two artifacts, the new one last; 1 were given"):
        compare_artifacts(BenchResult(rows=measured.rows[:1]), None)


def test_the_command(onnx_file: Path, run_folder: Path, tmp_path: Path) -> None:
    heavier = tmp_path / "heavier.onnx"
    import onnx

    model = onnx.load(onnx_file)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(300_000, np.float32), "ballast"))
    onnx.save(model, heavier)
    runner = CliRunner()
    given = [str(onnx_file), str(heavier), "--run", str(run_folder), *SMALL]
    told = runner.invoke(app, ["bench", "compare", *given])
    assert told.exit_code == 0 and "heavier.onnx beside model.onnx" in told.stdout
    gated = runner.invoke(app, ["bench", "compare", *given, "--max-regression", "30%", "--json"])
    document = json.loads(gated.stdout)["comparison"]
    assert gated.exit_code == 1 and document["passed"] is False
    size = next(change for change in document["changes"] if change["name"] == "size")
    assert size["ratio"] > size["limit"] == 1.3
    assert runner.invoke(app, ["bench", "compare", str(onnx_file)]).exit_code == 2
