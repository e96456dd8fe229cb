"""What each choice of the w8a8 recipe costs in retrieval: ranges, bias correction, equalisation, how many photos.

    python benchmarks/files/recipes.py --work WORK [--photos PHOTOS.csv] [--only NAME] [--target tflite] [--out FILE]

The networks with pretrained weights, each with a head distilled on the gallery's features; the queries are those of
`export.py` (photos of both splits but the calibration photos, each searched for among the others), so that with the
same --work and --limit the runs are shared. Rows are kept in WORK: run it again and it goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from asked import Asked, numbers, retrieval
from environment import environment
from seeded.workshop import CALIBRATION, Workshop
from subjects import Subject, chosen_subjects

from edgecsd.cli.console import table
from edgecsd.exporting.export import export
from edgecsd.files.whole import read_json, write_json
from edgecsd.models.query import QueryModelEmbedder, load_query_model
from edgecsd.photos.finding import find_images
from edgecsd.progress import ConsoleReporter
from edgecsd.quantisation.precisions import EightBit
from edgecsd.targets.artifact import ArtifactEmbedder, parse_target
from edgecsd.targets.metadata import Target

MANY = 4 * CALIBRATION
RECIPES: dict[str, tuple[EightBit, int]] = {
    "as it is by default": (EightBit(), CALIBRATION),
    "percentile 99.5": (EightBit(99.5), CALIBRATION),
    "percentile 99.9": (EightBit(99.9), CALIBRATION),
    "no cut": (EightBit(100.0), CALIBRATION),
    "without bias correction": (EightBit(bias_correction=False), CALIBRATION),
    "equalised": (EightBit(equalisation=True), CALIBRATION),
    "equalised, percentile 99.9": (EightBit(99.9, equalisation=True), CALIBRATION),
    f"{MANY} calibration photos": (EightBit(), MANY),
}
COLUMNS = ("cosine_mean", "cosine_min", "mAP_loss", "overlap_loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made")
    parser.add_argument("--photos", type=Path, help="CSV list with the splits gallery and query (default: the demo's)")
    parser.add_argument("--limit", type=int, default=2000, help="queries at most")
    parser.add_argument("--only", nargs="+", default=[], help="only backbones whose name holds one of these words")
    parser.add_argument("--target", choices=("onnx", "tflite"), default="tflite")
    parser.add_argument("--out", type=Path, help="result file (JSON); a table is written beside it as .md")
    given = parser.parse_args()

    workshop = Workshop(given.work, given.photos, given.limit, ConsoleReporter())
    asked = Asked(workshop, given.limit, f"{given.limit}-queries", calibrating=MANY)
    subjects = [subject for subject in chosen_subjects(given.only) if subject.pretrained]
    rows = [row for subject in subjects for row in measured(workshop, subject, parse_target(given.target), asked)]
    print(table(("", *COLUMNS), [(f"{row['backbone']}, {row['recipe']}", *cells(row)) for row in rows]))
    if given.out is not None:
        photos = "the demo's" if given.photos is None else given.photos.resolve().parent.name
        how = {"photos": photos, "queries": len(asked.photos), "gallery": workshop.gallery.count, **environment()}
        write_json(given.out, {"rows": rows, "measured": how})
        given.out.with_suffix(".md").write_text(markdown(rows, how))
        print(f"wrote {given.out}")


def measured(workshop: Workshop, subject: Subject, target: Target, asked: Asked) -> list[dict[str, Any]]:
    """A row a recipe, against the torch model."""
    run = subject.run(workshop)
    reference: np.ndarray | None = None
    rows: list[dict[str, Any]] = []
    for name, (how, count) in RECIPES.items():
        kept = workshop.path("recipes", f"{subject.name} {target} {name}.json")
        if not kept.exists():
            if reference is None:
                reference = asked.embed(QueryModelEmbedder(load_query_model(run)), subject.name)
            workshop.reporter.message(f"{subject.name} {target} {name}")
            file = kept.with_suffix(target.suffix)
            export(
                run,
                target,
                "w8a8",
                out=file,
                calibration=find_images(workshop.calibration_photos(count)),
                calibration_count=count,
                how=how,
                overwrite=True,
            )
            vectors = asked.embed(ArtifactEmbedder(file), name)
            figures = {**numbers(vectors, reference), **retrieval(asked.benchmark, vectors, reference)}
            write_json(kept, {"backbone": subject.name, "target": str(target), "recipe": name, **figures})
        rows.append(read_json(kept))
    return rows


def cells(row: dict[str, Any]) -> list[str]:
    cosines = [f"{row[name]:.4f}" for name in COLUMNS[:2]]
    return cosines + [f"{row[n]:.2%} [{row[f'{n}_low']:.2%}, {row[f'{n}_high']:.2%}]" for n in COLUMNS[2:]]


def markdown(rows: list[dict[str, Any]], how: dict[str, Any]) -> str:
    lines = [
        "# What each choice of the w8a8 recipe costs",
        "",
        f"{rows[0]['target']}; photos of {how['photos']}: {how['queries']} queries, gallery of {how['gallery']}, each "
        "searched for among the others; losses are relative to the torch model, with the 95 % interval of the paired "
        f"bootstrap. {how['date'][:10]}, commit {how['commit']}. Written by `benchmarks/files/recipes.py`.",
        "",
        "| backbone | recipe | cosine, mean | lowest | mAP lost | overlap@10 lost |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {row['backbone']} | {row['recipe']} | {' | '.join(cells(row))} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
