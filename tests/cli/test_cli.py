"""The command line in real processes: exit codes, one JSON document on stdout, progress on stderr, no traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from typer.testing import CliRunner

from edgecsd import __version__
from edgecsd.cli import app

SETTINGS = """
pretrained = false
size = 48
head_steps = 2
epochs = 0
held_out = 0.2
overlap_k = 5
"""
SLOW_MODEL = """
import time
import numpy as np
from edgecsd.photos.contract import Preprocess

class Slow:
    identity = "slow-v1"
    preprocess = Preprocess(size=32)

    def embed(self, pixels):
        time.sleep(0.2)
        return pixels.reshape(len(pixels), -1)[:, ::97].astype(np.float32) + 1

def make():
    return Slow()
"""


def environment(**changes: str) -> dict[str, str]:
    """One thread each: spinning threads of many processes on two cores make seconds into minutes."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **changes}


def edgecsd(*arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
    done = warm.edgecsd(arguments, env=environment(**changes))
    assert "Traceback" not in done.stderr, done.stderr
    return done


def refused(code: int, *arguments: object, **changes: str) -> str:
    """The error text of a command that must end with `code`."""
    done = edgecsd(*arguments, **changes)
    assert done.returncode == code, done.stderr
    assert done.stdout == "" or code == 1
    last = done.stderr.strip().splitlines()[-1]
    assert code == 1 or last.startswith("edgecsd: error: "), done.stderr
    return last


class Pipeline:
    """Everything that the commands make, in one folder; the JSON of each."""

    def __init__(self, folder: Path, photos: Path) -> None:
        self.folder, self.photos = folder, photos
        self.store, self.index, self.run = folder / "g.store", folder / "g.index", folder / "run"
        self.artifact = self.run / "exports" / "test_efficientnet-fp32.onnx"
        self.json: dict[str, Any] = {}
        self.stderr: dict[str, str] = {}

    def do(self, name: str, *arguments: object) -> None:
        done = edgecsd(name, *arguments, "--json")
        assert done.returncode == 0, (name, done.stderr)
        self.json[name], self.stderr[name] = json.loads(done.stdout), done.stderr  # loads: one document, nothing else


@pytest.fixture(scope="module")
def pipeline(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    made = Pipeline(tmp_path_factory.mktemp("cli"), photos)
    settings = made.folder / "settings.toml"
    settings.write_text(SETTINGS)
    made.do("extract", photos, "--gallery-model", "doubles:make_function_double", "--views", 1, "--out", made.store)
    made.do("index", made.store, "--out", made.index)
    made.do(
        "distill",
        photos,
        "--gallery",
        made.store,
        "--query-model",
        "test_efficientnet",
        "--config",
        settings,
        "--k",
        20,
        "--held-out-by",
        "photos",
        "--out",
        made.run,
    )
    made.do("export", made.run, "--target", "onnx")
    made.do(
        "check",
        made.artifact,
        "--index",
        made.index,
        "--images",
        photos,
        "--reference",
        made.store,
        "--k",
        5,
        "--min-overlap",
        0,
    )
    made.do(
        "evaluate",
        "--gallery",
        made.store,
        "--queries",
        made.store,
        "--images",
        photos,
        "--run",
        made.run,
        "--query-scales",
        "1.25,1",
        "--artifact",
        made.artifact,
        "--gallery-images",
        photos,
    )
    made.do(
        "bench", made.artifact, "--threads", 1, "--min-runs", 3, "--min-seconds", 0, "--out", made.folder / "b.jsonl"
    )
    np.save(made.folder / "v.npy", np.eye(16, dtype=np.float32)[:12])
    (made.folder / "ids.txt").write_text("\n".join(f"item {n}" for n in range(12)))
    vectors = (made.folder / "v.npy", "--ids", made.folder / "ids.txt", "--space", "acme-v7")
    made.do("import-features", *vectors, "--out", made.folder / "acme.store")
    made.do("doctor")
    return made


def test_every_command_gives_one_json_document(pipeline: Pipeline) -> None:
    fingerprint = pipeline.json["extract"]["fingerprint"]
    assert pipeline.json["extract"] == {
        "store": str(pipeline.store),
        "count": 24,
        "dim": 16,
        "fingerprint": fingerprint,
        "views": 1,
        "unreadable": 0,
    }
    assert pipeline.json["index"]["fingerprint"] == fingerprint and pipeline.json["index"]["count"] == 24
    assert [stage["name"] for stage in pipeline.json["distill"]["stages"]] == ["closed-form start", "head"]
    exported = pipeline.json["export"]
    assert exported["artifact"] == str(pipeline.artifact) and exported["metadata"]["fingerprint"] == fingerprint
    checked = pipeline.json["check"]
    assert checked["passed"] is True and checked["sha256"] == exported["sha256"]
    assert {"cosine to the torch model, mean", "cosine to the torch model, lowest"} <= {
        g["name"] for g in checked["gates"]
    }
    names = [row["name"] for row in pipeline.json["evaluate"]["rows"]]
    assert names == [
        "gallery model, symmetric",
        "query model, asymmetric",
        "query model, symmetric",
        "query model at 1+1.25, asymmetric",
        "test_efficientnet-fp32.onnx, asymmetric",
    ]
    assert pipeline.json["evaluate"]["rows"][0]["mean_average_precision"] == 1.0
    (row,) = pipeline.json["bench"]["rows"]
    assert row["status"] == "ok" and row["threads"] == 1 and row["label"] == "host CPU, not a phone"
    assert pipeline.json["import-features"]["count"] == 12 and pipeline.json["import-features"]["dim"] == 16
    assert {"machine", "packages", "abilities"} <= set(pipeline.json["doctor"])


@pytest.mark.parametrize(
    ("line", "offered"),
    [("edgecsd ex", "extract export"), ("edgecsd bench co", "compare"), ("edgecsd index g --lik", "--like")],
)
def test_a_shell_completes_commands_that_are_loaded_when_called(line: str, offered: str) -> None:
    asked = {"_EDGECSD_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    assert CliRunner().invoke(app, [], prog_name="edgecsd", env=asked).output.split() == offered.split()


def test_progress_goes_to_stderr(pipeline: Pipeline) -> None:
    assert "embedding: 24 of 24" in pipeline.stderr["extract"]
    assert "closed-form start: held-out overlap@5" in pipeline.stderr["distill"]
    assert "training the projection: 2 of 2" in pipeline.stderr["distill"]
    assert "test_efficientnet-fp32.onnx, 1 thread: p50" in pipeline.stderr["bench"]


def test_text_says_what_was_written_and_what_comes_next(pipeline: Pipeline) -> None:
    out = pipeline.folder / "again.index"
    done = edgecsd("index", pipeline.store, "--out", out)
    assert done.returncode == 0 and done.stdout.splitlines() == [
        f"24 vectors, type flat (exact); embedding space {pipeline.json['extract']['fingerprint']}",
        f"wrote {out}",
        f"next: edgecsd check FILE --index {out} --images PHOTOS",
    ]
    measured = edgecsd(
        "bench",
        pipeline.artifact,
        "--threads",
        1,
        "--min-runs",
        3,
        "--min-seconds",
        0,
        "--out",
        pipeline.folder / "b.jsonl",
    )
    lines = measured.stdout.splitlines()
    assert lines[0].split()[:5] == ["file", "threads", "status", "p90", "ms"] and "measured before" in measured.stderr
    assert re.match(r"test_efficientnet-fp32\.onnx +1 +ok +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ +1\.00000$", lines[2])
    assert "host CPU, not a phone" in measured.stdout
    report = edgecsd("doctor").stdout
    assert "works here" in report and "onnxruntime" in report and report.splitlines()[-1].startswith("next: ")
    tried = edgecsd("doctor", "--gallery-model", "doubles:make_function_double").stdout
    assert (
        tried.startswith("acme-embedder-v7, by doubles:make_function_double\n16 values a photo")
        and "problem" not in tried
    )
    assert tried.splitlines()[-1].startswith(
        "next: edgecsd extract PHOTOS --gallery-model doubles:make_function_double"
    )


def test_a_failed_gate_is_exit_code_1(pipeline: Pipeline) -> None:
    arguments = (
        "check",
        pipeline.artifact,
        "--index",
        pipeline.index,
        "--images",
        pipeline.photos,
        "--reference",
        pipeline.store,
        "--limit",
        6,
        "--min-cosine",
        1,
        "--min-overlap",
        1,
    )
    done = edgecsd(*arguments)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[0].startswith("FAIL: must not ship against this index")
    assert any(
        re.match(r"overlap@10 with the gallery model's results .*>= 1 +FAIL$", line)
        for line in done.stdout.splitlines()
    )
    as_json = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert as_json.exit_code == 1 and json.loads(as_json.stdout)["passed"] is False


def test_bad_input_is_exit_code_2(pipeline: Pipeline, tmp_path: Path) -> None:
    out, model = ("--out", tmp_path / "o"), ("--gallery-model", "doubles:make_function_double")
    assert "no such folder" in refused(2, "extract", tmp_path / "none", *model, *out)
    assert "Missing option '--gallery-model'" in refused(2, "extract", tmp_path, "--out", tmp_path / "o")
    assert "No such command 'extrakt'" in refused(2, "extrakt")
    assert "No such option: --nproble" in refused(2, "index", pipeline.store, "--out", tmp_path / "o", "--nproble", 3)
    alien = refused(2, "index", pipeline.store, *out, "--ef-search", 3, "--json")
    assert "--ef-search: an index of type flat" in alien
    assert not (tmp_path / "o").exists()


def test_unknown_names_are_answered_with_known_ones(pipeline: Pipeline, tmp_path: Path) -> None:
    distil = ("distill", pipeline.photos, "--gallery", pipeline.store, "--out", tmp_path / "run")
    model = refused(2, *distil, "--query-model", "mobilnetv2_100")
    assert "timm has no model 'mobilnetv2_100'; it has for example: " in model
    target = refused(2, "export", pipeline.run, "--target", "trt")
    assert "target 'trt' is not known; choose one of: onnx, tflite" in target
    unknown = refused(2, "export", pipeline.run, "--target", "onnx", "--precision", "int8")
    assert "int8" in unknown and all(name in unknown for name in ("fp32", "fp16", "w8a32", "w8a8"))


def test_another_space_is_exit_code_3(pipeline: Pipeline, tmp_path: Path) -> None:
    edgecsd("index", pipeline.folder / "acme.store", "--out", tmp_path / "acme.index")
    text = refused(
        3,
        "check",
        pipeline.artifact,
        "--index",
        tmp_path / "acme.index",
        "--images",
        pipeline.photos,
        "--reference",
        pipeline.store,
    )
    assert "different embedding spaces" in text and "acme-embedder-v7 against acme-v7" in text


def test_a_missing_back_end_is_exit_code_4(tmp_path: Path) -> None:
    """npm that cannot reach its registry."""
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error ENOTFOUND' >&2\nexit 1\n")
    npm.chmod(0o755)
    changes = {"PATH": f"{tmp_path}:/usr/bin:/bin", "EDGECSD_CACHE": str(tmp_path / "cache")}
    assert "npm error ENOTFOUND; try again with a network" in refused(4, "demo", "--out", tmp_path / "o", **changes)


def test_an_interruption_is_exit_code_130_and_the_same_command_goes_on(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "slow_model.py").write_text(SLOW_MODEL)
    arguments = ["extract", str(photos), "--gallery-model", "slow_model:make", "--batch-size", "1"]
    command = [sys.executable, "-m", "edgecsd", *arguments, "--out", str(tmp_path / "s.store")]
    variables = environment(PYTHONPATH=str(tmp_path))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)
    assert process.stderr is not None
    told = process.stderr.readline()
    assert told.startswith("embedding: 3 of 24")
    process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=120)
    assert process.returncode == 130 and out == ""
    advice = "interrupted; finished parts are kept: the same command goes on from there"
    assert rest.splitlines()[-1] == f"edgecsd: error: {advice}"
    assert "Traceback" not in rest and not (tmp_path / "s.store").exists()
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 0 and f"wrote {tmp_path / 's.store'}" in done.stdout, done.stderr


def test_module_and_program_are_the_same() -> None:
    program = Path(sys.executable).with_name("edgecsd")
    command = [sys.executable, "-m", "edgecsd", "--version"]
    done = [subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)]
    if program.exists():
        done.append(subprocess.run([program, "--version"], capture_output=True, text=True, check=False))
    assert [(each.returncode, each.stdout) for each in done] == [(0, f"{__version__}\n")] * len(done)
