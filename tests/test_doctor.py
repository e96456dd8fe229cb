"""doctor: what it finds here, and what it says when a package is missing, too old or broken."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from edgecsd import doctor as doctor_module
from edgecsd.doctor import Ability, DoctorReport, doctor, probe_import, satisfies
from edgecsd.errors import MissingBackendError


def ability(report: DoctorReport, name: str) -> Ability:
    return next(each for each in report.abilities if each.name == name)


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name in names:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)


def test_report_of_this_machine() -> None:
    report = doctor()
    numpy = next(package for package in report.packages if package.name == "numpy")
    assert numpy.version == metadata.version("numpy") and numpy.problem == "" and numpy.extras == ()
    torch = next(package for package in report.packages if package.name == "torch")
    assert set(torch.extras) == {"train", "onnx", "tflite", "coreml", "coreai", "gallery", "all"}
    assert report.machine.cores >= 1 and report.machine.free_disk_gb > 0
    assert report.probes == ()
    assert DoctorReport.model_validate_json(report.model_dump_json()) == report


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "onnxruntime")
    found = ability(doctor(), "export to onnx")
    assert not found.works
    assert found.why == "onnxruntime: not installed"
    assert found.mend == "pip install 'edgecsd[onnx]'"


def test_the_old_tflite_runtime_is_enough_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "ai-edge-litert", "tflite-runtime")
    report = doctor()
    assert report.tflite_runtime is None and not ability(report, "check and bench tflite").works
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.14.0" if name == "tflite-runtime" else real(name))
    report = doctor()
    assert report.tflite_runtime == "tflite-runtime 2.14.0"
    assert ability(report, "check and bench tflite").works
    assert not ability(report, "export to tflite").works


def test_an_old_version_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "8.3" if name == "coremltools" else real(name))
    found = ability(doctor(), "export to coreml")
    assert not found.works and "version 8.3 is installed, >=9.0 is needed" in found.why


@pytest.mark.skipif(platform.system() == "Darwin", reason="Core ML runs here")
def test_core_ml_cannot_be_timed_off_macos_and_nothing_mends_it() -> None:
    found = ability(doctor(), "bench coreml")
    assert not found.works and "macOS" in found.why and found.mend == ""


@pytest.mark.parametrize(
    ("version", "needs", "expected"),
    [
        ("2.14.1+cpu", ">=2.8,<2.15", True),
        ("2.15", "<2.15,>=2.8", False),
        ("2.7.9", ">=2.8", False),
        ("1.0", "==1.0.0", True),
        ("3", "", True),
    ],
)
def test_satisfies(version: str, needs: str, expected: bool) -> None:
    assert satisfies(version, needs) is expected


def test_every_requirement_can_be_read() -> None:
    for package in doctor().packages:
        assert satisfies("1", package.needs) in (True, False)


def test_every_extra_that_is_needed_exists() -> None:
    known = set(metadata.metadata("edgecsd").get_all("Provides-Extra") or [])
    assert {need.extra for need in doctor_module.NEEDS} <= known


def test_weights_are_those_that_the_library_looks_for() -> None:
    weights = pytest.importorskip("edgecsd.models.weights")
    assert {name: package for name, (_, package, _) in weights.PACKAGED.items()} == doctor_module.WEIGHTS
    for found in doctor().weights:
        expected = weights.packaged_weights(found.model)
        assert found.file == (None if expected is None else str(expected))


def test_probe_tells_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_library.py").write_text("raise ImportError('libexample.so: undefined symbol')")
    (tmp_path / "crashing_library.py").write_text("import os; os.abort()")
    (tmp_path / "hanging_library.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert probe_import("json") == ""
    assert probe_import("broken_library") == "import broken_library fails: ImportError: libexample.so: undefined symbol"
    assert "killed by signal 6" in probe_import("crashing_library")
    assert "had not ended after 1 s" in probe_import("hanging_library", seconds=1)


def test_a_package_that_does_not_import_takes_its_abilities_along(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(module: str) -> str:
        return "import faiss fails: ImportError: no AVX2" if module == "faiss" else ""

    monkeypatch.setattr(doctor_module, "probe_import", probe)
    report = doctor(probe=True)
    assert [p.package for p in report.probes if p.problem] == ["faiss-cpu"]
    assert ability(report, "index").why == "faiss-cpu: import faiss fails: ImportError: no AVX2"


def test_a_checkout_newer_than_what_was_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable installation keeps the metadata of the day that it was made."""
    old = [line for line in metadata.requires("edgecsd") or [] if "coreai" not in line]
    monkeypatch.setattr(metadata, "requires", lambda name: old)
    lacking = {a.name: a for a in doctor().lacking}
    for name in ("export to coreai (experimental)", "check coreai (experimental)"):
        assert "installed before it had all of the extra 'coreai'" in lacking[name].why
        assert lacking[name].mend == "pip install 'edgecsd[coreai]'"


def test_edgecsd_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    with pytest.raises(MissingBackendError, match="pip install -e"):
        doctor()


def test_doctor_imports_no_optional_library() -> None:
    heavy = "{'torch', 'onnx', 'onnxruntime', 'ai_edge_litert', 'faiss', 'coremltools', 'timm', 'matplotlib'}"
    program = f"import sys, edgecsd.doctor as d; d.doctor(); sys.exit(str({heavy} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
