"""What the programs in export/ deliver, measured: runs each on the demo's run and writes the table of export/README.md.

    make demo && python benchmarks/files/deliveries.py [--demo demo-output] [--only web]

The demo's query photos, which neither trained nor calibrated, are searched in its gallery index. A delivery that is in
--work already is not made again. Also written: benchmarks/results/deliveries.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment

from edgecsd.demo.demo import split_photos
from edgecsd.demo.photos import food_photos
from edgecsd.files.whole import read_json, replace_whole, write_json
from edgecsd.photos.images import ImageSet

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parents[1] / "results" / "deliveries.json"
README = ROOT / "export" / "README.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PROGRAMS = ("android", "ios", "web", "raspberry_pi", "server")
MISTAKES = {
    "EXIF orientation ignored": "EXIF skipped",
    "channels swapped (BGR for RGB)": "BGR for RGB",
    "resized without antialias, bilinear": "no antialias",
    "resized with another filter: lanczos": "lanczos",
}


def copied(photos: ImageSet, folder: Path) -> Path:
    """The photos as files of one folder, which the programs take."""
    if not folder.exists():
        with replace_whole(folder) as made:
            for position, item in enumerate(photos.ids):
                (made / item).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(photos.path(position), made / item)
    return folder


def delivered(program: str, demo: Path, run: Path, work: Path) -> dict[str, Any]:
    """The row of one program; it runs unless its folder is there."""
    gallery, queries = split_photos(food_photos())
    images, calibration = copied(queries, work / "queries"), copied(gallery, work / "gallery")
    out = work / program
    if not out.exists():
        command = [
            sys.executable,
            str(ROOT / "export" / f"{program}.py"),
            str(run),
            "--index",
            str(demo / "gallery.index"),
            "--images",
            str(images),
            "--calibration",
            str(calibration),
            "--reference",
            str(demo / "query.store"),
            "--out",
            str(out),
        ]
        subprocess.run(command, check=True)
    return row_of(program, out)


def row_of(program: str, folder: Path) -> dict[str, Any]:
    """The figures that stand in the folder's own files."""
    checked = read_json(folder / "check.json")
    measured = json.loads((folder / "bench.jsonl").read_text().splitlines()[-1])
    pack = read_json(folder / "golden" / "golden.json")
    by_name = {link["link"]: link["figures"] for link in checked["links"]}
    costs = pack["costs"] or {"mistakes": []}
    return {
        "program": program,
        "target": measured["target"],
        "precision": measured["precision"],
        "size_bytes": measured["size_bytes"],
        "photos": checked["images"],
        "k": checked["k"],
        "cosine_mean": checked["figures"]["cosine_mean"],
        "cosine_min": checked["figures"]["cosine_min"],
        "overlap": checked["links"][-1]["figures"]["overlap"],
        "overlap_torch": by_name["query model"]["overlap"],
        "recall_1": checked["links"][-1]["figures"]["recall_1"],
        "latency": measured["figures"],
        "label": measured["label"],
        "contended": measured["contended"],
        "status": measured["status"],
        "costs": {cost["name"]: cost for cost in costs["mistakes"]},
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| program | file | MB | cosine to torch, mean (lowest) | overlap@10 (95 %) | of the torch model "
        "| p50, p90 ms, 1 thread | measured on |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        timed = row["latency"]
        latency = "not measurable" if timed is None else f"{timed['p50_ms']:.1f}, {timed['p90_ms']:.1f}"
        busy = f" (busy: {timed['cpu_p50_ms']:.1f} of it CPU time)" if timed and row["contended"] else ""
        where = row["label"] if timed else "Core ML runs on Apple's systems: edgecsd bench script"
        lines.append(
            f"| `{row['program']}.py` | {row['target']}, {row['precision']} | {row['size_bytes'] / 1e6:.2f} "
            f"| {row['cosine_mean']:.4f} ({row['cosine_min']:.4f}) | {_spread(row['overlap'])} "
            f"| {row['overlap_torch']['mean']:.3f} | {latency}{busy} | {where} |"
        )
    return lines


def cost_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [f"| program | {' | '.join(MISTAKES.values())} |", f"|---{'|---' * len(MISTAKES)}|"]
    for row in rows:
        if row["costs"]:
            cells = (_cost(row["costs"].get(name)) for name in MISTAKES)
            lines.append(f"| `{row['program']}.py` | {' | '.join(cells)} |")
    return lines


def _cost(cost: dict[str, Any] | None) -> str:
    if cost is None:
        return "changes nothing"
    low, high = cost["recall_interval"]
    return f"{cost['recall_lost']:.1f} [{low:.1f}, {high:.1f}]; {cost['overlap_lost']:.1f}"


def _spread(interval: dict[str, float]) -> str:
    return f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def text(rows: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    photos = rows[0]["photos"]
    return "\n".join(
        [
            BEGIN,
            "",
            f"Written by `benchmarks/files/deliveries.py` from real deliveries of the demo's run (EfficientNet-Lite0, "
            f"{photos} query photos); {facts['cpu']}, commit {facts['commit']}, {facts['date'][:10]}. Times are of "
            "that host, not of a phone: add a device's with `edgecsd bench FILE --device ...`.",
            "",
            *table(rows),
            "",
            "What wrong pixels cost each file, from its golden pack: points of recall@1 lost of 100 (95 % interval); "
            "points of overlap@10. The pack's README has all of them.",
            "",
            *cost_table(rows),
            "",
            END,
        ]
    )


def write_readme(measured: str) -> None:
    """Put the tables between the two marks of export/README.md."""
    before, _, rest = README.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(before + measured + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo-output"), help="what make demo wrote")
    parser.add_argument("--query-model", default="tf_efficientnet_lite0")
    parser.add_argument("--work", type=Path, default=Path("deliveries"), help="folder for the deliveries")
    parser.add_argument("--only", choices=PROGRAMS, nargs="+", default=list(PROGRAMS))
    given = parser.parse_args()
    run = given.demo / given.query_model / "run"
    if not (run / "query_model.json").is_file():
        parser.error(f"{run}: no run there; make demo first, or give --demo")
    given.work.mkdir(parents=True, exist_ok=True)
    rows = [delivered(program, given.demo, run, given.work) for program in given.only]
    facts = environment()
    write_json(RESULTS, {"rows": rows, "environment": facts})
    measured = text(rows, facts)
    write_readme(measured)
    print(measured)


if __name__ == "__main__":
    main()
