"""The queries that files are compared by: a workshop's photos, each searched for among the others; and the figures."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from seeded.workshop import CALIBRATION, Workshop

from edgecsd.evaluation.benchmark import Benchmark
from edgecsd.evaluation.relevance import make_benchmark
from edgecsd.features.store import Items
from edgecsd.metrics.bootstrap import paired_difference
from edgecsd.models.embedding import Embedder, embed_images

OVERLAP_K = 10


class Asked:
    """Query and gallery photos but those that calibrate 8 bit, `limit` at most; a photo's own row is never a result."""

    def __init__(self, workshop: Workshop, limit: int, name: str, calibrating: int = CALIBRATION) -> None:
        gallery, queries = workshop.gallery, workshop.queries
        ranges = {*workshop.calibration_photos().ids, *workshop.calibration_photos(calibrating).ids}
        rows = [row for row, item in enumerate(gallery.items.ids) if item not in ranges]
        every = [(gallery, row) for row in rows] + [(queries, row) for row in range(queries.count)]
        if len(every) > limit:
            every = [every[place] for place in np.linspace(0, len(every) - 1, limit).round().astype(int)]
        self.photos = replace(
            workshop.gallery_photos, ids=tuple(store.items.ids[row] for store, row in every), labels=None, boxes=None
        )
        labelled = gallery.items.labels is not None and queries.items.labels is not None
        items = Items(
            self.photos.ids,
            tuple(store.items.digests[row] for store, row in every),
            tuple((store.items.labels or ())[row] for store, row in every) if labelled else None,
        )
        vectors = np.stack([store.vectors()[row] for store, row in every])
        self.benchmark: Benchmark = make_benchmark(gallery, workshop.store(name, vectors, items=items))

    def embed(self, embedder: Embedder, name: str) -> NDArray[np.float32]:
        """(Q, D), the photos' embeddings."""
        return np.asarray(embed_images(self.photos, embedder, name=name, strict=True).vectors[:, 0], np.float32)


def numbers(vectors: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Cosines, differences and lengths of a file's (Q, D) embeddings beside the torch model's."""
    ours, theirs = vectors.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(ours).all(axis=1)
    lengths = np.linalg.norm(ours[finite], axis=1)
    cosine = (ours[finite] * theirs[finite]).sum(1) / np.maximum(lengths, 1e-12)
    return {
        "cosine_mean": round(float(cosine.mean()), 6),
        "cosine_min": round(float(cosine.min()), 6),
        "max_difference": float(np.abs(ours[finite] - theirs[finite]).max()),
        "not_finite": int((~finite).sum()),
        "largest_length": round(float(lengths.max()), 4),
    }


def retrieval(benchmark: Benchmark, vectors: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """mAP, and the shares of mAP and overlap@10 that a file loses, each with its interval."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    made = benchmark.score("file", np.asarray(np.nan_to_num(vectors / lengths), np.float32))
    before = benchmark.score("torch", reference)
    found = {"mAP": round(made.mean_average_precision, 4)}
    for name, figure in (("mAP_loss", "AP"), ("overlap_loss", f"overlap@{OVERLAP_K}")):
        change, mean = paired_difference(made.values[figure], before.values[figure]), np.nanmean(before.values[figure])
        losses = {name: change.mean, f"{name}_low": change.high, f"{name}_high": change.low}
        found |= {key: round(float(-value / mean), 4) + 0.0 for key, value in losses.items()}  # no -0
    return found
