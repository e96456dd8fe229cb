"""Every export of four backbones, beside what the plain converters give with their defaults, in one run.

    python benchmarks/files/export.py --work WORK [--photos PHOTOS.csv] [--only NAME] [--out FILE.json]

Lite0 and MobileNetV2 have pretrained weights and a distilled head: what an export costs is told in retrieval (mAP and
overlap@10 in the gallery model's features). MobileNetV3-Large and EfficientNet-B0 have weights at random with
batch-norm statistics from photos, which makes them amplify every rounding: only their numbers are told.
The peers: onnxruntime's quantize_static, ai-edge-quantizer's stock static recipe (as it is, and with pooling and L2
left in float, without which its files do not run) and coremltools' linear weight quantisation, each with its defaults
and the same calibration photos, on the same exported float network. The queries are photos of both splits but those
that calibrate, each searched for among the gallery's others. A time is the ratio of thread CPU time, theirs to
ours, interleaved; Core ML runs on Apple's systems only and has none. Rows are kept in WORK: run it again and it goes
on. With --only, --out keeps the rows of the other backbones.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from asked import Asked, numbers, retrieval
from environment import environment
from peers import PEERS
from seeded.workshop import Workshop
from subjects import PRECISIONS, SUBJECTS, Subject, chosen_subjects

from edgecsd.cli.console import table
from edgecsd.errors import EdgecsdError
from edgecsd.files.whole import read_json, size_bytes, write_json
from edgecsd.measuring.ratio import interleaved_ratio
from edgecsd.models.query import QueryModelEmbedder, load_query_model
from edgecsd.progress import ConsoleReporter
from edgecsd.targets.artifact import ArtifactEmbedder
from edgecsd.targets.metadata import Target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made")
    parser.add_argument("--photos", type=Path, help="CSV list with the splits gallery and query (default: the demo's)")
    parser.add_argument("--limit", type=int, default=1000, help="queries at most")
    parser.add_argument(
        "--few",
        type=int,
        default=200,
        help="queries at most of Core ML files, which the reference evaluator computes slowly, and of networks "
        "with weights at random",
    )
    parser.add_argument("--only", nargs="+", default=[], help="only backbones whose name holds one of these words")
    parser.add_argument("--out", type=Path, help="result file (JSON); a table is written beside it as .md")
    given = parser.parse_args()

    workshop = Workshop(given.work, given.photos, given.limit, ConsoleReporter())
    many, few = (Asked(workshop, limit, f"{limit}-queries") for limit in (given.limit, given.few))
    rows: list[dict[str, Any]] = []
    for subject in chosen_subjects(given.only):
        rows += measured(workshop, subject, many if subject.pretrained else few, few)
    print(_text(rows))
    if given.out is not None:
        name = "the demo's" if given.photos is None else given.photos.resolve().parent.name
        photos = {
            "of": name,
            "gallery": workshop.gallery.count,
            "queries": len(many.photos),
            "few_queries": len(few.photos),
        }
        _write(given.out, rows, {"photos": photos, **environment()})
        print(f"wrote {given.out}")


def _write(out: Path, rows: list[dict[str, Any]], how: dict[str, Any]) -> None:
    """The result file and its table. Backbones that were not measured now keep their rows, and how they were made."""
    earlier = read_json(out) if out.exists() else {"rows": [], "measured": {}}
    now = {row["backbone"] for row in rows}
    every = [*rows, *(row for row in earlier["rows"] if row["backbone"] not in now)]
    places = [subject.name for subject in SUBJECTS]
    every.sort(key=lambda row: places.index(row["backbone"]))
    measured_how = {**earlier["measured"], **dict.fromkeys(now, how)}
    write_json(out, {"rows": every, "measured": measured_how})
    out.with_suffix(".md").write_text(_markdown(every, measured_how))


class Compared:
    """Queries, and what the torch model of a run makes of them, once that is asked for."""

    def __init__(self, queries: Asked, run: Path) -> None:
        self.queries, self._run = queries, run

    @cached_property
    def reference(self) -> np.ndarray:
        """(Q, D)."""
        return self.queries.embed(QueryModelEmbedder(load_query_model(self._run)), "torch model")


def measured(workshop: Workshop, subject: Subject, asked: Asked, few: Asked) -> list[dict[str, Any]]:
    """Our exports of one backbone, then the peers', each against the torch model; Core ML's by `few` queries."""
    run = subject.run(workshop)
    of_most, of_few = Compared(asked, run), Compared(few, run)
    rows = []
    for target in (Target.ONNX, Target.TFLITE, Target.COREML):  # Core AI's runtime here takes seconds an image
        compared = of_few if target is Target.COREML else of_most
        ours: dict[str, Path] = {}
        for precision in PRECISIONS:
            file = subject.file(workshop, target, precision)

            def make(out: Path, target: Target = target, precision: str = precision) -> None:
                subject.export(workshop, target, precision, out)

            row = _row(workshop, subject, target, precision, "edgecsd", file, make, compared)
            if file.exists():
                ours[precision] = file
                row["of_fp32"] = round(size_bytes(file) / size_bytes(ours["fp32"]), 4)
            rows.append(row)
        for peer in PEERS:
            if peer.target is not target or peer.precision not in ours:
                continue
            file = workshop.path("peers", f"{subject.name}-{peer.name}{target.suffix}")

            def convert(out: Path, make: Any = peer.make, like: Path = ours[peer.precision]) -> None:
                make(load_query_model(run), out, like, workshop.calibration())

            row = _row(workshop, subject, target, peer.precision, peer.name, file, convert, compared)
            if file.exists():
                row["of_fp32"] = round(size_bytes(file) / size_bytes(ours["fp32"]), 4)
                row["size_to_ours"] = round(size_bytes(file) / size_bytes(ours[peer.precision]), 3)
                row |= _time(workshop, subject, file, ours[peer.precision], target)
            rows.append(row)
    return rows


def _row(
    workshop: Workshop,
    subject: Subject,
    target: Target,
    precision: str,
    by: str,
    file: Path,
    make: Callable[[Path], None],
    compared: Compared,
) -> dict[str, Any]:
    """Size, numbers and retrieval of a file, made if it is not there; why there is none where it cannot be made."""
    kept = workshop.path("rows", f"{subject.name} {target} {precision} {by}.json")
    if kept.exists() and file.exists():
        row: dict[str, Any] = json.loads(kept.read_text())
        return row
    row = {"backbone": subject.name, "target": str(target), "precision": precision, "by": by}
    workshop.reporter.message(" ".join(row.values()))
    try:
        if not file.exists():
            make(file)
        vectors = compared.queries.embed(ArtifactEmbedder(file), file.name)
    except EdgecsdError as error:
        return {**row, "failed": str(error).splitlines()[0][:300]}
    except Exception as error:  # a peer may raise anything
        return {**row, "failed": f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"}
    row |= {"queries": len(vectors), "size_mb": round(size_bytes(file) / 1e6, 3)}
    row |= numbers(vectors, compared.reference)
    if subject.pretrained:
        row |= retrieval(compared.queries.benchmark, vectors, compared.reference)
    write_json(kept, row)
    return row


def _time(workshop: Workshop, subject: Subject, theirs: Path, ours: Path, target: Target) -> dict[str, Any]:
    kept = workshop.path("rows", f"time {subject.name} {theirs.name}.json")
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    if target is Target.COREML:
        return {}
    try:
        ratio = interleaved_ratio(theirs, ours, workshop.calibration(8))
    except EdgecsdError as error:
        return {"time_failed": str(error).splitlines()[0].replace(str(theirs), theirs.name)[:300]}
    found = {"time_to_ours": round(ratio.ratio, 3), "time_low": round(ratio.low, 3), "time_high": round(ratio.high, 3)}
    write_json(kept, found)
    return found


COLUMNS = (
    "queries",
    "size_mb",
    "of_fp32",
    "cosine_mean",
    "cosine_min",
    "max_difference",
    "not_finite",
    "mAP_loss",
    "overlap_loss",
    "size_to_ours",
    "time_to_ours",
)


def _cells(row: dict[str, Any]) -> list[str]:
    if "failed" in row:
        return [row["failed"], *[""] * (len(COLUMNS) - 1)]
    return [_cell(row, name) for name in COLUMNS]


def _cell(row: dict[str, Any], name: str) -> str:
    """A figure, with its interval where it has one."""
    low = row.get(f"{name}_low", row.get("time_low") if name == "time_to_ours" else None)
    high = row.get(f"{name}_high", row.get("time_high") if name == "time_to_ours" else None)
    told = f"{row[name]:.4g}" if isinstance(row.get(name), float) else str(row.get(name, ""))
    return told if low is None or not told else f"{told} [{low:.4g}, {high:.4g}]"


def _text(rows: list[dict[str, Any]]) -> str:
    names = ("backbone", "target", "precision", "by")
    return table((" ".join(names), *COLUMNS), [(" ".join(row[n] for n in names), *_cells(row)) for row in rows])


def _markdown(rows: list[dict[str, Any]], how: dict[str, dict[str, Any]]) -> str:
    lines = [
        "# Exports, and what the plain converters give",
        "",
        "Losses are relative to the torch query model, with the 95 % interval of the paired bootstrap; mobilenetv3 and "
        "efficientnet_b0 have random weights and no retrieval. 64 calibration photos. `of_fp32`: size by the fp32 "
        "file's; `size_to_ours`, `time_to_ours`: the peer's by ours. Queries are photos of the gallery and others, but "
        "those that calibrate, each searched for among the rest. Written by `benchmarks/files/export.py`.",
        "",
    ]
    for name in dict.fromkeys(row["backbone"] for row in rows):
        made, photos = how[name], how[name]["photos"]
        lines.append(
            f"- {name}: photos of {photos['of']}, gallery of {photos['gallery']}; {made['date'][:10]}, commit "
            f"{made['commit']}, {made['cpu']}"
        )
    head = ("backbone", "target", "precision", "by", *COLUMNS)
    lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        head = [row[name] for name in ("backbone", "target", "precision", "by")]
        lines.append("| " + " | ".join([*head, *(cell.replace("|", "/") for cell in _cells(row))]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
