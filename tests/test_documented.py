"""What the documentation tells people to run, run: every README command, and the examples."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import warm

from edgecsd.features.exact import unit
from edgecsd.features.store import FeatureStore, Items, write_store

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
SECONDS = 900


# Runs commands of edgecsd one after the other in one process, each as the program does: imports are most of their time.
ONE_PROCESS = """
import shlex, sys
from edgecsd.cli import main
for line in sys.stdin.read().splitlines():
    sys.argv = shlex.split(line)
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"exit code {end.code}: {line}")
"""


def run(command: list[str], folder: Path, typed: str = "") -> str:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=folder, env=environment, input=typed, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def write_catalogue(folder: Path) -> None:
    """catalogue.store, 700 vectors of the space of gallery.store: those of its photos and others between them."""
    store = FeatureStore.open(folder / "gallery.store")
    mixed = np.random.default_rng(1).dirichlet(np.ones(store.count), 700) @ store.vectors()
    ids = [f"item-{number}" for number in range(700)]
    write_store(folder / "catalogue.store", store.space, Items(ids, [""] * 700), unit(mixed.astype(np.float32)))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A folder with what the README starts from, in which every command of it has run, in order."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(photos, folder / "photos")
    vectors = np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32)
    np.save(folder / "vectors.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    (folder / "ids.txt").write_text("".join(f"item-{n}\n" for n in range(20)))
    few = {"--dim 512": "--dim 8", "adapt run": "adapt run --error 0.002"}  # 24 photos tell neither
    few |= {"--views 3": "--views 1", "--threads 1": "--threads 1 --min-seconds 1"}  # shorter, else the same
    commands = readme_commands()
    for told, instead in few.items():
        commands = [command.replace(told, instead) for command in commands]
    run(commands[0].split(), folder)
    write_catalogue(folder)
    assert {command.split()[0] for command in commands} == {"edgecsd"}
    run([sys.executable, "-c", ONE_PROCESS], folder, "\n".join(commands[1:]))
    return folder


def test_the_readme_shows_every_command_of_the_main_job() -> None:
    shown = {command.split()[1] for command in readme_commands()}
    assert shown >= {"extract", "import-features", "index", "distill", "evaluate", "export", "check", "bench", "doctor"}


@pytest.mark.slow
def test_every_readme_command_runs(workplace: Path) -> None:
    assert (workplace / "run" / "exports" / "tf_efficientnet_lite0-w8a8.tflite").is_file()
    assert (workplace / "imported.store" / "manifest.json").is_file()
    assert (workplace / "adapted" / "query_model.json").is_file()


@pytest.mark.slow
def test_the_commands_for_several_processes(workplace: Path) -> None:
    commands = re.findall(r"^    (torchrun .*)$", (ROOT / "docs" / "scale.md").read_text(), flags=re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        run([*command.split(), *(["--epochs", "0"] if "distill" in command else [])], workplace)
    assert (workplace / "shared-run" / "query_model.safetensors").is_file()


def example(name: str, arguments: list[str], folder: Path) -> list[str]:
    done = warm.program(ROOT / "examples" / f"{name}.py", arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_example_vectors_from_elsewhere(workplace: Path) -> None:
    printed = example("vectors_from_elsewhere", ["vectors.npy", "ids.txt", "out"], workplace)
    assert printed[0].endswith("item-0")


@pytest.mark.slow
def test_example_from_photos_to_phone(workplace: Path) -> None:
    """From the store that the commands of README made: the same photos are not extracted twice."""
    shutil.copytree(workplace / "gallery.store", workplace / "example" / "gallery.store")
    printed = example("from_photos_to_phone", ["photos", "example"], workplace)
    assert re.fullmatch(r"(may|must not) ship example/run/exports/tf_efficientnet_lite0-w8a8\.tflite", printed[-1])
    assert all(line.startswith(("pass ", "FAIL ")) for line in printed[:-1]) and len(printed) > 3


def test_the_gallery_model_of_ones_own_in_the_docs_is_sound(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "gallery-models.md").read_text()
    (program,) = re.findall(r"```python\n# mymodule\.py\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "mymodule.py").write_text(program)
    said = run([sys.executable, "-m", "edgecsd", "doctor", "--gallery-model", "mymodule:embed"], tmp_path)
    assert said.startswith("mean-colours-v1, by mymodule:embed\n192 values a photo") and "problem" not in said
