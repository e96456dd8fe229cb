"""The wheel holds the library and nothing else, and works where only the wheel is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import edgecsd

ROOT = Path(__file__).parent.parent


def library_files() -> set[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "edgecsd"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build/ left in the checkout would put deleted files into the wheel."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in library_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    for other in ("export", "benchmarks", "tests", "examples"):  # what must stay out is there to be found
        (source / other).mkdir()
        (source / other / "__init__.py").touch()
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", source / "dist", source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (source / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_exactly_the_library(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = f"edgecsd-{edgecsd.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(metadata)} == library_files()
    assert "edgecsd/py.typed" in names
    assert {name.removeprefix(metadata) for name in names if name.startswith(metadata)} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "top_level.txt",
        "licenses/LICENSE",
    }
    assert wheel.name == f"edgecsd-{edgecsd.__version__}-py3-none-any.whl"


def test_the_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own; its dependencies come from the one that runs the tests, so no network is needed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        tmp_path / "venv",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run([*install, wheel], check=True, capture_output=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # .pth files in there are not read

    def run(*command: str) -> str:
        full = [tmp_path / "venv" / "bin" / command[0], *command[1:]]
        done = subprocess.run(full, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("python", "-c", "import edgecsd; print(edgecsd.__file__)").startswith(str(site))
    assert edgecsd.__version__ in run("edgecsd", "--version")
    assert "extract" in run("edgecsd", "--help")
    assert "extract" in run("python", "-m", "edgecsd", "--help")
