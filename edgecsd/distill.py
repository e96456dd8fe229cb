"""distill: photos and cached gallery features -> a run folder with a query model.

RUN/
  run.json                  settings, versions, digests of what went in
  metrics.jsonl             one record a validation; TensorBoard events beside it in tensorboard/
  cache/                    anchors, pooled features and trained head, so that a re-run does not make them again
  checkpoints/last.pt       of the whole-network stage
  result.json               what each stage brought on held-out images
  query_model.safetensors   written last, with query_model.json
"""

from __future__ import annotations

import os
from contextlib import closing
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from edgecsd.anchors import mine_anchors
from edgecsd.backbones import to_input
from edgecsd.closed_form import STRENGTHS, Projection, Ridge
from edgecsd.distill_config import DistillConfig, Init
from edgecsd.embedding import PART_ITEMS, embed_images
from edgecsd.errors import BadInputError
from edgecsd.features import FeatureStore
from edgecsd.files import Parts, digest_of, replace_whole, write_json
from edgecsd.head_training import train_head
from edgecsd.images import ImageSet, find_images
from edgecsd.progress import SILENT, Reporter
from edgecsd.query_models import Pooling, QueryModel, create_query_model, save_query_model
from edgecsd.run_folder import DistillResult, Stage, check_run, describe_run, read_result, start_run
from edgecsd.training import ContextualTargets, NetworkTraining
from edgecsd.training_log import TrainingLog
from edgecsd.training_set import TrainingSet, make_training_set
from edgecsd.weights import weights_digest

__all__ = ["DistillResult", "Stage", "distill"]

FEW_ANCHORS = 1024  # below it, unequal temperatures pull the query model away from the gallery features
Floats = NDArray[np.float32]


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
    description = describe_run(settings, data, store)
    check_run(out, description, resume=resume, overwrite=overwrite)
    if not overwrite and (out / "result.json").is_file() and (out / "query_model.json").is_file():
        reporter.message(f"{out} is already whole: nothing to do")
        return read_result(out)
    distillation = _Distillation(data, settings, out, workers or os.cpu_count() or 2, reporter)
    start_run(out, description, overwrite=overwrite)  # not before the model could be made: a typo leaves no folder
    return distillation.run()


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
            config.query_model, data.store.space, weights=config.weights, pooling=Pooling(config.pooling),
            gem_p=config.gem_p, size=config.size, resize=config.resize, pretrained=config.pretrained,
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
        return read_result(self.out)

    def _stage(self, name: str, embeddings: Floats) -> None:
        overlap = self.data.held_out_overlap(embeddings, self.config.overlap_k)
        cosine = float((embeddings * self.data.features[self.data.held_out, 0]).sum(1).mean())
        self.stages.append(Stage(name, overlap, cosine))
        self.reporter.message(f"{name}: held-out overlap@{self.config.overlap_k} {overlap:.4f} (cosine {cosine:.4f})")

    def _pooled_features(self) -> Floats:
        """(T, 1 + V, C) of every image and view, cached."""
        settings = {
            "model": weights_digest(self.model.backbone.state_dict()),
            "config": self.model.config.model_dump(mode="json"),
            "images": digest_of([list(self.data.images.ids), list(self.data.digests)]),
            "views": self.data.store.views.model_dump(mode="json"),
        }
        file = self.out / "cache" / "pooled.npz"
        key = digest_of(settings)
        if file.is_file():
            with np.load(file, allow_pickle=False) as saved:
                if str(saved["key"]) == key:
                    return np.asarray(saved["pooled"], np.float32)
        parts = Parts(file, {**settings, "part_items": PART_ITEMS})
        embedded = embed_images(
            self.data.images, _PooledEmbedder(self.model), recipe=self.data.store.views, parts=parts,
            part_items=PART_ITEMS, workers=self.workers, strict=True,
            advice="it could be read when its features were extracted",
            name="pooled features", reporter=self.reporter,
        )  # fmt: skip
        known = zip(embedded.digests, self.data.digests, strict=True)
        changed = [position for position, (now, then) in enumerate(known) if then and now != then]
        if changed:
            parts.discard()
            raise BadInputError(
                f"{self.data.images.path(changed[0])}: changed since its features were extracted "
                f"({len(changed)} such images); extract again"
            )
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
        self._set_projection(ridge.solve(STRENGTHS[int(np.argmax(overlaps))]))
        self._stage("closed-form start", self._project(held_out))
        save_query_model(self.model, self.out / "closed_form")
        if self.config.head_steps:
            # What is best by itself has fitted details of the training photos that gradient steps don't undo:
            # for unseen classes a stronger ridge is worse by itself and better to train from (docs/decisions/0004).
            self._set_projection(ridge.solve(self.config.head_start))

    def _set_projection(self, projection: Projection) -> None:
        with torch.no_grad():
            self.model.projection.weight.copy_(torch.from_numpy(projection.weight))
            self.model.projection.bias.copy_(torch.from_numpy(projection.bias))

    def _targets(self) -> ContextualTargets:
        train, k = self.data.train, self._anchors
        self._warn(k)
        features = self.data.features[train]
        anchors = mine_anchors(
            features.reshape(-1, features.shape[2]), self.data.gallery, k,
            own_rows=[self.data.own_rows[t] for t in train for _ in range(features.shape[1])],
            out=self.out / "cache" / "anchors.npz", reporter=self.reporter,
        )  # fmt: skip
        return ContextualTargets(torch.from_numpy(features), torch.from_numpy(self.data.gallery), anchors, self.config)

    @cached_property
    def _anchors(self) -> int:
        """Anchors an image: as many as asked for, or as the gallery has."""
        return min(self.config.anchors, len(self.data.gallery) - max(len(rows) for rows in self.data.own_rows))

    def _warn(self, k: int) -> None:
        config, dim = self.config, self.data.store.space.dim
        if k < config.anchors:
            self.reporter.message(f"the gallery offers only {k} anchors an image; {config.anchors} were asked for")
        if k < dim:
            self.reporter.message(
                f"warning: {k} anchors < {dim} dimensions leave the query under-determined; the first-order term "
                f"holds it to its own gallery feature; more --anchors help"
            )
        if config.tau_q != config.tau_g and k < FEW_ANCHORS:
            self.reporter.message(
                f"warning: --tau-q {config.tau_q:g} and --tau-g {config.tau_g:g} differ: with only {k} anchors the "
                f"best query is not the gallery feature; use equal ones, or {FEW_ANCHORS} anchors and more"
            )

    def _head(self, pooled: Floats, targets: ContextualTargets) -> None:
        """Train the projection, or take the one that an earlier process of this run trained."""
        file, model = self.out / "cache" / "head.safetensors", self.model
        if file.is_file():
            model.projection.load_state_dict(load_file(file))
        else:
            with closing(TrainingLog(self.out, "head")) as log:
                train_head(model.projection, model.project, pooled, self.data, targets, log, self.reporter)
            with replace_whole(file) as temporary:
                save_file(model.projection.state_dict(), temporary)
        self._stage("head", self._project(pooled[self.data.held_out, 0]))

    def _project(self, pooled: Floats) -> Floats:
        with torch.inference_mode():
            vectors: Floats = self.model.project(torch.from_numpy(pooled)).numpy()
        return vectors
