"""Retrieval quality of every stage and every exported file, on a labelled photo collection with disjoint splits.

    python benchmarks/quality/quality.py PHOTOS.csv --work WORK --out benchmarks/results/quality-NAME.json

PHOTOS.csv has the columns path, label, split, with the splits train (used without its labels), gallery and query.
Everything it makes stays in WORK: run it again and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environment import environment

from edgecsd.cli.console import table
from edgecsd.evaluation.relevance import make_benchmark
from edgecsd.exporting.export import export
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import size_bytes, write_json
from edgecsd.gallery.extract import extract
from edgecsd.measuring.ratio import interleaved_ratio
from edgecsd.models.embedding import embed_images, embed_store_items
from edgecsd.models.query import QueryModelEmbedder, load_query_model
from edgecsd.photos.finding import find_images
from edgecsd.progress import ConsoleReporter
from edgecsd.targets.artifact import ArtifactEmbedder, read_metadata
from edgecsd.training.distill import distill
from edgecsd.training.settings import make_config

PRECISIONS = {
    "onnx": ("fp32", "fp16", "w8a32", "w8a8"),
    "tflite": ("fp32", "fp16", "w8a32", "w8a8"),
    "coreml": ("fp32", "fp16", "w8a32", "w8a8"),
}
SUFFIX = {"onnx": "onnx", "tflite": "tflite", "coreml": "mlpackage"}
REPORTER = ConsoleReporter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for stores, run and exports")
    parser.add_argument("--out", type=Path, required=True, help="result file (JSON)")
    parser.add_argument("--gallery-model", default="timm:tf_efficientnet_lite2")
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--view-seed", type=int, default=0)
    parser.add_argument("--preprocess", type=Path, help="JSON pixel contract of the gallery model")
    parser.add_argument("--config", type=Path, help="TOML for distill")
    parser.add_argument("--run", default="run", help="name of the run folder in WORK")
    given = parser.parse_args()

    stores = {}
    for split, views in (("train", given.views), ("gallery", 0), ("query", 0)):
        stores[split] = extract(
            find_images(given.photos, split=split),
            given.gallery_model,
            given.work / split,
            views=views,
            seed=given.view_seed if views else 0,
            preprocess=given.preprocess,
            reporter=REPORTER,
        )
    run, config = given.work / given.run, make_config(given.config, {})
    stages = distill(
        find_images(given.photos, split="train"), given.work / "train", run, config=config, reporter=REPORTER
    )
    rows = model_rows(given.photos, stores, run)
    rows += artifact_rows(given.photos, stores, run, baseline=rows[-1]["mAP"])
    reference = rows[0]["mAP"]
    for row in rows:
        row["of_gallery"] = round(row["mAP"] / reference, 4)
    result = {
        "photos": given.photos.parent.name,
        "queries": stores["query"].count,
        "gallery": stores["gallery"].count,
        "train": stores["train"].count,
        "views": given.views,
        "preprocess": stores["gallery"].space.model_dump(mode="json")["preprocess"],
        "config": config.model_dump(mode="json"),
        "stages_on_held_out_photos": [vars(stage) for stage in stages.stages],
        "refit": stages.refit,
        "rows": rows,
        "cpu_time_ratios": ratios(given.photos, run),
        "environment": environment(),
    }
    write_json(given.out, result)
    keys = ("mAP", "of_gallery", "overlap@10", "relative_loss", "size_mb")
    print(table(("", *keys), [(row["name"], *(str(row.get(key, "-")) for key in keys)) for row in rows]))
    print(result["cpu_time_ratios"])
    print(f"wrote {given.out}")


def model_rows(photos: Path, stores: dict[str, FeatureStore], run: Path) -> list[dict[str, object]]:
    """The gallery model, then the query model as it starts and ends."""
    benchmark, images = make_benchmark(stores["gallery"], stores["query"]), find_images(photos, split="query")
    scores = [benchmark.score("symmetric, gallery model", stores["query"].vectors())]
    for name, folder in (("asymmetric, closed-form start", run / "closed_form"), ("asymmetric, distilled", run)):
        embedder = QueryModelEmbedder(load_query_model(folder))
        scores.append(
            benchmark.score(name, embed_store_items(images, stores["query"], embedder, name=name, reporter=REPORTER))
        )
    return [row_of(score) for score in scores]


def row_of(score: object) -> dict[str, object]:
    return {
        "name": score.name,
        "mAP": round(score.mean_average_precision, 5),
        "mP@10": round(score.precision[10], 5),
        "recall@10": round(score.recall[10], 5),
        "overlap@10": round(score.overlap[10], 5),
    }


def artifact_rows(
    photos: Path, stores: dict[str, FeatureStore], run: Path, *, baseline: float
) -> list[dict[str, object]]:
    """Every target and precision; relative_loss is that of mAP against the torch query model."""
    benchmark, images = make_benchmark(stores["gallery"], stores["query"]), find_images(photos, split="query")
    torch_vectors = embed_images(images, QueryModelEmbedder(load_query_model(run)), strict=True).vectors[:, 0]
    calibration, rows = find_images(photos, split="train"), []
    for target, precisions in PRECISIONS.items():
        for precision in precisions:
            path = exported(run, target, precision, calibration)
            vectors = embed_store_items(
                images, stores["query"], ArtifactEmbedder(path), name=path.name, reporter=REPORTER
            )
            row = row_of(benchmark.score(f"{target} {precision}", vectors))
            cosines = (vectors * torch_vectors).sum(1)
            row |= {
                "relative_loss": round(1 - row["mAP"] / baseline, 5),
                "cosine_mean": round(float(cosines.mean()), 6),
                "cosine_min": round(float(cosines.min()), 6),
                "size_mb": round(size_bytes(path) / 1e6, 3),
            }
            rows.append(row)
    return rows


def exported(run: Path, target: str, precision: str, calibration: object) -> Path:
    config = load_query_model(run).config
    path = run / "exports" / f"{config.backbone}-{precision}.{SUFFIX[target]}"
    if not path.exists() or read_metadata(path).weights_digest != config.weights_digest:
        REPORTER.message(f"exporting {path.name}")
        export(run, target, precision, out=path, calibration=calibration, overwrite=True, reporter=REPORTER)
    return path


def ratios(photos: Path, run: Path) -> dict[str, object]:
    """w8a8 against fp32: file size, and interleaved thread CPU time on one thread."""
    config, result = load_query_model(run).config, {}
    images = find_images(photos, split="query").subset(range(8))
    pixels = embed_pixels(images, config.preprocess)
    for target in ("onnx", "tflite", "coreml"):
        precision = "w8a32" if target == "coreml" else "w8a8"
        paths = [run / "exports" / f"{config.backbone}-{p}.{SUFFIX[target]}" for p in (precision, "fp32")]
        result[target] = {"precision": precision, "size": round(size_bytes(paths[0]) / size_bytes(paths[1]), 4)}
        if target != "coreml":
            measured = interleaved_ratio(paths[0], paths[1], pixels, threads=1)
            result[target] |= {
                "cpu_time": round(measured.ratio, 4),
                "low": round(measured.low, 4),
                "high": round(measured.high, 4),
                "w8a8_ms": round(measured.a_ms, 3),
                "fp32_ms": round(measured.b_ms, 3),
            }
    return result


def embed_pixels(images: object, preprocess: object) -> object:
    import numpy as np

    from edgecsd.photos.decoding import read_image

    return np.stack([preprocess.pixels(read_image(images.path(p))[0]) for p in range(len(images))])


if __name__ == "__main__":
    main()
