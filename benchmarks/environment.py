"""Where a figure was measured: processor, versions, commit. Every result file in results/ carries it."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from edgecsd.measuring.on_device.bench_device import describe_machine

LIBRARIES = (
    "edgecsd",
    "numpy",
    "Pillow",
    "torch",
    "torchvision",
    "timm",
    "onnx",
    "onnxruntime",
    "litert-torch",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "coremltools",
    "faiss-cpu",
)


def environment() -> dict[str, Any]:
    """Plain JSON: cpu, cores, memory load, system, Python and library versions, UTC date, git commit."""
    machine = describe_machine()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": machine["cpu"],
        "cores": machine["cpu_count"],
        "affinity": machine["affinity"],
        "load_average": round(os.getloadavg()[0], 2),
        "system": machine["system"],
        "python": machine["python"],
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """The commit of the checkout this file stands in; "-dirty" if tracked files differ, "unknown" outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
