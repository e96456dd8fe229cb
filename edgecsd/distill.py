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

from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from edgecsd.anchor_pool import anchor_pool
from edgecsd.anchors import Anchors, make_anchors
from edgecsd.closed_form import STRENGTHS, ClosedForms, Projection
from edgecsd.clustering import product_codebooks
from edgecsd.distill_config import ANCHORED_LOSSES, DistillConfig, Loss
from edgecsd.distributed import Ranks, own_cores, ranks
from edgecsd.embedding import PART_ITEMS
from edgecsd.errors import BadInputError
from edgecsd.features import FeatureStore
from edgecsd.files import digest_of, replace_whole, write_json
from edgecsd.frozen_features import Array, frozen_features
from edgecsd.head_kinds import ProjectionKind
from edgecsd.head_training import HiddenRows, project_all, train_head
from edgecsd.images import ImageSet, find_images
from edgecsd.locks import holding_out
from edgecsd.losses import Order
from edgecsd.mapped_vectors import FlatViews, Views, chosen_views
from edgecsd.objective import Objective
from edgecsd.progress import SILENT, Reporter
from edgecsd.query_models import create_query_model, save_query_model
from edgecsd.run_folder import DistillResult, Stage, check_run, describe_run, read_result, start_run
from edgecsd.training import NetworkTraining
from edgecsd.training_log import TrainingLog
from edgecsd.training_set import TrainingSet, make_training_set

__all__ = ["DistillResult", "Stage", "distill"]

FEW_ANCHORS = 1024  # below it, unequal temperatures pull the query model away from the gallery features
Floats = NDArray[np.float32]


@holding_out
def distill(
    images: Path | ImageSet,
    gallery: Path,
    out: Path,
    *,
    features: Path | None = None,
    split: str | None = None,
    config: DistillConfig | None = None,
    cache: Path | None = None,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> DistillResult:
    """Train a query model whose embeddings are searched in the gallery's space. No label is used.

    images    the training photos; those without cached features are left out and counted
    gallery   the feature store that anchors come from, and the photos' features too unless `features` is given
    features  a store with the photos' own features (and cached views)
    cache     where pooled features and anchors are kept; runs that differ in other settings may share it. OUT/cache
    resume    demand that there is something to go on with; without it an unfinished run of the same settings is
              continued too, and another run in `out` is an error unless `overwrite`

    Under torchrun all processes share the work, each batch too, and the first one writes; `out` and `cache` must be
    folders that all of them see.
    """
    settings, everyone = config or DistillConfig(), ranks()
    reporter = reporter if everyone.first else SILENT
    _require_shareable(settings, everyone)
    image_set = images if isinstance(images, ImageSet) else find_images(images, split=split)
    store = FeatureStore.open(gallery, verify=everyone.first)  # one process reads every byte for all
    data = make_training_set(
        image_set, store, FeatureStore.open(features, verify=everyone.first) if features else None,
        share=settings.held_out, limit=settings.held_out_limit, overlap_k=settings.overlap_k, views=settings.views,
    )  # fmt: skip
    missing = len(image_set) - len(data.images)
    if missing:
        reporter.message(f"{missing} of {len(image_set)} images have no cached features and are left out")
    description = describe_run(settings, data, store)
    check_run(out, description, resume=resume, overwrite=overwrite)
    if not overwrite and (out / "result.json").is_file() and (out / "query_model.json").is_file():
        reporter.message(f"{out} is already whole: nothing to do")
        return read_result(out)
    distillation = _Distillation(
        data, settings, out, cache or out / "cache", workers or own_cores(), everyone, reporter
    )
    everyone.meet()  # all have looked at what is there
    if everyone.first:
        start_run(out, description, overwrite=overwrite)  # not before the model could be made: a typo leaves no folder
    everyone.meet()
    return distillation.run()


def _require_shareable(config: DistillConfig, everyone: Ranks) -> None:
    """Raise BadInputError where several processes would not give what one gives."""
    if config.epochs and config.batch_size % (everyone.count * config.accumulate):
        parts = f" in {config.accumulate} parts" if config.accumulate > 1 else ""
        raise BadInputError(
            f"--batch-size {config.batch_size}: {everyone.count} processes cannot share it evenly{parts}"
        )
    if config.loss is Loss.RAML and everyone.count > 1:
        raise BadInputError("--loss raml compares all images of a batch with each other: it runs in one process only")
    if config.epochs and not config.freeze_norm and everyone.count > 1:
        raise BadInputError("--train-norm: each process would see its own batch-norm statistics; use --freeze-norm")


class _Distillation:
    """One run, stage by stage; each stage's product is kept in the run folder and not made twice."""

    def __init__(
        self,
        data: TrainingSet,
        config: DistillConfig,
        out: Path,
        cache: Path,
        workers: int,
        everyone: Ranks,
        reporter: Reporter,
    ) -> None:
        self.data, self.config, self.out, self.cache = data, config, out, cache
        self.workers, self.everyone, self.reporter = workers, everyone, reporter
        self.stages: list[Stage] = []
        torch.manual_seed(config.seed)
        self.model = create_query_model(
            config.query_model, data.store.space, weights=config.weights, pretrained=config.pretrained,
            pooling=config.pooling, gem_p=config.gem_p, learn_power=config.learn_gem_p,
            projection=ProjectionKind(config.projection), size=config.size, resize=config.resize,
        )  # fmt: skip

    def run(self) -> DistillResult:
        pooled = frozen_features(
            self.model, self.data, self.cache, workers=self.workers, part_items=PART_ITEMS,
            everyone=self.everyone, reporter=self.reporter,
        )  # fmt: skip
        if self.config.starts_closed:
            self._closed_form(pooled)
        else:
            random = isinstance(self.model.projection, nn.Linear)
            self._stage("random start" if random else "untrained", self._project(pooled))
        objective = self._objective()
        if self.config.head_steps and self.model.head_parameters():
            self._head(pooled, objective)
        if self.config.epochs:
            training = NetworkTraining(
                self.model, self.data, objective, self.out, workers=self.workers, everyone=self.everyone
            )
            training.run(self.reporter)
            self._stage("network", training.embed_held_out())
        result = {"overlap_k": self.config.overlap_k, "stages": [vars(stage) for stage in self.stages]}
        if self.everyone.first:
            write_json(self.out / "result.json", result)
            save_query_model(self.model, self.out)
        self.everyone.meet()
        return read_result(self.out)

    def _stage(self, name: str, embeddings: Floats) -> None:
        overlap = self.data.held_out_overlap(embeddings, self.config.overlap_k)
        cosine = float((embeddings * self.data.own_features(self.data.held_out)).sum(1).mean())
        self.stages.append(Stage(name, overlap, cosine))
        self.reporter.message(f"{name}: held-out overlap@{self.config.overlap_k} {overlap:.4f} (cosine {cosine:.4f})")

    def _closed_form(self, pooled: Array) -> None:
        train, views = self.data.train, pooled.shape[1]
        inputs = HiddenRows(self.model, FlatViews(pooled, train))
        forms = ClosedForms(inputs, FlatViews(self.data.features, train, views))
        held_out = HiddenRows(self.model, FlatViews(pooled, self.data.held_out, 1))[:]
        rotation = forms.procrustes()
        found = {"rotation (Procrustes)": rotation}
        found |= {f"ridge regression, strength {strength:.2g}": forms.ridge(strength) for strength in STRENGTHS}
        overlaps = {
            name: self.data.held_out_overlap(form(held_out), self.config.overlap_k) for name, form in found.items()
        }
        best = max(overlaps, key=overlaps.__getitem__)
        self._set_projection(found[best])
        self.reporter.message(f"best closed form on held-out photos: {best}")
        self._stage("closed-form start", self._project(pooled))
        if self.everyone.first:
            save_query_model(self.model, self.out / "closed_form")
        if self.config.head_steps:
            # Not what is best by itself: that may have fitted details of the training photos that gradient steps don't
            # undo (docs/decisions/0004, 0010)
            start = self.config.head_start
            self._set_projection(rotation if start == "procrustes" else forms.ridge(start))

    def _set_projection(self, projection: Projection) -> None:
        assert isinstance(self.model.projection, nn.Linear)
        with torch.no_grad():
            self.model.projection.weight.copy_(torch.from_numpy(projection.weight))
            self.model.projection.bias.copy_(torch.from_numpy(projection.bias))

    def _objective(self) -> Objective:
        config, train, codebooks = self.config, self.data.train, None
        features = chosen_views(self.data.features, train)
        if config.loss is Loss.SSP:
            codebooks = torch.from_numpy(
                product_codebooks(self.data.gallery, config.sub_spaces, config.centroids, seed=config.seed)
            )
        anchors = self._make_anchors(features) if config.loss in ANCHORED_LOSSES else None
        return Objective(features, config, anchors, codebooks)

    def _make_anchors(self, features: Views) -> Anchors:
        config, pool = self.config, anchor_pool(self.data, self.config)
        k = pool.count(config.k)
        warn(config, k, self.data.store.space.dim, self.reporter)
        made_of = digest_of([config.anchors, k, config.mining, config.seed, features.shape, pool.views])
        return make_anchors(
            FlatViews(features, np.arange(len(features))), pool.vectors, k, kind=config.anchors, seed=config.seed,
            own_rows=pool.own_rows, out=self.cache / f"anchors-{made_of[:16]}", mining=config.mining,
            everyone=self.everyone, reporter=self.reporter,
        )  # fmt: skip

    def _head(self, pooled: Array, objective: Objective) -> None:
        """Train the head, or take the one that an earlier process of this run trained."""
        with self.everyone.one_ahead():  # minutes on cached features: the first process trains it for all
            self._train_or_load_head(self.out / "cache" / "head.safetensors", pooled, objective)
        self._stage("head", self._project(pooled))

    def _train_or_load_head(self, file: Path, pooled: Array, objective: Objective) -> None:
        model = self.model
        if file.is_file():
            model.load_head_state(load_file(file))
        else:
            with closing(TrainingLog(self.out, "head")) as log:
                train_head(model, pooled, self.data, objective, log, self.reporter)
            with replace_whole(file) as temporary:
                save_file({name: value.contiguous() for name, value in model.head_state().items()}, temporary)

    def _project(self, pooled: Array) -> Floats:
        """(H, D) embeddings of the held-out images, by the head as it is."""
        return project_all(self.model, torch.from_numpy(pooled[self.data.held_out, 0]))


def warn(config: DistillConfig, k: int, dim: int, reporter: Reporter) -> None:
    """Tell what is known to go wrong with these settings, k anchors an image and `dim` dimensions."""
    if k < config.k:
        reporter.message(f"the gallery offers only {k} anchors an image; {config.k} were asked for")
    if k < dim and config.order is not Order.FIRST:
        reporter.message(
            f"warning: {k} anchors < {dim} dimensions leave the query under-determined; the first-order term "
            f"holds it to its own gallery feature; more anchors (--k) help"
        )
    if config.loss is Loss.CSD_KL and config.order is Order.SECOND:
        reporter.message(
            "warning: --order second of csd-kl still holds q.g and pushes the query away from its own gallery feature; "
            "it is there for study"
        )
    if config.loss is Loss.CSD_KL and config.tau_q != config.tau_g and k < FEW_ANCHORS:
        reporter.message(
            f"warning: --tau-q {config.tau_q:g} and --tau-g {config.tau_g:g} differ: with only {k} anchors the "
            f"best query is not the gallery feature; use equal ones, or {FEW_ANCHORS} anchors and more"
        )
