"""Runtimes that are not this environment's: the last tflite-runtime, and AArch64 builds that QEMU runs on this machine.

Each place makes what it needs in a folder of its own, once; nothing of the system's is changed. QEMU gives numbers, not
times. The AArch64 Python is Debian's, fetched and unpacked by apt-get and dpkg-deb for another architecture.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecsd.errors import MissingBackendError
from edgecsd.files.whole import replace_whole
from edgecsd.measuring.remote.transport import Finished, run_program
from edgecsd.targets.metadata import Target

ROOT = Path(__file__).resolve().parents[2]
OLD = ("tflite-runtime==2.14.0", "numpy<2")  # the last release of that name; with numpy 2 its Interpreter() fails
CURRENT = ("ai-edge-litert", "onnxruntime", "numpy")  # in the versions of constraints.txt, which are this environment's
CPU = "cortex-a53"  # a Raspberry Pi 3, and the small cores of many phones
CPU_PART = "0xd03"
QEMU = ("qemu-aarch64-static", "qemu-aarch64")
DEBIAN = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
WHEELS = ("manylinux2014_aarch64", *(f"manylinux_2_{glibc}_aarch64" for glibc in (17, 27, 28, 31, 34)))
# What the host tells its own numpy and Python does not fit another processor's, or another environment.
FOREIGN = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Place:
    """targets: what it runs. start() -> the shell words that start its Python, which is made if it is not there yet."""

    name: str
    targets: frozenset[Target]
    start: Callable[[], str]


class Subprocess:
    """A transport to another Python on this machine."""

    way = "a subprocess"
    folders: tuple[str, ...] = ('"${TMPDIR:-/tmp}"', "/tmp")
    no_python = "remove its folder and make it again"

    def __init__(self, place: Place) -> None:
        self.address = place.name
        removed = " ".join(f"-u {name}" for name in FOREIGN)
        self.pythons: tuple[str, ...] = (f"env {removed} {place.start()}",)

    def run(self, command: str, timeout_seconds: float | None = None) -> Finished:
        return run_program(["sh", "-c", command], timeout_seconds=timeout_seconds)

    def send(self, file: Path, to: str) -> None:
        shutil.copyfile(file, to)

    def fetch(self, source: str, file: Path) -> bool:
        if there := Path(source).is_file():
            shutil.copyfile(source, file)
        return there

    def close(self) -> None:
        """Nothing: no connection is kept."""


def old_runtime(folder: Path) -> str:
    """tflite-runtime in a small virtual environment, for this machine's processor."""
    python = folder / "bin" / "python"
    if not (folder / "whole").exists():
        _call([sys.executable, "-m", "venv", "--clear", str(folder)], "a virtual environment")
        _call([str(python), "-m", "pip", "install", "--quiet", *OLD], " ".join(OLD))
        (folder / "whole").touch()
    return shlex.quote(str(python))


def arm64(requirements: Sequence[str], root: Path, site: Path) -> str:
    """AArch64 wheels in `site`, for the AArch64 Python in `root`, run by QEMU."""
    qemu = next((found for name in QEMU if (found := shutil.which(name))), None)
    if qemu is None or shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise MissingBackendError(
            "AArch64 needs QEMU's user-mode emulator and Debian's apt-get and dpkg-deb; on Debian, as root: apt-get "
            "install qemu-user-static"
        )
    if not root.exists():
        with replace_whole(root) as temporary:
            _debian_python(temporary)
    (python,) = (root / "usr" / "bin").glob("python3.[0-9]*")
    if not site.exists():
        with replace_whole(site) as temporary:
            _install_wheels(requirements, temporary, python.name.removeprefix("python"))
    words = [qemu, "-cpu", CPU, "-L", str(root), "-E", f"PYTHONPATH={site}", str(python)]
    return shlex.join(words)


def _debian_python(root: Path) -> None:
    """Debian's AArch64 Python and its libraries, unpacked; apt's state for them stays beside the system's own."""
    apt = root / "apt"
    for made in (apt / "lists" / "partial", apt / "archives" / "partial", root / "proc" / "device-tree"):
        made.mkdir(parents=True)
    (apt / "status").touch()
    places = {
        "Dir::State": apt,
        "Dir::State::status": apt / "status",
        "Dir::State::Lists": apt / "lists",
        "Dir::Cache": apt,
        "Dir::Cache::Archives": apt / "archives",
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Acquire::Languages": "none",
    }
    command = ["apt-get", "-qq", *(word for name, value in places.items() for word in ("-o", f"{name}={value}"))]
    _call([*command, "update"], "Debian's list of AArch64 packages")
    fetch = ["install", "--yes", "--no-install-recommends", "--download-only"]
    _call([*command, *fetch, *DEBIAN], f"{', '.join(DEBIAN)} for AArch64")
    for package in sorted((apt / "archives").glob("*.deb")):
        _call(["dpkg-deb", "-x", str(package), str(root)], package.name)
    shutil.rmtree(apt)
    # Without an ARM processor's description onnxruntime and LiteRT read this machine's, and crash.
    (root / "proc" / "cpuinfo").write_text(cpuinfo(os.cpu_count() or 1))
    (root / "proc" / "device-tree" / "model").write_text("QEMU user-mode emulation")


def cpuinfo(cores: int) -> str:
    """/proc/cpuinfo as the Linux of such a board prints it."""
    features = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
    each = (
        f"processor\t: {{core}}\nBogoMIPS\t: 50.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {CPU_PART}\nCPU revision\t: 4\n\n"
    )
    return "".join(each.format(core=core) for core in range(cores))


def _install_wheels(requirements: Sequence[str], site: Path, python_version: str) -> None:
    platforms = [word for wheel in WHEELS for word in ("--platform", wheel)]
    options = ["--quiet", "--only-binary=:all:", "--python-version", python_version, *platforms]
    if requirements == CURRENT:
        options += ["-c", str(ROOT / "constraints.txt")]
    pip = [sys.executable, "-m", "pip", "install", "--target", str(site), *options, *requirements]
    _call(pip, f"AArch64 wheels of {', '.join(requirements)} for Python {python_version}")


def _call(command: list[str], what: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise MissingBackendError(f"{what} cannot be had: {command[0]} says: {said[:300]}")


def places(base: Path) -> tuple[Place, ...]:
    """Every place; what they are made of lies in folders of `base`."""
    base = base.resolve()
    root = base / "arm64-debian"
    both = frozenset({Target.TFLITE, Target.ONNX})
    return (
        Place("old-runtime", frozenset({Target.TFLITE}), lambda: old_runtime(base / "old-runtime")),
        Place("arm64", both, lambda: arm64(CURRENT, root, base / "arm64")),
        Place("arm64-old-runtime", frozenset({Target.TFLITE}), lambda: arm64(OLD, root, base / "arm64-old-runtime")),
    )
