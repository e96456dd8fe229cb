"""Heavy libraries are loaded where they are used, and nowhere else. Each check runs in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = [
    "torch",
    "torchvision",
    "timm",
    "lightning_fabric",
    "tensorboard",
    "faiss",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "coremltools",
    "coreai",
    "litert_torch",
    "ai_edge_litert",
    "ai_edge_quantizer",
    "matplotlib",
    "pyarrow",
    "scipy",
    "pandas",
    "sklearn",
    "jinja2",
]
LIGHT_MODULES = {  # module -> the heavy libraries that it may load
    "edgecsd": (),
    "edgecsd.errors": (),
    "edgecsd.files.whole": (),
    "edgecsd.photos.contract": (),
    "edgecsd.progress": (),
    "edgecsd.features.space": (),
    "edgecsd.photos.images": (),
    "edgecsd.training.losses": (),
    "edgecsd.training.choices": (),
    "edgecsd.training.settings": (),
    "edgecsd.photos.views": (),
    "edgecsd.models.catalogue": (),
    "edgecsd.models.gallery.model": (),
    "edgecsd.models.frozen_forward": (),
    "edgecsd.gate.verdict": (),
    "edgecsd.serve.handshake": (),
    "edgecsd.targets.inspecting": (),
    "edgecsd.metrics.retrieval": (),
    "edgecsd.quantisation.calibration": (),
    "edgecsd.targets": (),
    "edgecsd.targets.artifact": (),
    "edgecsd.measuring": (),
    "edgecsd.measuring.on_device.bench_device": (),
    "edgecsd.doctor": (),
    "edgecsd.cli": (),
    "edgecsd.features.store": ("pyarrow",),
    "edgecsd.gallery.extract": ("pyarrow",),
}


def loaded_by(program: str) -> set[str]:
    """Which heavy libraries a fresh interpreter has loaded when the program ends."""
    tail = f"\nimport json, sys\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", program + tail], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def exists(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_stay_light(module: str) -> None:
    assert exists(module)
    assert loaded_by(f"import {module}") <= set(LIGHT_MODULES[module])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["extract", "--help"],
        ["distill", "--help"],
        ["export", "--help"],
        ["report", "--help"],
        ["inspect", "--help"],
        ["bench", "--help"],
        ["bench", "measure", "--help"],
        ["gate", "--help"],
        ["matrix", "--help"],
    ],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    program = f"""
import sys
sys.argv = ["edgecsd", *{arguments}]
from edgecsd.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    assert loaded_by(program) == set()


def test_the_list_of_commands_loads_none_of_them() -> None:
    program = """
import sys
from edgecsd import cli
try:
    cli.main(["--help"])
except SystemExit:
    pass
modules = {f"edgecsd.cli.{entry.module}" for entry in cli.COMMANDS.values()}
assert not modules & set(sys.modules), modules & set(sys.modules)
assert not {"numpy", "pydantic"} & set(sys.modules)
"""
    assert loaded_by(program) == set()


PUBLIC = [
    "ConsoleReporter",
    "DistillConfig",
    "adapt",
    "bench",
    "build_index",
    "check",
    "distill",
    "evaluate",
    "export",
    "extract",
    "find_images",
    "import_features",
    "open_index",
]


def test_the_public_list() -> None:
    import edgecsd

    assert sorted(edgecsd.__all__) == PUBLIC == sorted(set(dir(edgecsd)) - {"__version__"})
    for name in PUBLIC:
        assert getattr(edgecsd, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edgecsd.nothing


def test_a_step_is_loaded_when_it_is_asked_for() -> None:
    assert loaded_by("import edgecsd; edgecsd.find_images; edgecsd.DistillConfig") == set()
    assert "torch" not in loaded_by("import edgecsd; edgecsd.extract; edgecsd.import_features")


def test_examples_use_the_public_list_alone() -> None:
    for file in (ROOT / "examples").glob("*.py"):
        assert "from edgecsd" not in file.read_text(), file.name


def test_importing_the_package_changes_nothing() -> None:
    program = """
import logging, os, sys, threading, warnings

def state():
    lists = [list(sys.path), list(warnings.filters), list(logging.root.handlers)]
    return lists, dict(os.environ), threading.active_count()

before = state()
import edgecsd
assert state() == before
"""
    loaded_by(program)
