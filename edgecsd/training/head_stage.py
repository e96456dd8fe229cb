"""The head of a run: its closed-form start, its training, and at the end the same once more on all photos."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from edgecsd.distributed import Ranks
from edgecsd.features.mapped import FlatViews
from edgecsd.files.whole import replace_whole
from edgecsd.models.query import QueryModel
from edgecsd.progress import Reporter
from edgecsd.training.choices import HeldOutBy
from edgecsd.training.closed_form import STRENGTHS, ClosedForms, Projection
from edgecsd.training.frozen_features import Array
from edgecsd.training.head_training import (
    BEST_CLOSED_FORM,
    STAGE_START,
    HeadPlan,
    HiddenRows,
    Origins,
    copy_head,
    project_all,
    repeat_head,
    train_head,
)
from edgecsd.training.keeping import State
from edgecsd.training.log import TrainingLog
from edgecsd.training.objective import Objective
from edgecsd.training.settings import DistillConfig
from edgecsd.training.training_set import TrainingSet

REFIT_ABOVE = 0.02  # share of the photos held out: less of them would teach the head nothing new
Start = str | float  # "procrustes", or the strength of a ridge regression


class HeadStage:
    """Everything behind the backbone of `model`, on the backbone's cached features.

    What was trained is kept in OUT/cache and not trained twice: minutes, which the first of several processes spends
    for all.
    """

    def __init__(
        self,
        model: QueryModel,
        data: TrainingSet,
        config: DistillConfig,
        pooled: Array,
        out: Path,
        everyone: Ranks,
        reporter: Reporter,
    ) -> None:
        """pooled: (all images, 1 + V, ...) cached features; of `model` as it is, its head untrained."""
        self.model, self.data, self.config, self.pooled = model, data, config, pooled
        self.out, self.everyone, self.reporter = out, everyone, reporter
        self._untrained = copy_head(model)
        self._start: Start = config.head_start  # of training
        self._best: Start = config.head_start  # by held-out photos
        self._origins: Origins = {}
        self._plan = HeadPlan(0.0, 1.0)

    def begin_closed(self) -> Projection:
        """Set the projection to the closed form that retrieves held-out photos best; what training begins with."""
        forms = self._forms(self.data.train)
        held_out = HiddenRows(self.model, FlatViews(self.pooled, self.data.held_out, 1))[:]
        starts: tuple[Start, ...] = ("procrustes", *STRENGTHS)
        found = {start: _form(forms, start) for start in starts}
        overlaps = {
            start: self.data.held_out_overlap(form(held_out), self.config.overlap_k) for start, form in found.items()
        }
        best = max(overlaps, key=overlaps.__getitem__)
        self.reporter.message(f"best closed form on held-out photos: {_named(best)}")
        # For training not what is best by itself: that may have fitted details of the training photos that gradient
        # steps don't undo (docs/decisions/0004, 0010)
        self._start = self.config.head_start if self.config.head_steps else best
        self._best = best
        self._origins = self._lines(forms)
        self.set_projection(found[best])
        return _form(forms, self._start)

    @property
    def begins_at(self) -> str:
        """What training begins with, in words."""
        return f"the {_named(self._start)}"

    def train(self, objective: Objective) -> None:
        """Train the head, or take the one that an earlier process of this run trained."""
        file = self.out / "cache" / "head.safetensors"
        with self.everyone.one_ahead():
            if not file.is_file():
                with closing(TrainingLog(self.out, "head")) as log:
                    plan = train_head(
                        self.model, self.pooled, self.data, objective, log, self.reporter, origins=self._origins
                    )
                self._save(file, plan)
            self._plan = self._load(file)

    def worth_refitting(self) -> bool:
        """Whether there is a head, and enough photos were held out from it to fit it again; a message where too few."""
        config, held_out, images = self.config, len(self.data.held_out), len(self.data.images)
        fitted = config.starts_closed or (config.head_steps > 0 and bool(self.model.head_parameters()))
        enough = held_out > REFIT_ABOVE * images
        if config.refit and fitted and not enough:
            self.reporter.message(f"the head is not fitted once more: only {held_out} of {images} photos were held out")
        return config.refit and fitted and enough

    def refit(self, make_objective: Callable[[TrainingSet], Objective], before: State) -> int:
        """Fit the head once more, as far as held-out photos said, to all photos, those among them; their number.

        What the network's stage has changed in the head since it was `before` is added to it: the difference that a
        training makes can be carried over to other weights nearby (Ilharco et al., "Editing models with task
        arithmetic", ICLR 2023).
        """
        changed = {name: now - before[name] for name, now in copy_head(self.model).items() if now.is_floating_point()}
        file, everything = self.out / "cache" / "refit.safetensors", np.arange(len(self.data.images))
        data = replace(self.data, train=everything)
        objective = make_objective(data) if self._plan.trained else None
        with self.everyone.one_ahead():
            if not file.is_file():
                self.model.load_head_state(self._untrained)
                origins: Origins = {}
                if self.config.starts_closed:
                    forms = self._forms(everything)
                    origins = self._lines(forms)
                    kept = self._best if self._plan.begins == BEST_CLOSED_FORM else self._start
                    self.set_projection(_form(forms, self._start if objective is not None else kept))
                if objective is not None:
                    with closing(TrainingLog(self.out, "refit")) as log:
                        repeat_head(
                            self.model, self.pooled, data, objective, self._plan, log, self.reporter, origins=origins
                        )
                self._save(file, self._plan)
            self._load(file)
        again = copy_head(self.model)
        self.model.load_head_state({name: again[name] + difference for name, difference in changed.items()})
        self.reporter.message(
            f"the head was fitted once more, to all {len(everything)} photos with the {len(self.data.held_out)} "
            "held-out ones: the figures are of before"
        )
        return len(everything)

    def project_held_out(self) -> NDArray[np.float32]:
        """(H, D) embeddings of the held-out images, by the head as it is."""
        return project_all(self.model, torch.from_numpy(self.pooled[self.data.held_out, 0]))

    def _forms(self, images: NDArray[np.int64]) -> ClosedForms:
        """From the cached features of the images' views to their gallery features."""
        inputs = HiddenRows(self.model, FlatViews(self.pooled, images))
        return ClosedForms(inputs, FlatViews(self.data.features, images, self.pooled.shape[1]))

    def _lines(self, forms: ClosedForms) -> Origins:
        """The heads that a way to training's end may begin with, if any way is looked at.

        Such a way undoes nothing, so that what is best by itself is one, where single photos judge it: kinds would take
        it back to where their own figures are (docs/decisions/0011, 0013).
        """
        if not self.config.goes_part_way:
            return {}
        lines = {STAGE_START: self._with_projection(_form(forms, self._start))}
        if self.config.held_out_by is HeldOutBy.PHOTOS and self._best != self._start:
            lines[BEST_CLOSED_FORM] = self._with_projection(_form(forms, self._best))
        return lines

    def _with_projection(self, projection: Projection) -> State:
        """The head with this one, which the model is left with."""
        self.set_projection(projection)
        return copy_head(self.model)

    def set_projection(self, projection: Projection) -> None:
        """Let the last matrix be this one."""
        assert isinstance(self.model.projection, nn.Linear)
        with torch.no_grad():
            self.model.projection.weight.copy_(torch.from_numpy(projection.weight))
            self.model.projection.bias.copy_(torch.from_numpy(projection.bias))

    def _save(self, file: Path, plan: HeadPlan) -> None:
        state = {name: value.contiguous() for name, value in self.model.head_state().items()}
        with replace_whole(file) as temporary:
            save_file(state, temporary, {"plan": json.dumps(vars(plan))})

    def _load(self, file: Path) -> HeadPlan:
        with safe_open(file, "pt") as stored:
            plan = HeadPlan(**json.loads(stored.metadata()["plan"]))
        self.model.load_head_state(load_file(file))
        return plan


def _form(forms: ClosedForms, start: Start) -> Projection:
    return forms.ridge(start) if isinstance(start, float) else forms.procrustes()


def _named(start: Start) -> str:
    return f"ridge regression, strength {start:.2g}" if isinstance(start, float) else "rotation (Procrustes)"
