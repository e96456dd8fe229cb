"""Results of other tools: the texts that they print, a protobuf by the published message, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError
from edgecsd.files.whole import sha256_file
from edgecsd.measuring.imports import import_rows
from edgecsd.measuring.rows import read_rows
from edgecsd.measuring.schema import LatencyFigures, Status

NEW_LOG = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Num threads: [4]
INFO: Graph: [/data/local/tmp/model.tflite]
INFO: Loaded model /data/local/tmp/model.tflite
INFO: Initialized session in 5.579ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1 curr=1357602 p5=1357602 median=1357602 p95=1357602

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565 p5=1238753 median=1239807 p95=1247415

INFO: Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3576e+06, Inference (avg): 1.24027e+06
INFO: Memory footprint delta from the start of the tool (MB): init=6.36328 overall=109.832
"""  # noqa: E501
OLD_LOG = """count=50 first=249042 curr=250889 min=247067 max=254474 avg=249684 std=1442
Inference timings in us: Init: 16242, First inference: 360262, Warmup (avg): 304586, Inference (avg): 249684
Peak memory footprint (MB): init=4.92969 overall=138.809
"""
PERF_TEST = """Setting intra_op_num_threads to 4
Session creation time cost: 0.708476 s
First inference time cost: 60 ms
Total inference time cost: 0.446395 s
Total inference requests: 10
Average inference time cost: 44.6395 ms
Total inference run time: 0.446867 s
Number of inferences per second: 22.378
Avg CPU usage: 48 %
Peak working set size: 53567488 bytes
Runs:10
Min Latency: 0.0429274 s
Max Latency: 0.049022 s
P50 Latency: 0.0446158 s
P90 Latency: 0.049022 s
P95 Latency: 0.049022 s
P99 Latency: 0.049022 s
"""
AI_HUB = {
    "execution_summary": {
        "estimated_inference_time": 127,
        "estimated_inference_peak_memory": 14_450_688,
        "warm_load_time": 198_597,
        "all_inference_times": [127, 129, 1087],
    },
    "execution_detail": [{"compute_unit": "NPU"}, {"compute_unit": "NPU"}, {"compute_unit": "CPU"}],
}


def imported(tmp_path: Path, content: str | bytes, **more: object) -> LatencyFigures:
    source = tmp_path / "result"
    source.write_bytes(content.encode() if isinstance(content, str) else content)
    (row,) = import_rows(source, device="Pixel 8", **more)  # type: ignore[arg-type]
    assert row.kind == "imported" and row.provenance == "imported: on Pixel 8" and row.parity is None
    assert row.label.startswith("imported: measured elsewhere") and sha256_file(source) in row.source
    assert row.figures is not None
    return row.figures


def test_the_log_of_a_new_benchmark_model(tmp_path: Path) -> None:
    figures = imported(tmp_path, NEW_LOG)
    assert figures == LatencyFigures(
        runs=50,
        load_ms=5.579,
        first_ms=1357.602,
        mean_ms=1240.27,
        p50_ms=1239.807,
        p95_ms=1247.415,
        min_ms=1238.588,
        max_ms=1252.566,
        growth_kb=int(109.832 * 1024),
    )
    (row,) = import_rows(tmp_path / "result", device="Pixel 8")
    assert (row.threads, row.file, row.tool) == (4, "model.tflite", "benchmark_model")


def test_an_old_one_tells_no_percentiles(tmp_path: Path) -> None:
    figures = imported(tmp_path, OLD_LOG)
    assert figures.mean_ms == 249.684 and figures.p50_ms is None and figures.p90_ms is None
    assert figures.peak_kb is None, "what it calls peak is resident memory above that at its start, so it is no peak"


def test_benchmark_models_protobuf(tmp_path: Path) -> None:
    """Encoded by Google's own library from the published message."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="result.proto", package="p", syntax="proto2")
    kinds = {"f": 2, "i64": 3, "i32": 5, "s": 9, "m": 11}
    messages = {
        "Latency": [
            ("avg", "f", 1),
            ("min", "f", 2),
            ("max", "f", 3),
            ("std", "f", 4),
            ("median", "f", 5),
            ("p5", "f", 6),
            ("p95", "f", 7),
            ("init", "f", 8),
            ("first", "f", 9),
            ("warm", "f", 10),
        ],
        "Memory": [("init", "i64", 1), ("overall", "i64", 2), ("peak", "f", 3)],
        "Misc": [("size", "f", 1), ("runs", "i32", 2), ("warmups", "i32", 3), ("throughput", "f", 4)],
        "Result": [("name", "s", 1), ("latency", "Latency", 2), ("memory", "Memory", 3), ("misc", "Misc", 4)],
    }
    for name, fields in messages.items():
        made = file.message_type.add(name=name)
        for field, kind, number in fields:
            made.field.add(
                name=field,
                number=number,
                label=1,
                type=kinds.get(kind, 11),
                type_name=f".p.{kind}" if kind in messages else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    result = message_factory.GetMessageClass(pool.FindMessageTypeByName("p.Result"))()
    result.name = "lite0"
    for name, value in {"avg": 9.5, "min": 9.25, "max": 12, "std": 0.5, "median": 9.375, "p95": 11, "init": 4}.items():
        setattr(result.latency, name, value)
    result.memory.overall, result.memory.peak, result.misc.runs = 3_000, 50.5, 300
    figures = imported(tmp_path, result.SerializeToString())
    assert figures == LatencyFigures(
        runs=300, load_ms=4, mean_ms=9.5, min_ms=9.25, max_ms=12, p50_ms=9.375, p95_ms=11, peak_kb=51712, growth_kb=3000
    )


def test_onnxruntime_perf_test(tmp_path: Path) -> None:
    figures = imported(tmp_path, PERF_TEST)
    assert (figures.runs, figures.mean_ms, figures.first_ms, figures.peak_kb) == (10, 44.6395, 60, 53567488 // 1024)
    told = (figures.load_ms, figures.p50_ms, figures.p90_ms, figures.p95_ms, figures.min_ms, figures.max_ms)
    assert told == pytest.approx((708.476, 44.6158, 49.022, 49.022, 42.9274, 49.022))
    assert figures.p99_ms is None, "of ten runs there is no 99th percentile, whatever the tool prints"
    newer = PERF_TEST.replace("Average inference time cost:", "Average inference time cost total:")
    assert imported(tmp_path, newer).mean_ms == 44.6395


def test_an_ai_hub_profile(tmp_path: Path) -> None:
    figures = imported(tmp_path, json.dumps(AI_HUB))
    assert (figures.estimate_ms, figures.runs, figures.p50_ms, figures.peak_kb) == (0.127, 3, 0.129, 14112)
    (row,) = import_rows(tmp_path / "result", device="QCS8550")
    assert row.backend == "1 layers on CPU, 2 layers on NPU" and row.repeats[0].wall_ns == (127000, 129000, 1087000)


def coreml_document(embeddings: np.ndarray, expected: np.ndarray, sha256: str) -> str:
    units = {"wall_ns": [2_000_000, 3_000_000, 4_000_000], "load_ms": 5.0, "first_ms": 6.0}
    document = {"kind": "edgecsd coreml measurement", "schema_version": 1, "tool": "coremltools 9.0", "peak_kb": 90000}
    document |= {"device": "MacBook Air M3", "system": "macOS 15.1", "model": "model.mlpackage", "sha256": sha256}
    measured = {"ALL": {**units, "embeddings": embeddings.tolist()}}
    return json.dumps({**document, "expected": expected.tolist(), "compute_units": measured})


def test_our_own_program_brings_parity(tmp_path: Path, coreml_file: Path) -> None:
    expected = np.eye(4, 16, dtype=np.float32)
    source = tmp_path / "mac.json"
    source.write_text(coreml_document(expected, expected, sha256_file(coreml_file)))
    (row,) = import_rows(source, artifact=coreml_file)
    assert row.parity is not None and row.parity.cosine_min == 1 and row.figures is not None
    assert (row.figures.p50_ms, row.backend, row.target) == (3.0, "ALL", "coreml")
    assert row.provenance == "imported: on MacBook Air M3"
    source.write_text(coreml_document(np.roll(expected, 1, axis=1), expected, ""))
    (wrong,) = import_rows(source)
    assert wrong.status is Status.FAILED and "wrong embeddings" in wrong.reason and wrong.figures is None
    source.write_text(coreml_document(expected, expected, "0" * 64))
    with pytest.raises(IncompatibleError, match="give the artifact that was measured"):
        import_rows(source, artifact=coreml_file)


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"\x00\xff" * 50, b"{}", b"[1]", b"\x12\x00"):
        (tmp_path / "result").write_bytes(content)
        with pytest.raises(BadInputError, match=r"not known; known are the log of benchmark_model, .*onnxruntime_perf"):
            import_rows(tmp_path / "result", device="x")


def test_a_broken_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "r").write_text(json.dumps({"kind": "edgecsd coreml measurement", "schema_version": 1}))
    with pytest.raises(DamagedFileError, match="is not whole"):
        import_rows(tmp_path / "r")
    (tmp_path / "r").write_text(json.dumps({"kind": "edgecsd coreml measurement", "schema_version": 2}))
    with pytest.raises(DamagedFileError, match="schema_version 2 is unknown"):
        import_rows(tmp_path / "r")
    (tmp_path / "r").write_text(json.dumps({"execution_summary": {"estimated_inference_time": "soon"}}))
    with pytest.raises(DamagedFileError, match=r"AI Hub profile .* is not whole"):
        import_rows(tmp_path / "r", device="x")


def test_the_command(tmp_path: Path, tflite_file: Path) -> None:
    (tmp_path / "log.txt").write_text(NEW_LOG)
    out, runner = tmp_path / "imported.jsonl", CliRunner()
    command = ["bench", "import", str(tmp_path / "log.txt"), "--out", str(out), "--artifact", str(tflite_file)]
    refused = runner.invoke(app, command)
    assert isinstance(refused.exception, BadInputError) and "`on`" in str(refused.exception)
    told = runner.invoke(app, [*command, "--on", "Pixel 8"])
    assert told.exit_code == 0 and "imported: on Pixel 8" in told.stdout and f"wrote {out}" in told.stdout
    again = runner.invoke(app, [*command, "--on", "Pixel 8", "--json"])
    assert json.loads(again.stdout)["rows"][0]["sha256"] == sha256_file(tflite_file)
    assert len(read_rows(out)) == 2
