"""Measure one artifact on a device, by default this machine: fresh processes in, one BenchRow out."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.files.whole import sha256_file, size_bytes
from edgecsd.measuring.child import Measured, MeasurementFailedError
from edgecsd.measuring.devices import Job
from edgecsd.measuring.inputs import BenchInput
from edgecsd.measuring.parity import References, compare, parity_problem, shape_problem
from edgecsd.measuring.schema import (
    CONTENDED,
    NOT_MEASURED,
    PROVENANCES,
    BenchRow,
    LatencyFigures,
    Neighbours,
    Parity,
    Repeat,
    Status,
)

Floats = NDArray[np.float32]


def row_frame(job: Job) -> dict[str, Any]:
    """The fields of a row that are known before anything is measured; its key is made of them."""
    device, target = job.device, job.metadata.target
    return {
        "kind": device.kind,
        "file": str(job.file),
        "sha256": sha256_file(job.file),
        "size_bytes": size_bytes(job.file),
        "target": target,
        "precision": job.metadata.precision,
        "provenance": f"{PROVENANCES[device.kind]}{device.name}",
        "label": device.label,
        "protocol": job.protocol,
        "threads": job.threads,
        "oversubscribed": job.threads > device.cores,
        "input": job.images.kind,
        "input_count": len(job.images.pixels),
        "input_digest": job.images.digest,
        "decode": job.images.decode,
        "reference": job.reference.name,
        "index": job.index.name if job.index else "",
        "environment": device.environment(target) | device.session_options(job.metadata),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def not_measurable_row(job: Job, frame: dict[str, Any], reason: str) -> BenchRow:
    """A row that says why the device has no figure; it was not measured, and its provenance says that too."""
    unmeasured = {**frame, "provenance": f"{NOT_MEASURED}{job.device.name}"}
    return BenchRow(**unmeasured, status=Status.NOT_MEASURABLE, reason=reason)


def measure_row(job: Job, frame: dict[str, Any], references: References) -> BenchRow:
    """Measure the repeats one after the other; whatever goes wrong in a measuring process is the row's reason."""
    repeats: list[Repeat] = []
    parity: Parity | None = None
    neighbours: Neighbours | None = None
    for number in range(job.protocol.repeats):
        try:
            measured = job.device.measure(job)
            parity, expected = _checked_parity(job, measured, references)
        except MeasurementFailedError as error:
            where = f"repeat {number + 1} of {job.protocol.repeats}: " if job.protocol.repeats > 1 else ""
            return BenchRow(**frame, status=Status.FAILED, reason=f"{where}{error}", repeats=tuple(repeats))
        repeats.append(_repeat(job, measured))
        if problem := parity_problem(parity, job.metadata.precision, same_file=job.reference.same_file):
            return BenchRow(**frame, status=Status.FAILED, reason=problem, repeats=tuple(repeats), parity=parity)
        if job.index is not None:
            neighbours = job.index.compare(measured.embeddings, expected)
    median = sorted(repeats, key=_p90)[(len(repeats) - 1) // 2]
    figures, spread = median.figures, _spread(repeats)
    contended = bool(figures.p50_ms and figures.cpu_p50_ms and figures.p50_ms > CONTENDED * figures.cpu_p50_ms)
    return BenchRow(
        **frame,
        status=Status.OK,
        figures=figures,
        contended=contended,
        p90_spread=spread,
        repeats=tuple(repeats),
        parity=parity,
        neighbours=neighbours,
    )


def _checked_parity(job: Job, measured: Measured, references: References) -> tuple[Parity, Floats]:
    """The parity, and the (n, D) embeddings of the reference."""
    problem = shape_problem(measured.embeddings, len(job.images.pixels), job.metadata.dim)
    if problem:
        raise MeasurementFailedError(problem)
    expected = references.embeddings(job.reference, job.images)
    return compare(measured.embeddings, expected, job.reference.name), expected


def _repeat(job: Job, measured: Measured) -> Repeat:
    document = measured.document
    return Repeat(
        pid=document["pid"],
        runtime=" ".join(document["runtime"]),
        warmup_runs=document["warmup"]["runs"],
        warmup_settled=document["warmup"]["settled"],
        affinity=document["affinity"],
        frequency_khz=document["frequency_khz"],
        load_average=measured.load_average,
        states=measured.states,
        figures=_figures(job.images, document),
        wall_ns=document["wall_ns"],
        cpu_ns=document["cpu_ns"],
    )


def _figures(images: BenchInput, document: dict[str, Any]) -> LatencyFigures:
    cold = {name: document[name] for name in ("import_ms", "load_ms", "first_ms", "cold_ms", "cold_from")}
    totals = images.totals_ms(np.array(document["wall_ns"]), first=document["warmup"]["runs"])
    if totals is not None:
        p50, p90 = np.percentile(totals, [50, 90])
        cold.update(total_p50_ms=float(p50), total_p90_ms=float(p90))
    return LatencyFigures(**cold, **document["warm"], **document["memory"])


def _spread(repeats: list[Repeat]) -> float | None:
    """(largest - smallest) / median of the repeats' p90; None with one repeat."""
    p90 = [_p90(repeat) for repeat in repeats]
    return (max(p90) - min(p90)) / statistics.median(p90) if len(p90) > 1 else None


def _p90(repeat: Repeat) -> float:
    assert repeat.figures.p90_ms is not None  # bench_device.py reports it of every series
    return repeat.figures.p90_ms
