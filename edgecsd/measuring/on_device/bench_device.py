#!/usr/bin/env python3
"""Measure ONE model in THIS fresh process and print one JSON document on the last line of standard output.

Self-contained: copy it to the device. It needs Python >= 3.8, numpy and one runtime: onnxruntime, or ai-edge-litert, or
tflite-runtime. Input is an .npy of (n, S, S, 3) uint8 preprocessed images, which are cycled, batch 1.

    python3 bench_device.py model.tflite --input pixels.npy --threads 1 --min-runs 200 --min-seconds 10

With --serve it reads a count on each line of standard input, runs that many inferences and prints their times.
Exit code 0 with a result, 1 with {"error": ...}.
"""
# ruff: noqa: E402  (the clock starts before the other imports: they are part of a cold start)

from __future__ import annotations

import time

FIRST_LINE_NS = time.perf_counter_ns()

import argparse
import base64
import json
import os
import platform
import sys
from importlib.metadata import version
from typing import Any, Iterator  # noqa: UP035  (collections.abc.Iterator cannot be subscripted at run time in 3.8)

if __name__ == "__main__":  # numpy's own threads must not stand beside the runtime's
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np

SCHEMA_VERSION = 1
WINDOW, SETTLED = 10, 0.05  # two neighbouring medians of 10 runs differ by at most this share
WARMUP_LIMIT_SECONDS = 10.0  # on a busy machine the median may never settle; the result then says so
P99_RUNS = 1000  # fewer runs than this leave under ten samples beyond the 99th percentile


class OnnxModel:
    """An .onnx or .ort file in onnxruntime, CPU only."""

    def __init__(self, path: str, threads: int, spin: bool, entries: list[str]) -> None:
        import onnxruntime

        self.imported_ns = time.perf_counter_ns()
        self.runtime = ["onnxruntime", onnxruntime.__version__]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
        for entry in entries:
            options.add_session_config_entry(*entry.split("=", 1))
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name

    def embed(self, image: Any) -> Any:
        """(1, S, S, 3) uint8 -> whatever the file gives; (1, D) is expected."""
        return self._session.run(None, {self._name: image})[0]


class TfliteModel:
    """A .tflite file in ai-edge-litert, or in tflite-runtime on old boards."""

    def __init__(self, path: str, threads: int, spin: bool, entries: list[str]) -> None:
        del spin, entries  # onnxruntime's alone
        try:
            from ai_edge_litert.interpreter import Interpreter

            name = "ai-edge-litert"
        except ImportError:
            from tflite_runtime.interpreter import Interpreter

            name = "tflite-runtime"
        self.imported_ns = time.perf_counter_ns()
        self.runtime = [name, version(name)]
        self._interpreter = Interpreter(path, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def embed(self, image: Any) -> Any:
        """(1, S, S, 3) uint8 -> whatever the file gives; (1, D) is expected."""
        self._interpreter.set_tensor(self._input, image)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)


def load_model(options: argparse.Namespace, spin: bool) -> Any:
    """The model of a file, by its suffix."""
    kind = {".onnx": OnnxModel, ".ort": OnnxModel, ".tflite": TfliteModel}.get(os.path.splitext(options.model)[1])
    if kind is None or not os.path.isfile(options.model):
        raise ValueError(f"{options.model}: not there, or no .onnx, .ort or .tflite file")
    return kind(options.model, options.threads, spin, options.session_option)


def read_kilobytes(field: str) -> int | None:
    """A memory figure of this process in KiB. VmHWM, not ru_maxrss, which a child inherits from its parent on Linux."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1])
    except OSError:
        if field == "VmHWM" and sys.platform == "darwin":
            import resource

            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # bytes on macOS
    return None


def process_age_ns() -> tuple[int, str]:
    """Time since the kernel started this process (10 ms steps), or since this file's first line if unknown."""
    try:
        with open("/proc/self/stat") as stat:
            ticks = int(stat.read().rsplit(")", 1)[1].split()[19])
        started = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - started, "process start"
    except (OSError, AttributeError, IndexError, ValueError):
        return time.perf_counter_ns() - FIRST_LINE_NS, "first line of the script"


def describe_machine() -> dict[str, Any]:
    """Processor, cores, system, this process."""
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpu": cpu_model(),
        "cpu_count": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pid": os.getpid(),
    }


def cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            for line in cpuinfo:
                if line.split(":")[0].strip() in ("model name", "Hardware", "Model"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # no Linux
    return platform.processor() or platform.machine()


def _frequency_khz() -> int | None:
    try:
        with open("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None  # virtual machines have none


def check_pixels(pixels: Any, path: str) -> None:
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8 or len(pixels) < 1:
        raise ValueError(f"{path}: (n, S, S, 3) uint8 is expected, not {pixels.shape} {pixels.dtype}")


def check_output(output: Any) -> Any:
    """The (D,) embedding as float32; another shape ends the measurement, since its time would mean nothing."""
    array = np.asarray(output)
    if array.ndim != 2 or array.shape[0] != 1:
        raise ValueError(f"the model gave an output of shape {array.shape}; (1, D) is expected")
    return array[0].astype(np.float32)


def timed_runs(model: Any, images: list[Any], outputs: dict[int, Any]) -> Iterator[tuple[int, int]]:
    """Endless (wall ns, CPU ns of all threads) of one inference after another; outputs[i] keeps the last of image i."""
    position = 0
    while True:
        image = images[position]
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        output = model.embed(image)
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        outputs[position] = output
        position = (position + 1) % len(images)
        yield wall, cpu


def warm_up(runs: Iterator[tuple[int, int]], min_runs: int, min_seconds: float) -> dict[str, Any]:
    """Run until the moving median settles, at least `min_runs` and `min_seconds`."""
    walls: list[int] = []
    start = time.perf_counter()
    while True:
        walls.append(next(runs)[0])
        seconds = time.perf_counter() - start
        if len(walls) < max(min_runs, 2) or seconds < min_seconds:
            continue
        window = min(WINDOW, len(walls) // 2)
        late, early = np.median(walls[-window:]), np.median(walls[-2 * window : -window])
        settled = len(walls) >= 2 * WINDOW and bool(abs(late - early) <= SETTLED * early)
        if settled or seconds >= max(WARMUP_LIMIT_SECONDS, min_seconds):
            return {"runs": len(walls), "seconds": seconds, "settled": settled}


def measure(runs: Iterator[tuple[int, int]], min_runs: int, min_seconds: float) -> dict[str, Any]:
    """The warm figures in milliseconds and both raw series in nanoseconds; nothing is dropped."""
    walls: list[int] = []
    cpus: list[int] = []
    start = time.perf_counter()
    while len(walls) < min_runs or time.perf_counter() - start < min_seconds:
        wall, cpu = next(runs)
        walls.append(wall)
        cpus.append(cpu)
    seconds = time.perf_counter() - start
    ms, cpu_ms = np.array(walls) / 1e6, np.array(cpus) / 1e6
    warm = {"runs": len(walls), "seconds": seconds, "min_ms": float(ms.min()), "mean_ms": float(ms.mean())}
    for percent in (50, 90, 95, 99):
        if percent < 99 or len(walls) >= P99_RUNS:
            warm[f"p{percent}_ms"] = float(np.percentile(ms, percent))
    warm.update(cpu_ms=float(cpu_ms.mean()), cpu_p50_ms=float(np.median(cpu_ms)))
    return {"warm": warm, "wall_ns": walls, "cpu_ns": cpus}


def run_once(options: argparse.Namespace) -> dict[str, Any]:
    """Cold start, warm-up, measurement and the embeddings that the timed runs gave."""
    mapped = np.load(options.input, mmap_mode="r", allow_pickle=False)  # a cold start reads one image only
    check_pixels(mapped, options.input)
    first_image = np.array(mapped[:1])
    rss_before, before = read_kilobytes("VmRSS"), time.perf_counter_ns()
    model = load_model(options, spin=options.threads > 1)
    loaded, rss_loaded = time.perf_counter_ns(), read_kilobytes("VmRSS")
    check_output(model.embed(first_image))
    first_ns, (cold_ns, cold_from) = time.perf_counter_ns() - loaded, process_age_ns()
    images = [np.array(mapped[i : i + 1]) for i in range(len(mapped))]
    del mapped
    outputs: dict[int, Any] = {}
    runs = timed_runs(model, images, outputs)
    frequency = _frequency_khz()
    warmup = warm_up(runs, options.warmup_runs, options.warmup_seconds)
    result = measure(runs, options.min_runs, options.min_seconds)
    outputs.update({i: model.embed(images[i]) for i in range(len(images)) if i not in outputs})  # after few runs
    memory = {
        "peak_kb": read_kilobytes("VmHWM"),
        "rss_before_kb": rss_before,
        "rss_loaded_kb": rss_loaded,
        "rss_after_kb": read_kilobytes("VmRSS"),
        "input_kb": sum(image.nbytes for image in images) // 1024,
    }
    embeddings = store(np.stack([check_output(outputs[i]) for i in range(len(images))]), options.embeddings)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": options.model,
        "runtime": model.runtime,
        "threads": options.threads,
        **describe_machine(),
        "import_ms": (model.imported_ns - before) / 1e6,
        "load_ms": (loaded - model.imported_ns) / 1e6,
        "first_ms": first_ns / 1e6,
        "cold_ms": cold_ns / 1e6,
        "cold_from": cold_from,
        "warmup": warmup,
        **result,
        "memory": memory,
        "frequency_khz": [frequency, _frequency_khz()],
        "embeddings": embeddings,
    }


def store(embeddings: Any, path: str | None) -> dict[str, Any]:
    """(n, D) float32, as base64 in the document or in an .npy file."""
    if path:
        np.save(path, embeddings)
        return {"shape": list(embeddings.shape), "file": path}
    return {"shape": list(embeddings.shape), "base64": base64.b64encode(embeddings.astype("<f4").tobytes()).decode()}


def serve(options: argparse.Namespace) -> None:
    """Answer each count on standard input with the times of that many inferences, until end of file."""
    pixels = np.load(options.input, allow_pickle=False)
    check_pixels(pixels, options.input)
    model = load_model(options, spin=False)  # spinning would be counted as CPU time
    images = [pixels[i : i + 1] for i in range(len(pixels))]
    check_output(model.embed(images[0]))
    runs = timed_runs(model, images, {})
    warmup = warm_up(runs, options.warmup_runs, options.warmup_seconds)
    ready = {"ready": True, "runtime": model.runtime, "threads": options.threads, "warmup": warmup}
    print(json.dumps({**ready, **describe_machine()}), flush=True)
    for line in sys.stdin:
        pairs = [next(runs) for _ in range(int(line))]
        print(json.dumps({"wall_ns": [p[0] for p in pairs], "cpu_ns": [p[1] for p in pairs]}), flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help=".onnx, .ort or .tflite file")
    parser.add_argument("--input", required=True, help=".npy of (n, S, S, 3) uint8 images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpus", default="", help="pin to these cores, e.g. 4,5")
    parser.add_argument("--min-runs", type=int, default=200)
    parser.add_argument("--min-seconds", type=float, default=10.0)
    parser.add_argument("--warmup-runs", type=int, default=WINDOW)
    parser.add_argument("--warmup-seconds", type=float, default=1.0)
    parser.add_argument("--embeddings", help="write (n, D) float32 to this .npy instead of into the JSON")
    parser.add_argument("--session-option", action="append", default=[], help="KEY=VALUE for onnxruntime")
    parser.add_argument("--serve", action="store_true")
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    try:
        if options.cpus:
            os.sched_setaffinity(0, {int(core) for core in options.cpus.split(",")})
        if options.serve:
            serve(options)
        else:
            print(json.dumps(run_once(options)), flush=True)
    except Exception as error:  # the host reads the reason from standard output, over ssh and adb too
        reason = f"{type(error).__name__}: {error}"
        print(json.dumps({"schema_version": SCHEMA_VERSION, "error": reason}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
