"""Quantisation-aware distillation: a few hundred steps of the run's own loss through the network as its file computes.

FOLDER/                     a run folder: `edgecsd export FOLDER --recipe ...` makes the file again
  tuned.json                what went in
  cache/, checkpoints/, metrics.jsonl
  query_model.safetensors   written last, with query_model.json
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import digest_of, read_json, remove, write_json
from edgecsd.models.query import QueryModel, load_query_model, save_query_model
from edgecsd.photos.decoding import photo_digest
from edgecsd.photos.images import ImageSet
from edgecsd.precision_search.rounding import RoundedLayers, plain_state
from edgecsd.progress import Reporter
from edgecsd.quantisation.calibration import pixels_digest
from edgecsd.quantisation.equalisation import equalise
from edgecsd.quantisation.precisions import EightBit
from edgecsd.targets.deploy import DeployModel
from edgecsd.training.choices import TrainPrecision
from edgecsd.training.log import NoLog, TrainingLog
from edgecsd.training.network_stage import NetworkTraining
from edgecsd.training.objective import Objective, make_objective
from edgecsd.training.settings import DistillConfig
from edgecsd.training.training_set import TrainingSet, make_training_set

ROUND = 50  # steps between two validations, checkpoints and measurements of ranges
RATE = 0.3  # of the distillation's own learning rates: the weights are trained already
SETTINGS = "tuned.json"


@dataclass(frozen=True)
class Tune:
    """What `tune` asks for.

    steps     of quantisation-aware distillation, rounded up to whole rounds
    images    photos to train on, those that are searched with left out
    features  the store that has their gallery features, and views
    """

    steps: int
    images: ImageSet
    features: FeatureStore


def tune(
    run: Path,
    folder: Path,
    asked: Tune,
    gallery: FeatureStore,
    held_out: frozenset[str],
    how: EightBit,
    calibration: NDArray[np.uint8],
    reporter: Reporter,
) -> Path:
    """Distil the run's query model on, with the layers of `how` rounded to 8 bit; the folder of the tuned model.

    held_out     ids of photos in `gallery` that must not be trained on, nor copies of theirs
    calibration  (n, S, S, 3) uint8, for the ranges
    A folder that is whole is returned as it is, one that is not goes on from its checkpoint. Raises BadInputError for a
    run that no distillation made and for too few photos.
    """
    config = _settings(run, asked.steps)
    data = _training_set(asked, gallery, held_out, config)
    model = load_query_model(run)
    if how.equalisation:
        equal = DeployModel(model)
        equalise(equal, calibration)
        model.load_state_dict(equal.query_model.state_dict())
    made_of = {
        "kind": "edgecsd tuned run",
        "weights": model.config.weights_digest,
        "how": [how.percentile, how.changes],
        "config": config.model_dump(mode="json"),
        "steps": asked.steps,
        "images": digest_of([list(data.images.ids), list(data.digests)]),
        "features": data.store.digest,
        "gallery": gallery.digest,
        "calibration": pixels_digest(calibration),
    }
    if (folder / SETTINGS).is_file() and read_json(folder / SETTINGS) != made_of:
        remove(folder)
    if (folder / "query_model.json").is_file():
        reporter.message(f"{folder.name} is already whole")
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, made_of)
    reporter.message(f"{folder.name}: {len(data.train)} photos to train on, {len(data.held_out)} to select by")
    objective = make_objective(data, config, folder / "cache", reporter=reporter)
    training = _RoundedTraining(model, data, objective, folder, RoundedLayers(model, how, calibration), asked.steps)
    training.run(reporter)
    tuned = load_query_model(run)
    tuned.load_state_dict(plain_state(model))
    save_query_model(tuned, folder)
    return folder


class _RoundedTraining(NetworkTraining):
    """The distillation's own training of the whole network, in rounds of `ROUND` steps, of rounded layers."""

    def __init__(
        self,
        model: QueryModel,
        data: TrainingSet,
        objective: Objective,
        folder: Path,
        rounded: RoundedLayers,
        steps: int,
    ) -> None:
        self._rounded = rounded
        super().__init__(model, data, objective, folder, workers=2)
        self.steps_per_epoch, rounds = rounds_of(steps, self.steps_per_epoch)
        self.total = rounds * self.steps_per_epoch
        self.config = self.config.model_copy(
            update={"epochs": rounds, "checkpoint_steps": self.steps_per_epoch}
        )  # a checkpoint only where ranges are measured: what goes on from it measures the same

    def _validate(self, log: TrainingLog | NoLog, loss: float | None = None) -> float:
        self._rounded.measure()
        return super()._validate(log, loss)

    def _resume(self) -> bool:
        resumed = super()._resume()
        if resumed:
            self._rounded.measure()
        return resumed


def rounds_of(steps: int, most: int) -> tuple[int, int]:
    """(steps a round, rounds): the fewest rounds of at most `ROUND` and `most` steps, alike, that make `steps`."""
    rounds = math.ceil(steps / min(ROUND, most))
    return math.ceil(steps / rounds), rounds


def _settings(run: Path, steps: int) -> DistillConfig:
    if steps < 1:
        raise BadInputError(f"`tune` {steps}: 1 step or more")
    if not (run / "run.json").is_file():
        raise BadInputError(f"`tune` goes on with a distillation, and {run}/run.json, which holds its loss, is missing")
    config = DistillConfig.model_validate(read_json(run / "run.json")["config"])
    changes: dict[str, Any] = {
        "backbone_lr": RATE * config.backbone_lr,
        "projection_lr": RATE * config.projection_lr,
        "freeze_norm": True,
        "ema": 0.0,
        "precision": TrainPrecision.FP32,
        "learn_gem_p": False,
        "interpolate": False,  # what was tuned is kept whole or not at all
        "anchor_views": config.anchor_views and None,  # how many views there are is another store's matter now
    }
    return config.model_copy(update=changes)


def _training_set(asked: Tune, gallery: FeatureStore, held_out: frozenset[str], config: DistillConfig) -> TrainingSet:
    """The photos to train on: neither one that is searched with, nor a copy of one."""
    items = gallery.items
    searched = {photo_digest(items.digests[gallery.row_of[item]]) for item in held_out} - {""}
    own, views = asked.features.items.digests, asked.features.views.count
    left = []
    for position, item in enumerate(asked.images.ids):
        row = asked.features.row_of.get(item)
        copy = row is not None and own[row] and photo_digest(own[row]) in searched
        if item not in held_out and not copy:
            left.append(position)
    return make_training_set(
        asked.images.subset(left),
        gallery,
        asked.features,
        share=config.held_out,
        limit=config.held_out_limit,
        overlap_k=config.overlap_k,
        by=config.held_out_by,
        views=views if config.views is None else min(config.views, views),
    )
