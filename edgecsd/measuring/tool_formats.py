"""Latency results of other tools: a parser takes a file's bytes and gives readings, or None where it is another's."""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from edgecsd.errors import DamagedFileError
from edgecsd.files.whole import sha256_file, size_bytes
from edgecsd.measuring.schema import Frozen, LatencyFigures, Repeat
from edgecsd.targets.metadata import ArtifactMetadata

COREML_KIND = "edgecsd coreml measurement"
NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
PERCENTILES = {"p50_ms": 50, "p90_ms": 90, "p95_ms": 95}


class Reading(Frozen):
    """threads, device and model are "" or None where the tool does not say; wall_ns: its raw series, where it does."""

    tool: str
    figures: LatencyFigures
    threads: int | None = None
    backend: str = ""
    device: str = ""
    system: str = ""
    model: str = ""
    wall_ns: tuple[int, ...] = ()
    embeddings: tuple[tuple[float, ...], ...] = ()
    expected: tuple[tuple[float, ...], ...] = ()
    sha256: str = ""

    @property
    def repeats(self) -> tuple[Repeat, ...]:
        """The raw series as a row keeps it; none where the tool gave none."""
        return (Repeat(runtime=self.tool, figures=self.figures, wall_ns=self.wall_ns),) if self.wall_ns else ()


Parser = Callable[[bytes], list[Reading] | None]


def series_figures(wall_ns: list[int], **more: Any) -> LatencyFigures:
    """The figures of a raw series in nanoseconds, by the rules of edgecsd's own rows."""
    ms = np.array(wall_ns, np.float64) / 1e6
    cut: dict[str, Any] = {name: float(np.percentile(ms, percent)) for name, percent in PERCENTILES.items()}
    if len(ms) >= 1000:
        cut["p99_ms"] = float(np.percentile(ms, 99))
    cut |= {"min_ms": float(ms.min()), "max_ms": float(ms.max()), "mean_ms": float(ms.mean())}
    return LatencyFigures(runs=len(ms), **cut, **more)


def benchmark_model_text(data: bytes) -> list[Reading] | None:
    """The log of TFLite's benchmark_model; microseconds. Its last count=... line is the warm series."""
    text = data.decode("utf-8", "replace")
    summary = re.search(rf"Inference timings in us: Init: {NUMBER}, First inference: {NUMBER}", text)
    series = re.findall(r"\bcount=.*", text)
    if summary is None or not series:
        return None
    printed = {name: float(value) for name, value in re.findall(rf"\b(\w+)={NUMBER}", series[-1])}
    only = printed.get("curr")  # of a single run nothing else is printed
    names = {"mean_ms": "avg", "min_ms": "min", "max_ms": "max", "p50_ms": "median", "p95_ms": "p95"}
    default = only if printed["count"] == 1 else None
    microseconds = {ours: printed.get(theirs, default) for ours, theirs in names.items()}
    times: dict[str, Any] = {name: value / 1e3 for name, value in microseconds.items() if value is not None}
    peak = re.search(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {NUMBER}", text)
    growth = re.search(
        rf"Memory footprint delta from the start of the tool \(MB\): init={NUMBER} overall={NUMBER}", text
    )
    figures = LatencyFigures(
        runs=int(printed["count"]),
        load_ms=float(summary[1]) / 1e3,
        first_ms=float(summary[2]) / 1e3,
        peak_kb=int(float(peak[1]) * 1024) if peak else None,
        growth_kb=int(float(growth[2]) * 1024) if growth else None,
        **times,
    )
    threads, graph = re.search(r"Num threads: \[(\d+)\]", text), re.search(r"Graph: \[(.*)\]", text)
    delegates = sorted(set(re.findall(r"Created TensorFlow Lite (\w+) delegate|Use (gpu|nnapi): \[1\]", text)))
    return [
        Reading(
            tool="benchmark_model",
            figures=figures,
            threads=int(threads[1]) if threads else None,
            backend=", ".join("".join(each) for each in delegates),
            model=graph[1] if graph else "",
        )
    ]


LATENCY = {1: "mean_ms", 2: "min_ms", 3: "max_ms", 5: "p50_ms", 7: "p95_ms", 8: "load_ms", 9: "first_ms"}


def benchmark_model_protobuf(data: bytes) -> list[Reading] | None:
    """The BenchmarkResult message that newer ones write (--result_file_path)."""
    try:
        top = dict(_fields(data))
        latency = dict(_fields(top[2]))
        memory, misc = dict(_fields(top.get(3, b""))), dict(_fields(top.get(4, b"")))
        if not set(top) <= {1, 2, 3, 4} or not {1, 2, 3} <= set(latency) or not set(latency) <= set(range(1, 11)):
            return None
        times: dict[str, Any] = {name: float(latency[number]) for number, name in LATENCY.items() if number in latency}
        peak, growth = float(memory.get(3, 0)), int(memory.get(2, 0))
        figures = LatencyFigures(
            runs=int(misc[2]) if 2 in misc else None,
            peak_kb=int(peak * 1024) if peak > 0 else None,
            growth_kb=growth if growth > 0 else None,
            **times,
        )
        return [Reading(tool="benchmark_model", figures=figures, model=bytes(top.get(1, b"")).decode())]
    except (IndexError, KeyError, TypeError, ValueError, struct.error):
        return None


def _fields(data: Any) -> Iterator[tuple[int, Any]]:
    """(number, value) of a protobuf message's fields: numbers, 4-byte floats, bytes. ValueError if it is none."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
        elif wire == 5:
            (value,), place = struct.unpack_from("<f", data, place), place + 4
        elif wire == 2:
            length, place = _varint(data, place)
            value, place = data[place : place + length], place + length
            if place > len(data):
                raise ValueError("cut off")
        else:
            raise ValueError(f"wire type {wire}")
        yield number, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("too long a number")


def onnxruntime_perf_test(data: bytes) -> list[Reading] | None:
    """What onnxruntime_perf_test prints: seconds and milliseconds; percentiles only with -s."""
    text = data.decode("utf-8", "replace")
    mean = re.search(rf"Average inference time cost(?: total)?: {NUMBER} ms", text)
    if mean is None:
        return None

    def found(pattern: str, scale: float) -> float | None:
        match = re.search(pattern.replace("#", NUMBER), text)
        return float(match[1]) * scale if match else None

    runs, peak = found(r"Total inference requests: #", 1), found(r"Peak working set size: ?# ?bytes", 1 / 1024)
    threads = found(r"Setting intra_op_num_threads to #", 1)
    names = {"p50_ms": "P50", "p90_ms": "P90", "p95_ms": "P95", "min_ms": "Min", "max_ms": "Max"}
    if runs is not None and runs >= 1000:
        names["p99_ms"] = "P99"
    cut: dict[str, Any] = {ours: found(rf"\b{theirs} Latency: # s", 1e3) for ours, theirs in names.items()}
    figures = LatencyFigures(
        runs=None if runs is None else int(runs),
        mean_ms=float(mean[1]),
        peak_kb=None if peak is None else int(peak),
        load_ms=found(r"Session creation time cost: # s", 1e3),
        first_ms=found(r"First inference time cost: # ms", 1),
        **cut,
    )
    return [Reading(tool="onnxruntime_perf_test", figures=figures, threads=None if threads is None else int(threads))]


def ai_hub_profile(data: bytes) -> list[Reading] | None:
    """The profile that Qualcomm AI Hub's download_profile gives, as JSON: microseconds and bytes."""
    document = _json(data)
    summary = document.get("execution_summary")
    if not isinstance(summary, dict) or "estimated_inference_time" not in summary:
        return None
    peak, load = summary.get("estimated_inference_peak_memory"), summary.get("warm_load_time")
    more: dict[str, Any] = {
        "estimate_ms": summary["estimated_inference_time"] / 1e3,
        "peak_kb": int(peak / 1024) if peak else None,
        "load_ms": load / 1e3 if load else None,
    }
    microseconds = summary.get("all_inference_times") or document.get("all_inference_times") or []
    wall_ns = [round(value * 1e3) for value in microseconds]
    figures = series_figures(wall_ns, **more) if wall_ns else LatencyFigures(**more)
    layers = Counter(str(layer.get("compute_unit", "?")) for layer in document.get("execution_detail", []))
    units = ", ".join(f"{count} layers on {unit}" for unit, count in sorted(layers.items()))
    return [Reading(tool="AI Hub profile", figures=figures, backend=units, wall_ns=tuple(wall_ns))]


def coreml_measurement(data: bytes) -> list[Reading] | None:
    """What the programs of `edgecsd bench script` write: one reading for each choice of compute units."""
    document = _json(data)
    if document.get("kind") != COREML_KIND:
        return None
    if document.get("schema_version") != 1:
        raise DamagedFileError(f"schema_version {document.get('schema_version')!r} is unknown to this edgecsd: reads 1")
    common = {name: document[name] for name in ("tool", "device", "system", "model", "sha256", "expected")}
    readings = []
    for units, measured in document["compute_units"].items():
        wall_ns, peak = measured["wall_ns"], document.get("peak_kb")
        figures = series_figures(wall_ns, load_ms=measured["load_ms"], first_ms=measured["first_ms"], peak_kb=peak)
        more = {"figures": figures, "wall_ns": wall_ns, "embeddings": measured["embeddings"]}
        readings.append(Reading(**common, **more, backend=units))
    return readings


def _json(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


FORMATS: dict[str, Parser] = {  # in the words of the error that names them
    "the log of benchmark_model": benchmark_model_text,
    "benchmark_model's result file (protobuf)": benchmark_model_protobuf,
    "the output of onnxruntime_perf_test": onnxruntime_perf_test,
    "an AI Hub profile (JSON)": ai_hub_profile,
    "the JSON of a program of `edgecsd bench script`": coreml_measurement,
}


def read_formats(data: bytes, where: str) -> list[Reading] | None:
    """The readings of the first format that knows the bytes; None if none does. DamagedFileError for a broken one."""
    for name, parser in FORMATS.items():
        try:
            readings = parser(data)
        except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
            raise DamagedFileError(f"{where}: looks like {name}, but is not whole: {error!r:.200}") from None
        except DamagedFileError as error:
            raise DamagedFileError(f"{where}: {error}") from None
        if readings is not None:
            return readings
    return None


def artifact_fields(file: Path, metadata: ArtifactMetadata) -> dict[str, Any]:
    """The fields of a row that follow from the artifact."""
    return {
        "file": str(file),
        "sha256": sha256_file(file),
        "size_bytes": size_bytes(file),
        "target": metadata.target.value,
        "precision": metadata.precision.value,
    }


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
