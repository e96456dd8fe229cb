#!/usr/bin/env python3
"""Measure the .mlpackage of this folder on this Mac, by each choice of compute units; edgecsd bench script wrote it.

    pip install coremltools numpy Pillow
    python3 bench_coreml.py                  then, where edgecsd is:  edgecsd bench import coreml.json

It reads bench.json, pixels.bin and expected.bin beside it, and writes coreml.json with times and embeddings.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

KIND = "edgecsd coreml measurement"
UNITS = ("CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL")
WARMUP_RUNS, WARMUP_SECONDS = 10, 1.0


def read_folder(folder: Path) -> tuple[dict[str, Any], Any, Any]:
    """bench.json, the (n, S, S, 3) uint8 pixels and the (n, D) float32 embeddings that are right."""
    about = json.loads((folder / "bench.json").read_text())
    count, size, dim = about["count"], about["size"], about["dim"]
    pixels = np.fromfile(folder / "pixels.bin", np.uint8).reshape(count, size, size, 3)
    return about, pixels, np.fromfile(folder / "expected.bin", "<f4").reshape(count, dim)


def measure_units(coremltools: Any, package: Path, units: str, images: list[Any], runs: int, seconds: float) -> Any:
    """Load, first inference, the warm series in nanoseconds, and the embeddings of all images."""
    start = time.perf_counter_ns()
    model = coremltools.models.MLModel(str(package), compute_units=getattr(coremltools.ComputeUnit, units))
    loaded = time.perf_counter_ns()

    def embed(number: int) -> Any:
        return model.predict({"image": images[number % len(images)]})["embedding"]

    embed(0)
    first = time.perf_counter_ns()
    done = 0
    while done < WARMUP_RUNS or time.perf_counter_ns() - first < min(WARMUP_SECONDS, seconds) * 1e9:
        embed(done)
        done += 1
    wall_ns: list[int] = []
    begun = time.perf_counter_ns()
    while len(wall_ns) < runs or time.perf_counter_ns() - begun < seconds * 1e9:
        before = time.perf_counter_ns()
        embed(len(wall_ns))
        wall_ns.append(time.perf_counter_ns() - before)
    embeddings = [np.asarray(embed(number), np.float64).ravel().tolist() for number in range(len(images))]
    return {
        "load_ms": (loaded - start) / 1e6,
        "first_ms": (first - loaded) / 1e6,
        "wall_ns": wall_ns,
        "embeddings": embeddings,
    }


def measure(folder: Path, coremltools: Any, units: list[str], runs: int, seconds: float) -> dict[str, Any]:
    """The whole document."""
    from PIL import Image

    about, pixels, expected = read_folder(folder)
    images = [Image.fromarray(each) for each in pixels]
    measured = {}
    for name in units:
        print(f"measuring with compute units {name}", file=sys.stderr)
        measured[name] = measure_units(coremltools, folder / about["model"], name, images, runs, seconds)
    return {
        "kind": KIND,
        "schema_version": 1,
        "tool": f"coremltools {coremltools.__version__}",
        "device": device_name(),
        "system": f"macOS {platform.mac_ver()[0]}",
        "model": about["model"],
        "sha256": about["sha256"],
        "compute_units": measured,
        "expected": expected.tolist(),
        "peak_kb": peak_kb(),
    }


def device_name() -> str:
    """ "Mac15,12, Apple M3"; on another system what Python knows of it."""
    found = [
        subprocess.run(["sysctl", "-n", name], stdout=subprocess.PIPE, check=False).stdout.decode().strip()
        for name in (("hw.model", "machdep.cpu.brand_string") if sys.platform == "darwin" else ())
    ]
    return ", ".join(part for part in found if part) or f"{platform.system()} {platform.machine()}"


def peak_kb() -> int:
    """Peak resident memory of this process; macOS counts in bytes, others in KiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--units", action="append", choices=UNITS, help="default: all of them, one after the other")
    parser.add_argument("--min-runs", type=int, default=200)
    parser.add_argument("--min-seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("coreml.json"))
    options = parser.parse_args()
    if platform.system() != "Darwin":
        print(
            f"Core ML runs on macOS only, and this is {platform.system()}: copy this folder to a Mac", file=sys.stderr
        )
        return 4
    try:
        import coremltools
    except ImportError:
        print("this needs coremltools: pip install coremltools numpy Pillow", file=sys.stderr)
        return 4
    units = options.units or list(UNITS)
    document = measure(Path(__file__).parent, coremltools, units, options.min_runs, options.min_seconds)
    options.out.write_text(json.dumps(document))
    print(f"wrote {options.out}; next, where edgecsd is: edgecsd bench import {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
