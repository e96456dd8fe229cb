#!/usr/bin/env python3
"""Print what THIS device is and how it is at this moment, as one JSON document: the standard library of Python >= 3.8.

    python3 describe_device.py            with --state: only what changes, temperatures above all

Self-contained, beside bench_device.py: edgecsd runs it before and after a measurement.
"""

from __future__ import annotations

import glob
import importlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

MODULES = {  # package -> what is imported of it
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}
ARM_PARTS = {  # "CPU part" of /proc/cpuinfo where the implementer is ARM (0x41)
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd44": "Cortex-X1",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2",
    "0xd49": "Neoverse-N2",
    "0xd4d": "Cortex-A715",
    "0xd4e": "Cortex-X3",
    "0xd80": "Cortex-A520",
    "0xd81": "Cortex-A720",
    "0xd82": "Cortex-X4",
}
PROPERTIES = ("ro.product.manufacturer", "ro.product.model", "ro.build.version.release", "ro.kernel.qemu")
EMULATED = ("qemu", "dummy-virt", "goldfish", "ranchu")  # what emulators call their boards and processors


def read_text(path: str) -> str:
    """A small file of the kernel's, or "" where it cannot be read; device trees end their texts with a zero byte."""
    try:
        with open(path) as file:
            return file.read().strip(" \n\0")
    except (OSError, UnicodeDecodeError):
        return ""


def processor() -> str:
    """The processor's name; of ARM, whose kernels give numbers, each kind of core with its count."""
    fields = [line.split(":", 1) for line in read_text("/proc/cpuinfo").splitlines() if ":" in line]
    pairs = [(name.strip(), value.strip()) for name, value in fields]
    for name, value in pairs:
        if name == "model name":
            return value
    parts = [ARM_PARTS.get(value, "") for name, value in pairs if name == "CPU part"]
    if parts and all(parts):
        return ", ".join(f"{parts.count(part)} x {part}" for part in sorted(set(parts)))
    named = [value for name, value in pairs if name in ("Hardware", "Model")]
    return named[0] if named else platform.processor() or platform.machine()


def android_properties() -> dict[str, str]:
    """What Android says about itself, {} elsewhere."""
    if shutil.which("getprop") is None:
        return {}
    printed = {
        name: subprocess.run(["getprop", name], stdout=subprocess.PIPE, check=False).stdout for name in PROPERTIES
    }
    return {name: text.decode(errors="replace").strip() for name, text in printed.items() if text.strip()}


def packages() -> dict[str, str]:
    """Package -> version of numpy and of the runtimes; of one that cannot be imported "broken: REASON"."""
    found = {}
    for name, module in MODULES.items():
        if importlib.util.find_spec(module.split(".")[0]) is None:
            continue
        try:
            found[name] = str(getattr(importlib.import_module(module), "__version__", "unknown"))
            found[name] = version(name)
        except PackageNotFoundError:
            pass  # of a distribution's package, whose module has its version
        except Exception as error:  # built for another numpy, or one of its libraries is not there
            found[name] = "broken: " + (str(error).splitlines() or [type(error).__name__])[0]
    return found


def state() -> dict[str, Any]:
    """What a latency depends on and what changes: clocks in kHz, temperatures in degrees Celsius, power supplies."""
    files = sorted(glob.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    clocks = [read_text(file) for file in files]  # virtual machines have none
    zones = {}
    for zone in sorted(glob.glob("/sys/class/thermal/thermal_zone*")):
        value = read_text(zone + "/temp")
        if value.lstrip("-").isdigit():
            zones[(os.path.basename(zone) + " " + read_text(zone + "/type")).strip()] = int(value) / 1000
    supplies = {}
    for supply in sorted(glob.glob("/sys/class/power_supply/*")):
        read = [(name, read_text(supply + "/" + name)) for name in ("status", "capacity", "online")]
        supplies[os.path.basename(supply)] = ", ".join(name + " " + value for name, value in read if value)
    return {"khz": [int(clock) for clock in clocks if clock.isdigit()], "celsius": zones, "power": supplies}


def describe() -> dict[str, Any]:
    """The whole document. board: what the device is called, "" where unknown."""
    properties = android_properties()
    phone = " ".join(properties.get(name, "") for name in PROPERTIES[:2]).strip()
    board = phone or read_text("/proc/device-tree/model")
    cpu = processor()
    names_of_it = f"{board} {cpu}".lower()
    return {
        "board": board,
        "cpu": cpu,
        "cpu_count": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "android": properties.get("ro.build.version.release", ""),
        "emulated": properties.get("ro.kernel.qemu") == "1" or any(name in names_of_it for name in EMULATED),
        "python": platform.python_version(),
        "executable": sys.executable,
        "packages": packages(),
        "state": state(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
    }


if __name__ == "__main__":
    print(json.dumps(state() if "--state" in sys.argv else describe()))
