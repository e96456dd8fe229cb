"""The head stage: everything behind the backbone, trained on its cached features. Pure in (settings, data, step)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecsd.features.mapped import FlatViews
from edgecsd.models.query import QueryModel
from edgecsd.progress import SILENT, Reporter
from edgecsd.training.keeping import Selection, State, best_between, head_shares, interpolated, least_of_a_head
from edgecsd.training.log import TrainingLog
from edgecsd.training.network_stage import learning_rate_factor
from edgecsd.training.objective import Objective
from edgecsd.training.settings import DistillConfig
from edgecsd.training.training_set import TrainingSet

VALIDATIONS = 8  # in the course of the stage
Array = NDArray[np.floating[Any]]
BLOCK = 256  # cached features projected at once


STAGE_START, BEST_CLOSED_FORM = "this stage's start", "the best closed form"
Origins = Mapping[str, State]  # by these names: heads in closed form


@dataclass(frozen=True)
class HeadPlan:
    """How far held-out photos let the head's training go.

    trained  share of the stage's steps that they kept weights of; 0: of none
    way      share of the way to those weights; 0: it is what that way begins with
    begins   what that way begins with, of `Origins`
    """

    trained: float
    way: float
    begins: str = STAGE_START


def train_head(
    model: QueryModel,
    pooled: Array,
    data: TrainingSet,
    objective: Objective,
    log: TrainingLog,
    reporter: Reporter = SILENT,
    *,
    origins: Origins = MappingProxyType({}),
) -> HeadPlan:
    """Train what stands behind the backbone, on its cached features. Kept is as much of the way from an origin to the
    end as `best_between` takes, of several that which is best by held-out photos; without one what `Selection` takes.

    pooled: (all images, 1 + V, ...) of `model.pooled`: vectors (C,) or, where the head takes them, maps (C, h, w).
    origins: STAGE_START is what training begins with, which is the model's own
    """
    config = objective.config
    selection, start = Selection(config.held_out_by, everything=not config.select), copy_head(model)
    overlaps = _overlaps(model, pooled, data, config)
    selection.takes(overlaps)
    kept, kept_at, way = start, 0, 1.0
    log.record(0, loss=None, held_out_overlap=float(overlaps.mean()))
    total = head_steps(config, len(data.train) * pooled.shape[1])
    every = max(1, total // VALIDATIONS)
    with reporter.task("training the projection", total) as advance:
        for step, loss in _steps(model, pooled, data, objective, total, log):
            advance(1)
            if step % every == 0 or step == total:
                overlaps = _overlaps(model, pooled, data, config)
                log.record(step, loss=loss, held_out_overlap=float(overlaps.mean()))
                if selection.takes(overlaps):
                    kept, kept_at = copy_head(model), step
    begins = STAGE_START
    if origins:
        kept, kept_at, by = copy_head(model), total, config.held_out_by

        def judge(state: State) -> NDArray[np.float64]:
            model.load_head_state(state)
            return _overlaps(model, pooled, data, config)

        shares, least = head_shares(by), least_of_a_head(by, len(data.held_out))
        ways = [best_between(each, kept, shares, judge, by, named=name, least=least) for name, each in origins.items()]
        found = [each for each in ways if each is not None]
        if found:
            best = max(found, key=lambda each: each.overlap)  # of equals the first
            way, begins, start = best.share, best.named, origins[best.named]
            reporter.message(best.in_words)
    model.load_head_state(interpolated(start, kept, way))
    return HeadPlan(kept_at / total if way else 0.0, way, begins)


def repeat_head(
    model: QueryModel,
    pooled: Array,
    data: TrainingSet,
    objective: Objective,
    plan: HeadPlan,
    log: TrainingLog,
    reporter: Reporter = SILENT,
    *,
    origins: Origins = MappingProxyType({}),
) -> None:
    """The training of `train_head` as far as it went, on the images that are `data.train` now; nothing is selected."""
    start = origins.get(plan.begins) or copy_head(model)
    total = head_steps(objective.config, len(data.train) * pooled.shape[1])
    last = round(plan.trained * total)
    with reporter.task("training the projection on all photos", last) as advance:
        for _ in islice(_steps(model, pooled, data, objective, total, log), last):
            advance(1)
    model.load_head_state(interpolated(start, copy_head(model), plan.way))


def _steps(
    model: QueryModel, pooled: Array, data: TrainingSet, objective: Objective, total: int, log: TrainingLog
) -> Iterator[tuple[int, float]]:
    """Train step by step: (steps taken, loss) after each of `total`."""
    config, parameters, views_each = objective.config, model.head_parameters(), pooled.shape[1]
    optimizer = torch.optim.AdamW(parameters, lr=config.head_lr, weight_decay=config.weight_decay)
    for step in range(total):
        images, views = _random_pairs(config, step, len(data.train), views_each)
        rate = config.head_lr * learning_rate_factor(step, total, config.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = objective.loss(model.project(taken(pooled, data.train[images], views)), images, views)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        log.scalars(step + 1, loss=loss.item(), learning_rate=rate)
        yield step + 1, loss.item()


def head_steps(config: DistillConfig, views: int) -> int:
    """Steps for a training set of `views` views in all: `head_steps`, or those of `head_passes` if they are fewer."""
    return min(config.head_steps, config.head_passes * -(-views // config.head_batch_size))


def _random_pairs(
    config: DistillConfig, step: int, images: int, views: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    random = np.random.Generator(np.random.Philox(key=[config.seed, step]))
    size = min(config.head_batch_size, images)
    return random.choice(images, size, replace=False), random.integers(0, views, size)


def copy_head(model: QueryModel) -> State:
    """The weights of everything behind the backbone, apart from the model."""
    return {name: value.detach().clone() for name, value in model.head_state().items()}


def taken(pooled: Array, images: NDArray[np.int64], views: NDArray[np.int64] | int) -> Tensor:
    """(B, ...) cached features of some views, as float32; the others stay on disk."""
    return torch.from_numpy(np.asarray(pooled[images, views])).float()


def _overlaps(model: QueryModel, pooled: Array, data: TrainingSet, config: DistillConfig) -> NDArray[np.float64]:
    return data.held_out_overlaps(project_all(model, taken(pooled, data.held_out, 0)), config.overlap_k)


class HiddenRows:
    """What the linear projection is applied to, (M, C), made from cached features where a slice of it is asked for."""

    def __init__(self, model: QueryModel, pooled: FlatViews) -> None:
        self._model, self._pooled = model, pooled

    def __len__(self) -> int:
        return len(self._pooled)

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        with torch.inference_mode():
            blocks = torch.split(torch.from_numpy(self._pooled[rows]), BLOCK)
            hidden: NDArray[np.float32] = torch.cat([self._model.hidden(block.float()) for block in blocks]).numpy()
        return hidden


def project_all(model: QueryModel, pooled: Tensor) -> NDArray[np.float32]:
    """(N, ...) cached features -> (N, D) embeddings, in blocks."""
    with torch.inference_mode():
        blocks = [model.project(block.float()) for block in torch.split(pooled, BLOCK)]
    embeddings: NDArray[np.float32] = torch.cat(blocks).numpy()
    return embeddings
