"""Sound variations that a gate must let pass: a false alarm costs a team its trust in the gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from seeded.broken_indexes import whitened
from seeded.case import Case
from seeded.workshop import Pair, Workshop, items_of

from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import replace_whole
from edgecsd.gallery.extract import extract
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet


def _file(target: str, precision: str, **options: Any) -> Callable[[Workshop], Pair]:
    return lambda workshop: workshop.pair(workshop.file(target, precision, **options))


def _run(name: str, precision: str = "fp16", target: str = "onnx", **settings: Any) -> Callable[[Workshop], Pair]:
    def make(workshop: Workshop) -> Pair:
        run = workshop.run(name, **settings)
        return workshop.pair(workshop.file(target, precision, run), run=run)

    return make


def _mobilenet(precision: str) -> Callable[[Workshop], Pair]:
    def make(workshop: Workshop) -> Pair:
        run = workshop.mobilenet_run
        return workshop.pair(workshop.file("tflite", precision, run), run=run)

    return make


def _index(name: str, **options: Any) -> Callable[[Workshop], Pair]:
    return lambda workshop: workshop.pair(workshop.file("onnx", "w8a8"), workshop.index(name, **options))


def _half(first: int) -> Callable[[Workshop], Pair]:
    def make(workshop: Workshop) -> Pair:
        photos = workshop.query_photos
        return workshop.pair(workshop.file("tflite", "w8a8"), images=photos.subset(list(range(first, len(photos), 2))))

    return make


def _saved_as(workshop: Workshop, name: str, save: Callable[[Image.Image, Path], Path]) -> ImageSet:
    folder = workshop.path(name)
    if not folder.exists():
        with replace_whole(folder) as temporary:
            for position, item in enumerate(workshop.query_photos.ids):
                out = temporary / item
                out.parent.mkdir(parents=True, exist_ok=True)
                save(workshop.query_photos.read(position).image, out)
    return find_images(folder)


def _png(photo: Image.Image, out: Path) -> Path:
    photo.save(out.with_suffix(".png"))
    return out


def _compressed(photo: Image.Image, out: Path) -> Path:
    photo.save(out.with_suffix(".jpg"), quality=60)
    return out


def _gallery_of(name: str, rows: Callable[[int], np.ndarray], **store: Any) -> Callable[[Workshop], Pair]:
    """Another gallery: some rows of it, in this order."""

    def make(workshop: Workshop) -> Pair:
        chosen = rows(workshop.gallery.count)
        items = items_of(workshop.gallery, chosen.tolist())
        made = workshop.store(name, workshop.gallery.vectors()[chosen], items=items, **store)
        return workshop.pair(workshop.file("tflite", "fp16"), workshop.index(name, made), gallery=made.path)

    return make


def _with_queries_inside(workshop: Workshop) -> Pair:
    """Query photos that are in the gallery under their own ids: each is left out of what it finds."""
    both = workshop.gallery_photos.ids + workshop.query_photos.ids
    labels = (workshop.gallery_photos.labels or ()) + (workshop.query_photos.labels or ())
    images = ImageSet(workshop.gallery_photos.root, both, labels if len(labels) == len(both) else None)
    store = extract(images, workshop.gallery_model, workshop.path("both.store"), reporter=workshop.reporter)
    return workshop.pair(index=workshop.index("both", store), gallery=store.path)


def _whitened(workshop: Workshop) -> Pair:
    """Gallery and query model in one whitened space."""
    store = whitened(workshop)
    run = workshop.run("whitened", store)
    references = _whitened_queries(workshop, store)
    return workshop.pair(
        workshop.file("onnx", "fp16", run),
        workshop.index("whitened", store),
        run=run,
        gallery=store.path,
        reference=references.path,
    )


def _whitened_queries(workshop: Workshop, learnt_on: FeatureStore) -> FeatureStore:
    from edgecsd.gallery.whiten import whiten

    out = workshop.path("whitened-query.store")
    if out.exists():
        return FeatureStore.open(out)
    return whiten(workshop.queries.path, out, learnt_on=learnt_on.path)


def _device(target: str, precision: str, by: tuple[str, str]) -> Callable[[Workshop], Pair]:
    """A device whose runtime computes the same network otherwise."""

    def make(workshop: Workshop) -> Pair:
        from edgecsd.targets.artifact import ArtifactEmbedder

        other, photos = ArtifactEmbedder(workshop.file(*by)), workshop.query_photos
        made = [other.embed(workshop.contract.pixels(photos.read(p).image)[None]) for p in range(len(photos))]
        name = f"{target}-{precision}-by-{'-'.join(by)}"
        return workshop.pair(workshop.file(target, precision), device=workshop.sent(name, np.concatenate(made)))

    return make


def _another_decoder(workshop: Workshop) -> Pair:
    """A JPEG decoder that rounds otherwise: one value in ten of the photo, before the resize, by one level."""
    random, photos = np.random.default_rng(0), workshop.query_photos
    made = []
    for position in range(len(photos)):
        decoded = np.asarray(photos.read(position).image).astype(np.int16)
        changes = random.choice([-1, 1], decoded.shape) * (random.random(decoded.shape) < 0.1)
        other = (decoded + changes).clip(0, 255).astype(np.uint8)
        made.append(workshop.contract.pixels(Image.fromarray(other)))
    return workshop.pair(device=workshop.device("decoder", made))


def _earlier_query_photos(workshop: Workshop) -> Pair:
    """With features of the queries that were extracted once, as a team does in CI."""
    return workshop.pair(workshop.file("onnx", "w8a8"), reference=workshop.queries.path)


def _bare(workshop: Workshop) -> Pair:
    """Only what must be given: no store, no gallery photos."""
    made = workshop.pair(workshop.file("tflite", "w8a8"))
    return replace(made, options=type(made.options)())


def _index_without_store(workshop: Workshop) -> Pair:
    made = workshop.pair(workshop.file("onnx", "fp16"), workshop.index("ivf-bare", type="ivf", nprobe=8))
    return replace(made, options=type(made.options)())


def _rows_reversed(count: int) -> np.ndarray:
    return np.arange(count)[::-1].copy()


def _third(count: int) -> np.ndarray:
    return np.arange(0, count, 3)


CASES = tuple(
    Case(name, group, make)
    for name, group, make in (
        ("ONNX fp32", "export", _file("onnx", "fp32")),
        ("ONNX fp16", "export", _file("onnx", "fp16")),
        ("ONNX w8a32", "export", _file("onnx", "w8a32")),
        ("ONNX w8a8", "export", _file("onnx", "w8a8")),
        ("onnxruntime's own format", "export", _file("onnx", "fp32", ort_format=True, name="mobile")),
        ("TFLite fp32", "export", _file("tflite", "fp32")),
        ("TFLite fp16", "export", _file("tflite", "fp16")),
        ("TFLite w8a32", "export", _file("tflite", "w8a32")),
        ("TFLite w8a8", "export", _file("tflite", "w8a8")),
        ("Core ML fp32", "export", _file("coreml", "fp32")),
        ("Core ML fp16", "export", _file("coreml", "fp16")),
        ("Core ML w8a32", "export", _file("coreml", "w8a32")),
        ("w8a8 calibrated on other photos", "export", _file("onnx", "w8a8", name="seed-3", seed=3)),
        ("w8a8 calibrated on 32 photos", "export", _file("tflite", "w8a8", name="few", calibration_count=32)),
        ("another seed's head", "query model", _run("other-seed", seed=7)),
        ("a third seed's head, w8a8", "query model", _run("third-seed", "w8a8", "tflite", seed=11)),
        ("average pooling", "query model", _run("average", pooling="average")),
        ("bottleneck head", "query model", _run("bottleneck", projection="bottleneck")),
        ("another loss", "query model", _run("regression", loss="regression")),
        ("MobileNetV2, fp16", "query model", _mobilenet("fp16")),
        ("MobileNetV2, w8a8", "query model", _mobilenet("w8a8")),
        ("every other query", "queries", _half(0)),
        ("the other half of them", "queries", _half(1)),
        (
            "queries with EXIF orientation",
            "queries",
            lambda w: w.pair(w.file("onnx", "w8a8"), images=w.sideways_photos),
        ),
        ("queries as PNG", "queries", lambda w: w.pair(images=_saved_as(w, "png", _png))),
        ("queries compressed again", "queries", lambda w: w.pair(images=_saved_as(w, "quality-60", _compressed))),
        ("features of the queries from a store", "queries", _earlier_query_photos),
        ("queries that are in the gallery too", "queries", _with_queries_inside),
        ("IVF with enough probes", "index", _index("ivf", type="ivf", nprobe=8)),
        ("HNSW", "index", _index("hnsw", type="hnsw")),
        ("IVF-PQ with 64 bytes", "index", _index("pq-64", type="ivfpq", nlist=4, nprobe=4, pq_bytes=64)),
        ("float16 store", "gallery", _gallery_of("half-floats", np.arange, dtype="float16")),
        ("a third of the gallery", "gallery", _gallery_of("third", _third)),
        ("the gallery in another order", "gallery", _gallery_of("reversed", _rows_reversed)),
        ("whitened gallery", "gallery", _whitened),
        ("nothing given that is not needed", "gallery", _bare),
        ("IVF without its store", "gallery", _index_without_store),
        ("device: TFLite's kernels for ONNX's", "device", _device("onnx", "fp32", ("tflite", "fp32"))),
        ("device: half precision", "device", _device("onnx", "fp32", ("coreml", "fp16"))),
        ("device: another JPEG decoder", "device", _another_decoder),
    )
)
