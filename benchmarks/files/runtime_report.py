"""What a run in another runtime is worth: its numbers against torch and the host's runtime, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.cli.console import table
from edgecsd.gate.thresholds import DEFAULT_THRESHOLDS
from edgecsd.measuring.parity import compare, parity_problem, shape_problem
from edgecsd.quantisation.precisions import CLOSENESS, Precision

Floats = NDArray[np.float32]
NAMES = ("backbone", "target", "precision", "place")  # what makes a row
COLUMNS = ("cosine_mean", "cosine_min", "max_difference", "to_host_cosine_min", "to_host_max_difference", "not_finite")


@dataclass(frozen=True)
class Run:
    """One file in one place.

    on        the device, in words: "emulated on ..." or "measured on ..."
    runtime   "tflite-runtime 2.14.0"
    vectors   (n, D), or None where the process failed: then `failure` says why
    """

    on: str
    runtime: str = ""
    vectors: Floats | None = None
    failure: str = ""


def row_of(run: Run, precision: Precision, expected: Floats, host: Floats | None) -> dict[str, Any]:
    """The figures of a run and its problem, "" for none. expected: torch's (n, D); host: the host runtime's."""
    row: dict[str, Any] = {"on": run.on, "runtime": run.runtime, "problem": run.failure}
    if run.vectors is None:
        return row
    finite = np.isfinite(run.vectors).all(axis=1)
    row["not_finite"] = int((~finite).sum())
    if finite.any():
        to_torch = compare(run.vectors[finite], expected[finite], "torch query model")
        row |= {
            "cosine_mean": to_torch.cosine_mean,
            "cosine_min": to_torch.cosine_min,
            "max_difference": to_torch.max_difference,
        }
    problems = [shape_problem(run.vectors, *expected.shape)]
    if not problems[0]:
        problems += [parity_problem(to_torch, precision, same_file=False), _torch_problem(row, precision)]
        if host is not None:
            to_host = compare(run.vectors, host, "host's runtime")
            row |= {"to_host_cosine_min": to_host.cosine_min, "to_host_max_difference": to_host.max_difference}
            problems.append(_host_problem(row, precision))
    return row | {"problem": "; ".join(problem for problem in problems if problem)}


def _torch_problem(row: dict[str, Any], precision: Precision) -> str:
    """By the gates of `edgecsd check`."""
    gates = DEFAULT_THRESHOLDS[precision]
    for name, least in (("cosine_mean", gates.min_cosine_mean), ("cosine_min", gates.min_cosine)):
        if not row[name] >= least:
            return f"{name} to torch {row[name]:.6f}, at least {least} is expected of {precision}"
    return ""


def _host_problem(row: dict[str, Any], precision: Precision) -> str:
    """By the tolerance of golden packs: the same tensors by the same file on another processor."""
    least, found = CLOSENESS[precision].same_file, row["to_host_cosine_min"]
    if found >= least:
        return ""
    return f"lowest cosine to the host's runtime {found:.6f}, at least {least} is expected of {precision}"


def joined(earlier: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both, with the new row where the same file was in the same place before; by backbone, file and place.

    An earlier row of another file (by its digest) of a backbone, target and precision that are new goes: figures of two
    files would stand side by side as if they were of one.
    """
    files = {_made(row): row["file"] for row in rows}
    kept = [row for row in earlier if files.get(_made(row), row.get("file")) == row.get("file")]
    every = {tuple(row[name] for name in NAMES): row for row in [*kept, *rows]}
    orders = [list(dict.fromkeys(key[place] for key in every)) for place in range(len(NAMES))]  # as they first came
    keys = sorted(every, key=lambda key: [order.index(word) for order, word in zip(orders, key, strict=True)])
    return [every[key] for key in keys]


def _made(row: dict[str, Any]) -> tuple[Any, ...]:
    """Backbone, target and precision."""
    return tuple(row[name] for name in NAMES[:3])


def text(rows: Sequence[dict[str, Any]]) -> str:
    lines = [(" ".join(row[name] for name in NAMES), *_cells(row), row["problem"]) for row in rows]
    return table((" ".join(NAMES), *COLUMNS, "problem"), lines)


def _cells(row: dict[str, Any]) -> list[str]:
    return [_cell(name, row.get(name)) for name in COLUMNS]


def _cell(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.6f}" if "cosine" in name else f"{value:.2g}"


def markdown(rows: Sequence[dict[str, Any]], photos: int) -> str:
    """The report, of the host's rows and the other places'."""
    failed = [row for row in rows if row["problem"]]
    lines = [
        "# The exported files under other runtimes",
        "",
        f"{photos} query photos of the demo through `bench_device.py` in each place: numbers, not times. "
        "cosine and `max_difference`: to the torch query model; `to_host`: to the same file in this host's runtime. "
        "mobilenetv3 and efficientnet_b0 have random weights. Written by `benchmarks/files/runtimes.py`.",
        "",
        f"{len(rows) - len(failed)} of {len(rows)} rows have parity.",
        "",
        "| place | what it is | runtimes |",
        "|---|---|---|",
    ]
    for place in dict.fromkeys(row["place"] for row in rows):
        of_place = [row for row in rows if row["place"] == place]
        runtimes = sorted({row["runtime"] for row in of_place if row["runtime"]})
        lines.append(f"| {place} | {of_place[0]['on']} | {', '.join(runtimes)} |")
    heads = (*NAMES, *COLUMNS, "parity")
    lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        verdict = f"**failed**: {row['problem']}".replace("|", "/") if row["problem"] else "ok"
        lines.append(f"| {' | '.join([*(row[name] for name in NAMES), *_cells(row), verdict])} |")
    return "\n".join(lines) + "\n"
