"""One run of a variant: distil, search, write one JSON line with the average precision of every query."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import StudyData
from plan import Variant
from safetensors import safe_open

import edgecsd
from edgecsd.evaluation.per_query import StoreIdentity
from edgecsd.evaluation.ranking import rank
from edgecsd.evaluation.relevance import make_benchmark
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import digest_of
from edgecsd.metrics.retrieval import average_precision, overlap_at
from edgecsd.models.backbones import to_input
from edgecsd.models.embedding import embed_images, embed_store_items
from edgecsd.models.query import QueryModel, QueryModelEmbedder, load_query_model
from edgecsd.photos.finding import find_images
from edgecsd.training.distill import distill
from edgecsd.training.head_training import project_all
from edgecsd.training.settings import DistillConfig


class Runner:
    """Runs variants one by one; what stands in the file of results is not run again."""

    def __init__(self, data: StudyData, work: Path) -> None:
        self.data, self.work, self.file = data, work, work / "runs.jsonl"
        self.benchmark = make_benchmark(data.gallery, data.queries)
        self._stores = {name: FeatureStore.open(store) for name, (_, store) in data.training.items()}
        self._query_features: dict[tuple[str, int, str], np.ndarray] = {}

    def made_of(self, variant: Variant) -> str:
        """Digest of the settings and of all stores: another one, and the run is another."""
        config = DistillConfig.model_validate(variant.whole).model_dump(mode="json")
        stores = (self._stores[variant.data], self.data.gallery, self.data.queries)
        return digest_of([config, [StoreIdentity.of(store).digest for store in stores]])

    def results(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Records by (variant's key, seed); half a line that an interruption left is no record."""
        found = {}
        for line in self.file.read_text().splitlines() if self.file.is_file() else []:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            found[record["variant"], record["seed"]] = record
        return found

    def run(self, variant: Variant, seed: int) -> dict[str, Any]:
        """Distil and search; the run folder goes, its cache of pooled features is shared by all runs."""
        photos, store = self.data.training[variant.data]
        out, started = self.work / "runs" / f"{variant.key}-{seed}", time.monotonic()
        config = DistillConfig.model_validate({**variant.whole, "seed": seed})
        result = distill(find_images(photos), store, out, config=config, cache=self.work / "cache")
        model = load_query_model(out)
        if config.epochs:
            vectors = embed_store_items(
                self.data.query_photos, self.data.queries, QueryModelEmbedder(model), name="queries"
            )
        else:
            vectors = self.project(model)
        record = {
            "variant": variant.key,
            "seed": seed,
            "made_of": self.made_of(variant),
            "edgecsd": edgecsd.__version__,
            "head": head_plan(out),
            "settings": config.model_dump(mode="json", exclude_defaults=True),
            "stages": [vars(stage) for stage in result.stages],
            **self.score(vectors),
            "seconds": round(time.monotonic() - started, 1),
        }
        with open(self.file, "a") as handle:
            handle.write(json.dumps(record) + "\n")
        shutil.rmtree(out)
        return record

    def score(self, vectors: np.ndarray, gallery: np.ndarray | None = None) -> dict[str, Any]:
        """mAP, the AP of every query, overlap@10 and the mean cosine of (Q, D) query embeddings.

        gallery: other vectors of the gallery's photos to search, for a symmetric search.
        """
        ranking = rank(vectors, self.benchmark.gallery if gallery is None else gallery)
        own = self.data.queries.vectors()
        pairs = zip(ranking, self.benchmark.relevance, strict=True)
        values = [float(average_precision(row, relevance)) for row, relevance in pairs]
        overlaps = overlap_at(ranking, rank(own, self.benchmark.gallery), 10)
        return {
            "mAP": float(np.nanmean(values)),
            "ap": [round(value, 6) for value in values],
            "overlap@10": float(overlaps.mean()),
            "cosine": float((vectors * own).sum(1).mean()),
        }

    def project(self, model: QueryModel) -> np.ndarray:
        """Query embeddings of a head on a backbone that was not trained: its pooled features are made once."""
        config = model.config
        key = (config.backbone, config.preprocess.size, str(config.pooling))
        if key not in self._query_features:
            embedded = embed_images(self.data.query_photos, Frozen(model), strict=True)
            self._query_features[key] = embedded.vectors[:, 0]
        return project_all(model, torch.from_numpy(self._query_features[key]))


class Frozen:
    """A query model up to its pooling, as an Embedder."""

    def __init__(self, model: QueryModel) -> None:
        self.preprocess, self.dim, self._model = model.config.preprocess, model.config.pooled_width, model

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self._model.pooled(to_input(pixels, self.preprocess)).float().numpy()


def head_plan(run: Path) -> dict[str, float] | None:
    """What was kept of the head's training: `trained` 0 means no step of it; None where no head was trained."""
    file = run / "cache" / "head.safetensors"
    if not file.is_file():
        return None
    with safe_open(file, "pt") as stored:
        plan: dict[str, float] = json.loads(stored.metadata()["plan"])
    return plan
