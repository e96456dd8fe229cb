"""distill: photos and cached gallery features -> a run folder with a query model.

    RUN/
      run.json                  settings, versions, digests of what went in
      metrics.jsonl             one record a validation; TensorBoard events beside it in tensorboard/
      cache/                    anchors and pooled features, so that a re-run does not make them again
      checkpoints/last.pt       of the whole-network stage
      result.json               what each stage brought on held-out images
      query_model.safetensors   written last, with query_model.json
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgecsd import __version__
from edgecsd.anchors import mine_anchors
from edgecsd.backbones import to_input
from edgecsd.closed_form import STRENGTHS, Ridge
from edgecsd.distill_config import DistillConfig, Init
from edgecsd.embedding import embed_images
from edgecsd.errors import BadInputError
from edgecsd.features import FeatureStore
from edgecsd.files import Parts, digest_of, read_json, remove, replace_whole, sha256_file, write_json
from edgecsd.images import ImageSet, find_images
from edgecsd.progress import SILENT, Reporter
from edgecsd.query_models import Pooling, QueryModel, create_query_model, save_query_model
from edgecsd.training import ContextualTargets, NetworkTraining, train_head
from edgecsd.training_set import TrainingSet, make_training_set
from edgecsd.weights import weights_digest

SCHEMA_VERSION = 1
KIND = "run folder"
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Stage:
    """What a stage reached on the held-out images."""

    name: str
    overlap: float  # mean overlap@k with the gallery model's neighbours
    cosine: float  # mean cosine to the gallery features; told, never selected by


@dataclass(frozen=True)
class DistillResult:
    """The run folder and its stages, in order."""

    path: Path
    stages: tuple[Stage, ...]
    overlap_k: int


def distill(
    images: Path | ImageSet,
    gallery: Path,
    out: Path,
    *,
    features: Path | None = None,
    split: str | None = None,
    config: DistillConfig | None = None,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> DistillResult:
    """Train a query model whose embeddings are searched in the gallery's space. No label is used.

    images    the training photos; those without cached features are left out and counted
    gallery   the feature store that anchors come from, and the photos' features too unless `features` is given
    features  a store with the photos' own features (and cached views)
    resume    demand that there is something to go on with; without it an unfinished run of the same settings is
              continued too, and another run in `out` is an error unless `overwrite`
    """
    settings = config or DistillConfig()
    image_set = images if isinstance(images, ImageSet) else find_images(images, split=split)
    store = FeatureStore.open(gallery)
    data = make_training_set(
        image_set, store, FeatureStore.open(features) if features else None,
        share=settings.held_out, limit=settings.held_out_limit, overlap_k=settings.overlap_k,
    )  # fmt: skip
    missing = len(image_set) - len(data.images)
    if missing:
        reporter.message(f"{missing} of {len(image_set)} images have no cached features and are left out")
    _start(out, _provenance(settings, data, store), resume=resume, overwrite=overwrite)
    if (out / "result.json").is_file() and (out / "query_model.json").is_file():
        reporter.message(f"{out} is already whole: nothing to do")
        return _read_result(out)
    return _Distillation(data, settings, out, workers or os.cpu_count() or 2, reporter).run()


def _provenance(config: DistillConfig, data: TrainingSet, gallery: FeatureStore) -> dict[str, Any]:
    return {
        "kind": KIND, "schema_version": SCHEMA_VERSION,
        "config": config.model_dump(mode="json"),
        "weights_file": sha256_file(config.weights) if config.weights and config.weights.is_file() else None,
        "space": data.store.space.model_dump(mode="json"),
        "images": {"count": len(data.images), "digest": digest_of([list(data.images.ids), list(data.digests)])},
        "gallery": {"count": gallery.count, "shards": [s["sha256"] for s in gallery.manifest["shards"]]},
        "features": {"count": data.store.count, "shards": [s["sha256"] for key in ("shards", "view_shards") for s in data.store.manifest[key]]},
        "versions": {"edgecsd": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }  # fmt: skip


def _start(out: Path, provenance: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
    wanted = json.loads(json.dumps(provenance))
    if overwrite and not resume:
        remove(out)
    if (out / "run.json").is_file():
        found = read_json(out / "run.json")
        different = [key for key in wanted if found.get(key) != wanted[key]]
        if different:
            details = _config_differences(found, wanted) or ", ".join(different)
            raise BadInputError(f"{out}: holds a run with other settings or data ({details}); choose another --out or add --overwrite")
        return
    if resume:
        raise BadInputError(f"--resume: there is no run in {out} to go on with")
    if out.exists() and any(out.iterdir()):
        raise BadInputError(f"{out}: not empty and not a run folder; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "run.json", wanted)


def _config_differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    old, new = found.get("config", {}), wanted["config"]
    return ", ".join(f"{name}: {old.get(name)} there, {new[name]} now" for name in new if old.get(name) != new[name])


def _read_result(out: Path) -> DistillResult:
    data = read_json(out / "result.json")
    return DistillResult(out, tuple(Stage(**stage) for stage in data["stages"]), data["overlap_k"])


class _PooledEmbedder:
    """The query backbone's pooled features, in front of the projection."""

    def __init__(self, model: QueryModel) -> None:
        self.preprocess, self.dim, self._model = model.config.preprocess, model.config.width, model

    def embed(self, pixels: NDArray[np.uint8]) -> Floats:
        with torch.inference_mode():
            pooled: Floats = self._model.pooled(to_input(pixels, self.preprocess)).float().numpy()
        return pooled


class _Distillation:
    """One run, stage by stage; each stage's product is kept in the run folder and not made twice."""

    def __init__(self, data: TrainingSet, config: DistillConfig, out: Path, workers: int, reporter: Reporter) -> None:
        self.data, self.config, self.out, self.workers, self.reporter = data, config, out, workers, reporter
        self.stages: list[Stage] = []
        torch.manual_seed(config.seed)
        self.model = create_query_model(
            config.query_model, data.store.space, weights=config.weights, pooling=Pooling(config.pooling), gem_p=config.gem_p,
            size=config.size, resize=config.resize, pretrained=config.pretrained,
        )  # fmt: skip

    def run(self) -> DistillResult:
        pooled = self._pooled_features()
        if self.config.init is Init.CLOSED_FORM:
            self._closed_form(pooled)
        else:
            self._stage("random start", self._project(pooled[self.data.held_out, 0]))
        targets = self._targets()
        if self.config.head_steps:
            self._head(pooled, targets)
        if self.config.epochs:
            training = NetworkTraining(self.model, self.data, targets, self.out, workers=self.workers)
            training.run(self.reporter)
            self._stage("network", training.embed_held_out())
        result = {"overlap_k": self.config.overlap_k, "stages": [vars(stage) for stage in self.stages]}
        write_json(self.out / "result.json", result)
        save_query_model(self.model, self.out)
        return _read_result(self.out)

    def _stage(self, name: str, embeddings: Floats) -> None:
        overlap = self.data.held_out_overlap(embeddings, self.config.overlap_k)
        cosine = float((embeddings * self.data.features[self.data.held_out, 0]).sum(1).mean())
        self.stages.append(Stage(name, overlap, cosine))
        self.reporter.message(f"{name}: held-out overlap@{self.config.overlap_k} {overlap:.4f} (cosine {cosine:.4f})")

    def _pooled_features(self) -> Floats:
        """(T, 1 + V, C) of every image and view, cached."""
        settings = {"model": weights_digest(self.model.backbone.state_dict()), "config": self.model.config.model_dump(mode="json"), "images": digest_of([list(self.data.images.ids), list(self.data.digests)]), "views": self.data.store.views.model_dump(mode="json")}  # fmt: skip
        file = self.out / "cache" / "pooled.npz"
        key = digest_of(settings)
        if file.is_file():
            with np.load(file, allow_pickle=False) as saved:
                if str(saved["key"]) == key:
                    return np.asarray(saved["pooled"], np.float32)
        parts = Parts(file, settings)
        embedded = embed_images(
            self.data.images, _PooledEmbedder(self.model), recipe=self.data.store.views, parts=parts,
            workers=self.workers, strict=True, name="pooled features", reporter=self.reporter,
        )  # fmt: skip
        changed = [i for i, (now, then) in enumerate(zip(embedded.digests, self.data.digests, strict=True)) if then and now != then]
        if changed:
            raise BadInputError(f"{self.data.images.path(changed[0])}: changed since its features were extracted ({len(changed)} such images); extract again")
        with replace_whole(file) as temporary, open(temporary, "wb") as handle:
            np.savez(handle, pooled=embedded.vectors, key=np.str_(key))
        parts.discard()
        return embedded.vectors

    def _closed_form(self, pooled: Floats) -> None:
        train = self.data.train
        inputs = pooled[train].reshape(-1, pooled.shape[2])
        ridge = Ridge(inputs, self.data.features[train].reshape(len(inputs), -1))
        held_out = pooled[self.data.held_out, 0]
        overlaps = [self.data.held_out_overlap(ridge.solve(s)(held_out), self.config.overlap_k) for s in STRENGTHS]
        best = ridge.solve(STRENGTHS[int(np.argmax(overlaps))])
        with torch.no_grad():
            self.model.projection.weight.copy_(torch.from_numpy(best.weight))
            self.model.projection.bias.copy_(torch.from_numpy(best.bias))
        self._stage("closed-form start", self._project(held_out))
        save_query_model(self.model, self.out / "closed_form")

    def _targets(self) -> ContextualTargets:
        train = self.data.train
        features = self.data.features[train]
        anchors = mine_anchors(
            features.reshape(-1, features.shape[2]), self.data.gallery, min(self.config.anchors, self._most_anchors()),
            own_rows=[self.data.own_rows[t] for t in train for _ in range(features.shape[1])],
            out=self.out / "cache" / "anchors.npz", reporter=self.reporter,
        )  # fmt: skip
        return ContextualTargets(torch.from_numpy(features), torch.from_numpy(self.data.gallery), anchors, self.config)

    def _most_anchors(self) -> int:
        most = len(self.data.gallery) - max(len(rows) for rows in self.data.own_rows)
        if most < self.config.anchors:
            self.reporter.message(f"the gallery offers only {most} anchors an image; {self.config.anchors} were asked for")
        return most

    def _head(self, pooled: Floats, targets: ContextualTargets) -> None:
        records = train_head(self.model.projection, self.model.project, pooled, self.data, targets, self.reporter)
        write_json(self.out / "cache" / "head_metrics.json", records)
        self._stage("head", self._project(pooled[self.data.held_out, 0]))

    def _project(self, pooled: Floats) -> Floats:
        with torch.inference_mode():
            vectors: Floats = self.model.project(torch.from_numpy(pooled)).numpy()
        return vectors
