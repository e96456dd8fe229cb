"""benchmarks/files/runtimes.py without its downloads: what a row says, and files run by another Python here."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_models import make_model, save_artifact

from edgecsd.errors import MissingBackendError
from edgecsd.measuring.bench import Inputs
from edgecsd.measuring.parity import References
from edgecsd.measuring.remote.python import RemotePython, remote_folder
from edgecsd.progress import SILENT
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.metadata import Target

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks" / "files"


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def unit(seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((4, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def turned(vectors: np.ndarray, cosine: float) -> np.ndarray:
    """Unit vectors at this cosine to the first of `vectors`, the others as they are."""
    first, other = vectors[0].astype(np.float64), vectors[1].astype(np.float64)
    other = other - (other @ first) * first
    found = vectors.copy()
    found[0] = cosine * first + np.sqrt(1 - cosine**2) * other / np.linalg.norm(other)
    return found


def test_the_figures_of_a_row() -> None:
    from runtime_report import Run, row_of

    expected = unit(0)
    row = row_of(Run("here", "a runtime 1", turned(expected, 0.9998)), Precision.FP16, expected, expected)
    assert row["cosine_min"] == pytest.approx(0.9998, abs=1e-6) and row["not_finite"] == 0
    assert row["cosine_mean"] == pytest.approx(1 - 0.0002 / 4, abs=1e-6)
    assert row["max_difference"] == pytest.approx(np.abs(turned(expected, 0.9998) - expected).max(), rel=1e-6)
    assert row["to_host_cosine_min"] == row["cosine_min"]


@pytest.mark.parametrize(
    ("precision", "cosine_to_torch", "cosine_to_host", "said"),
    [
        (Precision.FP32, 1.0, 1.0, ""),
        (Precision.FP32, 0.999, 1.0, "wrong embeddings: mean cosine 0.99975 to the torch query model"),
        (Precision.FP32, 1.0, 0.9998, "lowest cosine to the host's runtime 0.999800, at least 0.9999 is expected"),
        (Precision.W8A8, 0.95, 0.99, ""),
        (Precision.W8A8, 0.95, 0.97, "lowest cosine to the host's runtime 0.970000, at least 0.98 is expected of w8a8"),
        (Precision.W8A8, 0.5, 1.0, "wrong embeddings"),
    ],
)
def test_what_a_row_fails_for(precision: Precision, cosine_to_torch: float, cosine_to_host: float, said: str) -> None:
    from runtime_report import Run, row_of

    found = unit(0)
    torch_vectors, host_vectors = turned(found, cosine_to_torch), turned(found, cosine_to_host)
    if said == "wrong embeddings":
        torch_vectors = np.stack([turned(found[[i, (i + 1) % 4]], cosine_to_torch)[0] for i in range(4)])
    row = row_of(Run("here", "a runtime 1", found), precision, torch_vectors, host_vectors)
    assert row["problem"].startswith(said) and bool(row["problem"]) == bool(said)


def test_rows_without_numbers_fail() -> None:
    from runtime_report import Run, markdown, row_of

    expected = unit(0)
    broken = expected.copy()
    broken[2, 3] = np.nan
    some = row_of(Run("here", "a runtime 1", broken), Precision.FP32, expected, expected)
    assert some["not_finite"] == 1 and some["cosine_min"] == pytest.approx(1)
    assert some["problem"] == "1 of 4 embeddings hold NaN or infinity"
    every = row_of(Run("here", "a runtime 1", np.full_like(expected, np.nan)), Precision.FP32, expected, expected)
    assert every["not_finite"] == 4 and "cosine_min" not in every and every["problem"].startswith("4 of 4")
    crashed = row_of(Run("there", failure="killed by SIGSEGV"), Precision.FP32, expected, expected)
    assert crashed["problem"] == "killed by SIGSEGV"
    head = {"backbone": "net", "target": "tflite", "precision": "fp32"}
    right = row_of(Run("here", "a runtime 1", expected), Precision.FP32, expected, None)
    rows = [head | {"place": "host"} | right, head | {"place": "old"} | some, head | {"place": "arm"} | crashed]
    report = markdown(rows, 4)
    assert "1 of 3 rows have parity" in report and "| host | here | a runtime 1 |" in report
    assert "| net | tflite | fp32 | arm |  |  |  |  |  |  | **failed**: killed by SIGSEGV |" in report
    assert report.count("**failed**") == 2


def test_rows_that_were_not_asked_for_stay() -> None:
    from runtime_report import NAMES, joined

    def row(*names: str, problem: str = "", file: str = "one") -> dict[str, str]:
        return {**dict(zip(NAMES, names, strict=True)), "problem": problem, "file": file}

    earlier = [row("a", "tflite", "fp32", "host"), row("a", "tflite", "fp32", "old", problem="before")]
    earlier += [row("a", "tflite", "w8a8", "host"), row("b", "tflite", "fp32", "host")]
    new = [row("a", "tflite", "fp32", "host"), row("a", "tflite", "fp32", "old"), row("a", "tflite", "fp32", "arm")]
    found = [" ".join(each[name] for name in NAMES) for each in joined(earlier, new)]
    assert found == [
        "a tflite fp32 host",
        "a tflite fp32 old",
        "a tflite fp32 arm",
        "a tflite w8a8 host",
        "b tflite fp32 host",
    ]
    assert all(each["problem"] == "" for each in joined(earlier, new))
    new = [row("a", "tflite", "fp32", "host", file="another")]
    found = [" ".join(each[name] for name in NAMES) for each in joined(earlier, new)]
    assert sorted(found) == ["a tflite fp32 host", "a tflite w8a8 host", "b tflite fp32 host"], "not of two files"


def test_files_in_another_python(run_folder: Path, onnx_file: Path, photos: Path, tmp_path: Path) -> None:
    """The same interpreter in another process; its first file is measured once, and again when it is another one."""
    from runtime_places import Place, Subprocess
    from runtime_report import row_of
    from runtimes import _job, kept_run
    from seeded.workshop import Workshop

    from edgecsd.photos.finding import find_images

    workshop = Workshop.__new__(Workshop)  # its folder alone: no demo, no gallery
    workshop.folder = tmp_path
    place = Place("another", frozenset({Target.ONNX}), lambda: shlex.quote(sys.executable))
    transport, references = Subprocess(place), References(run_folder)
    job = _job(onnx_file, Inputs(find_images(photos), tmp_path), references)
    with remote_folder(transport, keep=False, reporter=SILENT) as folder:
        job = replace(job, device=RemotePython(transport, folder))
        run = kept_run(workshop, job, place.name)
        kept = tmp_path / "runtimes" / "model onnx another.npy"
        first = kept.stat().st_mtime_ns
        assert np.array_equal(kept_run(workshop, job, place.name).vectors, run.vectors)
        assert kept.stat().st_mtime_ns == first
        impostor = save_artifact(run_folder, make_model(seed=9), tmp_path / "model.onnx")
        other = kept_run(workshop, replace(job, file=impostor), place.name)
        assert kept.stat().st_mtime_ns != first
        assert Path(folder).is_dir()
    assert not Path(folder).exists()
    expected = references.embeddings(job.reference, job.images)
    assert run.on.startswith("measured on ") and run.runtime.startswith("onnxruntime ")
    assert row_of(run, Precision.FP32, expected, expected)["problem"] == ""
    assert "wrong embeddings" in row_of(other, Precision.FP32, expected, expected)["problem"]


def test_the_processor_that_is_told_of() -> None:
    from runtime_places import CPU, CPU_PART, cpuinfo

    from edgecsd.measuring.on_device.describe_device import ARM_PARTS

    assert ARM_PARTS[CPU_PART].lower() == CPU
    told = cpuinfo(3)
    assert told.count(f"CPU part\t: {CPU_PART}") == 3 and "processor\t: 2\n" in told and " asimd " in told


def test_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime_places import places

    monkeypatch.setenv("PATH", str(tmp_path))
    (arm64,) = (place for place in places(tmp_path) if place.name == "arm64")
    with pytest.raises(MissingBackendError, match="apt-get install qemu-user-static"):
        arm64.start()
    assert list(tmp_path.iterdir()) == [], "nothing is begun"
