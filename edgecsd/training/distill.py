"""distill: photos and cached gallery features -> a run folder with a query model.

RUN/
  run.json                  settings, versions, digests of what went in
  metrics.jsonl             one record a validation; TensorBoard events beside it in tensorboard/
  cache/                    anchors, pooled features and trained heads, so that a re-run does not make them again
  checkpoints/last.pt       of the whole-network stage
  result.json               what each stage brought on held-out images
  query_model.safetensors   written last, with query_model.json
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgecsd.distributed import Ranks, own_cores, ranks
from edgecsd.errors import BadInputError
from edgecsd.features.store import FeatureStore
from edgecsd.files.places import holding_out
from edgecsd.files.whole import write_json
from edgecsd.index.engines.faiss.clustering import require_sub_spaces
from edgecsd.models.embedding import PART_ITEMS
from edgecsd.models.query import create_query_model, save_query_model
from edgecsd.models.query_config import ProjectionKind
from edgecsd.photos.images import ImageSet
from edgecsd.progress import SILENT, Reporter
from edgecsd.training.choices import HeldOutBy, Loss, Order
from edgecsd.training.closed_form import error_ratio
from edgecsd.training.directions import narrow, require_directions
from edgecsd.training.frozen_features import frozen_features
from edgecsd.training.head_stage import HeadStage
from edgecsd.training.head_training import copy_head
from edgecsd.training.network_stage import NetworkTraining
from edgecsd.training.objective import Objective, make_objective
from edgecsd.training.run_folder import DistillResult, Stage, check_run, describe_run, read_result, start_run
from edgecsd.training.settings import DistillConfig
from edgecsd.training.training_set import TrainingSet, make_training_set

FEW_ANCHORS = 1024  # below it, unequal temperatures pull the query model away from the gallery features
Floats = NDArray[np.float32]


@holding_out
def distill(
    images: ImageSet,
    gallery: Path,
    out: Path,
    *,
    features: Path | None = None,
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
    store = FeatureStore.open(gallery, verify=everyone.first)  # one process reads every byte for all
    if settings.loss is Loss.SSP:
        require_sub_spaces(settings.sub_spaces, store.space.dim)  # now, and not once every photo has been looked at
    data = make_training_set(
        images,
        store,
        FeatureStore.open(features, verify=everyone.first) if features else None,
        share=settings.held_out,
        limit=settings.held_out_limit,
        overlap_k=settings.overlap_k,
        by=settings.held_out_by,
        views=settings.views,
    )
    missing = len(images) - len(data.images)
    if missing:
        reporter.message(f"{missing} of {len(images)} images have no cached features and are left out")
    description = describe_run(settings, data, store)
    check_run(out, description, resume=resume, overwrite=overwrite)
    if not overwrite and (out / "result.json").is_file() and (out / "query_model.json").is_file():
        reporter.message(f"{out} is already whole: nothing to do")
        return read_result(out)
    tell_held_out(data, settings.held_out_by, reporter)
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
            f"`batch_size` {config.batch_size}: {everyone.count} processes cannot share it evenly{parts}"
        )
    if config.loss is Loss.RAML and everyone.count > 1:
        raise BadInputError("`loss` raml compares all images of a batch with each other: it runs in one process only")
    if config.epochs and not config.freeze_norm and everyone.count > 1:
        raise BadInputError("`freeze_norm=False`: each process would see its own batch-norm statistics; leave it out")


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
            config.query_model,
            data.store.space,
            weights=config.weights,
            pretrained=config.pretrained,
            pooling=config.pooling,
            gem_p=config.gem_p,
            learn_power=config.learn_gem_p,
            projection=ProjectionKind(config.projection),
            size=config.size,
            resize=config.resize,
        )
        if (problem := narrow(self.model)) is not None:
            reporter.message(f"warning: {problem}")

    def run(self) -> DistillResult:
        pooled = frozen_features(
            self.model,
            self.data,
            self.cache,
            workers=self.workers,
            part_items=PART_ITEMS,
            everyone=self.everyone,
            reporter=self.reporter,
        )
        head = HeadStage(self.model, self.data, self.config, pooled, self.out, self.everyone, self.reporter)
        if self.config.starts_closed:
            start = head.begin_closed()
            self._stage("closed-form start", head.project_held_out())
            if self.everyone.first:
                save_query_model(self.model, self.out / "closed_form")
            head.set_projection(start)
            if self.config.head_steps:
                begun = self._overlap(head.project_held_out())
                self.reporter.message(f"training begins at {head.begins_at}: held-out overlap {begun:.4f}")
        else:
            random = isinstance(self.model.projection, nn.Linear)
            self._stage("random start" if random else "untrained", head.project_held_out())
        objective = self._objective(self.data)
        if self.config.head_steps and self.model.head_parameters():
            head.train(objective)
            self._stage("head", head.project_held_out())
        before = copy_head(self.model)
        if self.config.epochs:
            training = NetworkTraining(
                self.model, self.data, objective, self.out, workers=self.workers, everyone=self.everyone
            )
            training.run(self.reporter)
            self._stage("network", training.embed_held_out())
        self._tell_if_in_vain()
        result = {
            "overlap_k": self.config.overlap_k,
            "stages": [vars(stage) for stage in self.stages],
            "refit": head.refit(self._objective, before) if head.worth_refitting() else None,
        }
        if self.everyone.first:
            write_json(self.out / "result.json", result)
            save_query_model(self.model, self.out)
        self.everyone.meet()
        return read_result(self.out)

    def _tell_if_in_vain(self) -> None:
        """Say so where held-out photos rate no trained stage as high as the closed form that no gradient made."""
        first, last = self.stages[0], self.stages[-1]  # the same where nothing is trained
        if self.config.starts_closed and last.overlap < first.overlap:
            rather = " or `held_out_by` photos" if self.config.held_out_by is HeldOutBy.KINDS else ""
            self.reporter.message(
                f"note: held-out photos rate the closed form higher than what was trained, {first.overlap:.4f} and "
                f"{last.overlap:.4f}; it is kept in {self.out / 'closed_form'}. Compare both with edgecsd evaluate; "
                f"`head_steps` 0 `epochs` 0{rather} may serve better"
            )

    def _overlap(self, embeddings: Floats) -> float:
        return self.data.held_out_overlap(embeddings, self.config.overlap_k)

    def _stage(self, name: str, embeddings: Floats) -> None:
        overlap = self._overlap(embeddings)
        require_directions(embeddings, self.config.query_model)
        truth = self.data.own_features(self.data.held_out)
        cosine = float((embeddings * truth).sum(1).mean())
        self.stages.append(Stage(name, overlap, cosine, error_ratio(embeddings, truth)))
        self.reporter.message(f"{name}: held-out overlap@{self.config.overlap_k} {overlap:.4f} (cosine {cosine:.4f})")

    def _objective(self, data: TrainingSet) -> Objective:
        objective = make_objective(data, self.config, self.cache, everyone=self.everyone, reporter=self.reporter)
        if objective.anchors is not None and data is self.data:
            warn(self.config, objective.anchors.ids.shape[1], data.store.space.dim, self.reporter)
        return objective


def tell_held_out(data: TrainingSet, by: HeldOutBy, reporter: Reporter) -> None:
    """How many photos judge the run, and what the other way to choose them is for."""
    what = (
        "by kinds of them; where queries show no others than these photos do, `held_out_by` photos"
        if by is HeldOutBy.KINDS
        else "single ones; where queries may show other kinds than these photos do, `held_out_by` kinds"
    )
    reporter.message(f"held out: {len(data.held_out)} of {len(data.images)} photos, {what}")


def warn(config: DistillConfig, k: int, dim: int, reporter: Reporter) -> None:
    """Tell what is known to go wrong with these settings, k anchors an image and `dim` dimensions."""
    if k < config.k:
        reporter.message(f"the gallery offers only {k} anchors an image; {config.k} were asked for")
    if k < dim and config.order is not Order.FIRST:
        along = f"{k} anchors < {dim} dimensions: along the directions that none of them has, "
        reporter.message(
            f"warning: {along}nothing holds the query"
            if config.order is Order.SECOND
            else f"note: {along}only the first-order term holds the query"
        )
    if config.loss is Loss.CSD_KL and config.order is Order.SECOND:
        reporter.message(
            "warning: `order` second of csd-kl still holds q.g and pushes the query away from its own gallery feature; "
            "it is there for study"
        )
    if config.loss is Loss.CSD_KL and config.tau_q != config.tau_g:
        few = f", far from it with only {k} anchors" if k < FEW_ANCHORS else ""
        reporter.message(
            f"warning: `tau_q` {config.tau_q:g} and `tau_g` {config.tau_g:g} differ: the best query is not the gallery "
            f"feature{few}; use equal ones"
        )
