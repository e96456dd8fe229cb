"""demo: the main job on real photos, start to end, as a list of the library's own steps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgecsd.checking.check import check
from edgecsd.demo.photos import food_photos, mobilenet_weights
from edgecsd.errors import BadInputError
from edgecsd.evaluation.benchmark import Benchmark, RetrievalFigures
from edgecsd.evaluation.ranking import rank
from edgecsd.evaluation.relevance import make_benchmark
from edgecsd.exporting.export import export
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import size_bytes, write_json
from edgecsd.gallery.extract import extract
from edgecsd.gate.verdict import CheckResult
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.measuring.bench import bench
from edgecsd.measuring.schema import BenchRow
from edgecsd.models.backbones import create_backbone, to_input
from edgecsd.models.embedding import embed_store_items
from edgecsd.models.query import QueryModelEmbedder, load_query_model
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.images import ImageSet
from edgecsd.progress import SILENT, Reporter
from edgecsd.report.drawing.picture import Retrieved, retrieval_picture
from edgecsd.targets.artifact import ArtifactEmbedder, read_metadata
from edgecsd.training.choices import HeldOutBy
from edgecsd.training.distill import distill
from edgecsd.training.settings import DistillConfig

GALLERY_MODEL = "timm:tf_efficientnet_lite2"
QUERY_MODELS = ("tf_efficientnet_lite0", "mobilenetv2_100")
VIEWS = 3
QUERY_SHARE = 0.2  # of the photos; the others are the gallery, and what the query model is distilled on
FEWEST_PHOTOS = 60
EXPORTS = (
    ("onnx", "fp32"),
    ("onnx", "w8a8"),
    ("tflite", "fp32"),
    ("tflite", "fp16"),
    ("tflite", "w8a8"),
    ("coreml", "fp16"),
)
PICTURE_ROWS, PICTURE_DEPTH = 8, 5
BENCH_SECONDS = 3.0  # an artifact; `edgecsd bench` by itself measures longer
OVERLAP_K = 10


@dataclass(frozen=True)
class DemoRow:
    """A line of the demo's table; what does not apply is None."""

    name: str
    mean_average_precision: float
    overlap: float
    overlap_error: float
    size_mb: float | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    cosine: float | None = None
    passed: bool | None = None


@dataclass(frozen=True)
class DemoResult:
    """The table, the picture, and what the figures mean."""

    rows: tuple[DemoRow, ...]
    picture: Path
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"rows": [vars(row) for row in self.rows], "picture": str(self.picture), "notes": list(self.notes)}


def demo(
    out: Path, *, images: ImageSet | None = None, query_model: str = QUERY_MODELS[0], reporter: Reporter = SILENT
) -> DemoResult:
    """Extract, distil, export, check and measure; everything lands under `out`. Run again, it goes on."""
    if query_model not in QUERY_MODELS:
        raise BadInputError(
            f"`query_model` {query_model}: the demo has weights for {' and '.join(QUERY_MODELS)}; "
            "use edgecsd distill for others"
        )
    weights = mobilenet_weights() if query_model == "mobilenetv2_100" else None
    photos = images or food_photos()
    gallery_photos, query_photos = split_photos(photos)
    folder = out / query_model
    reporter.message(f"{len(gallery_photos)} gallery photos, {len(query_photos)} query photos in {photos.root}")

    gallery = extract(gallery_photos, GALLERY_MODEL, out / "gallery.store", views=VIEWS, reporter=reporter)
    queries = extract(query_photos, GALLERY_MODEL, out / "query.store", reporter=reporter)
    index = _index(gallery, out / "gallery.index", reporter)
    # The queries are like the gallery, and the gallery is what is trained on: no kind of photo is new
    config = DistillConfig(query_model=query_model, weights=weights, held_out_by=HeldOutBy.PHOTOS)
    distill(gallery_photos, gallery.path, folder / "run", config=config, reporter=reporter)
    artifacts = [_export(folder / "run", target, precision, gallery_photos, reporter) for target, precision in EXPORTS]

    benchmark = make_benchmark(gallery, queries)
    rows = _model_rows(benchmark, gallery, queries, gallery_photos, query_photos, config, folder / "run", reporter)
    checks = [
        check(a, index.path, query_photos, run=folder / "run", reference=queries.path, reporter=reporter)
        for a in artifacts
    ]
    measured = bench(
        artifacts,
        images=query_photos,
        run=folder / "run",
        threads=(1,),
        min_seconds=BENCH_SECONDS,
        out=folder / "bench.jsonl",
        reporter=reporter,
    )
    by_file = {row.file: row for row in measured.rows}
    for artifact, checked in zip(artifacts, checks, strict=True):
        rows.append(_artifact_row(artifact, checked, by_file[str(artifact)], benchmark, queries, query_photos))
    picture = folder / "retrieved.png"
    _picture(
        picture,
        next(a for a in reversed(artifacts) if "w8a8" in a.name),
        benchmark,
        gallery,
        queries,
        gallery_photos,
        query_photos,
    )
    result = DemoResult(tuple(rows), picture, _notes(benchmark, queries.count, gallery.count))
    write_json(folder / "result.json", result.as_dict())
    return result


def split_photos(photos: ImageSet) -> tuple[ImageSet, ImageSet]:
    """(gallery, queries): a fifth become queries, chosen by the hash of their bytes, so that copies stay together."""
    if len(photos) < FEWEST_PHOTOS:
        raise BadInputError(
            f"{photos.root}: {len(photos)} photos are too few for the demo; at least {FEWEST_PHOTOS} are needed"
        )
    keys = [hashlib.sha256(b"query" + photos.path(p).read_bytes()).hexdigest() for p in range(len(photos))]
    bound = sorted(set(keys))[round(QUERY_SHARE * len(set(keys)))]
    chosen = [p for p, key in enumerate(keys) if key < bound]
    return photos.subset(sorted(set(range(len(photos))) - set(chosen))), photos.subset(chosen)


def _index(gallery: FeatureStore, path: Path, reporter: Reporter) -> GalleryIndex:
    return build_index(gallery, path, overwrite=True, reporter=reporter)


def _export(run: Path, target: str, precision: str, calibration: ImageSet, reporter: Reporter) -> Path:
    """The artifact of an earlier demo if it was made of these weights, else a new one."""
    config = load_query_model(run).config
    suffix = {"onnx": "onnx", "tflite": "tflite", "coreml": "mlpackage"}[target]
    path = run / "exports" / f"{config.backbone}-{precision}.{suffix}"
    if path.exists() and read_metadata(path).weights_digest == config.weights_digest:
        return path
    reporter.message(f"exporting {path.name}")
    return export(run, target, precision, out=path, calibration=calibration, overwrite=True, reporter=reporter).path


class _UntrainedEmbedder:
    """The query backbone as it comes: pooled features, made as wide as the gallery's by a fixed random projection."""

    def __init__(self, config: DistillConfig, preprocess: Preprocess, dim: int | None) -> None:
        backbone = create_backbone(config.query_model, weights=config.weights)
        self.preprocess, self._network = preprocess, backbone.network
        probe = self._pooled(np.zeros((1, preprocess.size, preprocess.size, 3), np.uint8))
        width = probe.shape[1]
        self.dim = dim or width
        self._projection = (
            None
            if self.dim == width
            else np.random.default_rng(0).standard_normal((width, self.dim)).astype(np.float32)
        )

    def _pooled(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            pooled: NDArray[np.float32] = self._network(to_input(pixels, self.preprocess)).numpy()
        return pooled

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors = self._pooled(pixels)
        if self._projection is not None:
            vectors = vectors @ self._projection
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _model_rows(
    benchmark: Benchmark,
    gallery: FeatureStore,
    queries: FeatureStore,
    gallery_photos: ImageSet,
    query_photos: ImageSet,
    config: DistillConfig,
    run: Path,
    reporter: Reporter,
) -> list[DemoRow]:
    model = load_query_model(run)
    before = _UntrainedEmbedder(config, model.config.preprocess, gallery.space.dim)
    before_queries = embed_store_items(query_photos, queries, before, name="before: queries", reporter=reporter)
    before_gallery = embed_store_items(gallery_photos, gallery, before, name="before: gallery", reporter=reporter)
    start = QueryModelEmbedder(load_query_model(run / "closed_form"))
    after = QueryModelEmbedder(model)
    scores = [
        benchmark.score("symmetric, gallery model", queries.vectors()),
        benchmark.score("symmetric, query model before", before_queries, before_gallery),
        benchmark.score("asymmetric, before", before_queries),
        benchmark.score(
            "asymmetric, closed-form start",
            embed_store_items(query_photos, queries, start, name="closed-form start", reporter=reporter),
        ),
        benchmark.score(
            "asymmetric, distilled",
            embed_store_items(query_photos, queries, after, name="distilled", reporter=reporter),
        ),
    ]
    return [_row(score) for score in scores]


def _row(score: RetrievalFigures) -> DemoRow:
    k = OVERLAP_K
    return DemoRow(score.name, score.mean_average_precision, score.overlap[k], score.overlap_error[k])


def _artifact_row(
    artifact: Path,
    checked: CheckResult,
    measured: BenchRow,
    benchmark: Benchmark,
    queries: FeatureStore,
    query_photos: ImageSet,
) -> DemoRow:
    embedded = embed_store_items(query_photos, queries, ArtifactEmbedder(artifact), name=artifact.name)
    score = benchmark.score(artifact.name, embedded)
    figures = measured.figures
    return DemoRow(
        artifact.name,
        score.mean_average_precision,
        checked.figures["overlap"],
        score.overlap_error[OVERLAP_K],
        size_bytes(artifact) / 1e6,
        figures.p50_ms if figures else None,
        figures.p90_ms if figures else None,
        checked.figures["cosine_mean"],
        checked.passed,
    )


def _picture(
    path: Path,
    artifact: Path,
    benchmark: Benchmark,
    gallery: FeatureStore,
    queries: FeatureStore,
    gallery_photos: ImageSet,
    query_photos: ImageSet,
) -> None:
    exported = embed_store_items(query_photos, queries, ArtifactEmbedder(artifact), name="picture")
    found = rank(exported, benchmark.gallery)[:, :PICTURE_DEPTH]
    own = benchmark.own_ranking[:, :PICTURE_DEPTH]
    chosen = np.linspace(0, queries.count - 1, min(PICTURE_ROWS, queries.count)).round().astype(int)
    rows = [
        Retrieved(
            query_photos.root / queries.items.ids[q],
            [gallery_photos.root / gallery.items.ids[row] for row in own[q]],
            [gallery_photos.root / gallery.items.ids[row] for row in found[q]],
        )
        for q in chosen
    ]
    retrieval_picture(rows, path, title="What is found in the gallery", query_model=artifact.name)


def _notes(benchmark: Benchmark, queries: int, gallery: int) -> tuple[str, ...]:
    return (
        f"{queries} queries, gallery of {gallery}; {benchmark.described}",
        f"overlap@{OVERLAP_K}: share of the gallery model's own first {OVERLAP_K} that were found, with its standard "
        "error: rows nearer than that are a tie; cosine: to the torch query model",
        "latency: one thread, batch 1, host CPU, not a phone; Core ML runs on Apple's systems only, "
        "its embeddings here are reference semantics",
    )
