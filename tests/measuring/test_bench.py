"""bench(): real artifacts in real processes; what a row must say. Nothing here asserts a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_models import DIM, make_model, save_artifact, with_dim

from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError
from edgecsd.measuring import child as child_module
from edgecsd.measuring.bench import bench
from edgecsd.measuring.rows import read_rows
from edgecsd.measuring.schema import BenchRow, Status
from edgecsd.models.query import save_query_model
from edgecsd.photos.finding import find_images

SHORT: dict[str, Any] = {"threads": [1], "min_runs": 15, "min_seconds": 0.05}


def only(rows: tuple[BenchRow, ...]) -> BenchRow:
    assert len(rows) == 1
    return rows[0]


def test_a_row_says_what_it_is(onnx_file: Path, photos_one_broken: Path, run_folder: Path) -> None:
    row = only(bench([onnx_file], images=find_images(photos_one_broken), **SHORT).rows)
    assert row.status is Status.OK and row.figures is not None and row.parity is not None
    assert row.provenance.startswith("measured on ") and row.label == "host CPU, not a phone"
    assert row.protocol.name == "custom", "fewer runs than the quick protocol must not be called quick"
    assert (row.input, row.input_count) == ("photos", 5), "the broken photo is skipped"
    assert row.decode is not None and row.decode.images == 5
    assert row.figures.total_p50_ms is not None and row.figures.total_p50_ms > row.figures.min_ms
    assert row.reference == f"torch query model of {run_folder}"
    assert row.parity.cosine_min > 0.9999
    assert row.parity.norm_min == pytest.approx(1, abs=1e-3)


def test_raw_series_is_whole_and_p99_absent(onnx_file: Path) -> None:
    row = only(bench([onnx_file], threads=[1], min_runs=20, min_seconds=0).rows)
    (repeat,) = row.repeats
    assert len(repeat.wall_ns) == len(repeat.cpu_ns) == repeat.figures.runs == 20
    assert repeat.figures.p99_ms is None
    assert repeat.figures.p50_ms == pytest.approx(float(np.median(repeat.wall_ns)) / 1e6)


def test_a_busy_machine_is_said(onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = child_module.DEVICE_SCRIPT.read_text().replace(
        "        output = model.embed(image)\n", "        output = model.embed(image)\n        time.sleep(0.01)\n"
    )
    (tmp_path / "device.py").write_text(waiting)
    monkeypatch.setattr(child_module, "DEVICE_SCRIPT", tmp_path / "device.py")
    row = only(bench([onnx_file], **SHORT).rows)
    assert row.status is Status.OK and row.contended


def test_without_images_the_row_says_synthetic(onnx_file: Path) -> None:
    row = only(bench([onnx_file], **SHORT).rows)
    assert row.input == "synthetic"
    assert row.decode is None and row.figures is not None and row.figures.total_p90_ms is None


def test_a_fresh_process_for_every_row_and_repeat(onnx_file: Path) -> None:
    rows = bench([onnx_file], threads=[1, 2], protocol="report", min_runs=10, min_seconds=0).rows
    pids = [repeat.pid for row in rows for repeat in row.repeats]
    assert len(pids) == len(set(pids)) == 6
    assert os.getpid() not in pids
    for row in rows:
        p90 = sorted(repeat.figures.p90_ms for repeat in row.repeats)
        assert row.figures is not None and row.figures.p90_ms == p90[1]
        assert row.p90_spread == pytest.approx((p90[2] - p90[0]) / p90[1])


def test_more_threads_than_cores_is_said(onnx_file: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    rows = bench([onnx_file], threads=[1, cores + 1], min_runs=10, min_seconds=0).rows
    assert [row.oversubscribed for row in rows] == [False, True]


def test_tflite(tflite_file: Path) -> None:
    row = only(bench([tflite_file], **SHORT).rows)
    assert row.status is Status.OK, row.reason
    assert "litert" in row.repeats[0].runtime


def test_coreml_is_not_measurable_and_has_no_latency(coreml_file: Path) -> None:
    row = only(bench([coreml_file], **SHORT).rows)
    assert row.status is Status.NOT_MEASURABLE
    assert row.figures is None and row.repeats == ()
    assert "macOS" in row.reason or "Mac" in row.reason
    assert row.provenance.startswith("not measured")


def test_reference_is_the_file_itself_where_there_is_no_run(onnx_file: Path, tmp_path: Path) -> None:
    alone = tmp_path / "deep" / "alone.onnx"
    alone.parent.mkdir()
    alone.write_bytes(onnx_file.read_bytes())
    row = only(bench([alone], **SHORT).rows)
    assert row.status is Status.OK and row.reference.startswith("same file")


def test_a_run_the_artifact_is_not_from_is_refused(onnx_file: Path, tmp_path: Path) -> None:
    save_query_model(make_model(seed=9), tmp_path)
    with pytest.raises(IncompatibleError, match="was not exported from"):
        bench([onnx_file], run=tmp_path, **SHORT)


def test_wrong_embeddings_make_a_failed_row(run_folder: Path, tmp_path: Path) -> None:
    impostor = save_artifact(run_folder, make_model(seed=9), tmp_path / "impostor.onnx")
    row = only(bench([impostor], run=run_folder, **SHORT).rows)
    assert row.status is Status.FAILED and "wrong embeddings" in row.reason
    assert row.figures is None and row.parity is not None and row.parity.cosine_mean < 0.9


def test_a_dimension_other_than_promised_makes_a_failed_row(onnx_file: Path, tmp_path: Path) -> None:
    other = with_dim(onnx_file, tmp_path / "other.onnx", DIM + 1)
    row = only(bench([other], **SHORT).rows)
    assert row.status is Status.FAILED and f"promises (32, {DIM + 1})" in row.reason


def test_nan_embeddings_make_a_failed_row(run_folder: Path, tmp_path: Path) -> None:
    model = make_model()
    model.projection.bias.data.fill_(float("nan"))
    row = only(bench([save_artifact(run_folder, model, tmp_path / "nan.onnx")], **SHORT).rows)
    assert row.status is Status.FAILED and "NaN" in row.reason


@pytest.mark.parametrize(
    ("program", "timeout", "reason"),
    [
        ("import os; os.abort()", 60, "killed by SIGABRT"),
        ("import sys; sys.exit('out of luck')", 60, "code 1 and no result; its last words: out of luck"),
        ("print('[1, 2]')", 60, "code 0 and no result"),
        ("import time; time.sleep(60)", 1, "no result after 1 s"),
    ],
)
def test_a_crash_or_a_hang_is_a_failed_row(
    program: str, timeout: float, reason: str, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "device.py").write_text(program)
    monkeypatch.setattr(child_module, "DEVICE_SCRIPT", tmp_path / "device.py")
    row = only(bench([onnx_file], timeout_seconds=timeout, **SHORT).rows)
    assert row.status is Status.FAILED and reason in row.reason


def test_a_bench_resumes(onnx_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.jsonl"
    first = bench([onnx_file], out=out, **SHORT).rows
    more = bench([onnx_file], out=out, **{**SHORT, "threads": [1, 2]}).rows
    assert more[0].repeats[0].pid == first[0].repeats[0].pid, "the row that was there is reused"
    assert read_rows(out) == [*more]
    changed = bench([onnx_file], out=out, **{**SHORT, "min_runs": 16}).rows
    assert changed[0].repeats[0].pid != first[0].repeats[0].pid
    assert len(read_rows(out)) == 3
    anew = bench([onnx_file], out=out, overwrite=True, **SHORT).rows
    assert read_rows(out) == [*anew] and anew[0].repeats[0].pid != first[0].repeats[0].pid


def test_a_failed_row_is_measured_again(onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "bench.jsonl"
    (tmp_path / "device.py").write_text("raise SystemExit(1)")
    with monkeypatch.context() as patched:
        patched.setattr(child_module, "DEVICE_SCRIPT", tmp_path / "device.py")
        assert only(bench([onnx_file], out=out, **SHORT).rows).status is Status.FAILED
    assert only(bench([onnx_file], out=out, **SHORT).rows).status is Status.OK
    assert [row.status for row in read_rows(out)] == [Status.OK]


def test_a_result_file_of_another_schema_is_refused(onnx_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.jsonl"
    bench([onnx_file], out=out, **SHORT)
    out.write_text(out.read_text().replace('"schema_version":2', '"schema_version":3'))
    with pytest.raises(DamagedFileError, match="line 1: not a bench row of schema_version 2"):
        bench([onnx_file], out=out, **SHORT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"files": []}, "no artifact"),
        ({"threads": [0]}, "`threads` 0"),
        ({"threads": [1, 1]}, "`threads` 1,1"),
        ({"protocol": "hasty"}, "choose one of: quick, report"),
        ({"min_runs": 0}, "`min_runs` 0"),
        ({"min_seconds": -1.0}, "`min_seconds` -1"),
        ({"timeout_seconds": 0}, "`timeout_seconds` 0"),
    ],
)
def test_unusable_options_are_refused(arguments: dict[str, Any], message: str, onnx_file: Path) -> None:
    with pytest.raises(BadInputError, match=message):
        bench(**{"files": [onnx_file], **SHORT, **arguments})


def test_import_loads_no_model_library() -> None:
    heavy = "{'torch', 'onnx', 'onnxruntime', 'ai_edge_litert', 'litert_torch', 'coremltools', 'timm'}"
    program = f"import sys, edgecsd.measuring; sys.exit(str({heavy} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
