"""The head stage: the projection alone, trained on cached pooled features. Pure in (settings, data, step)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecsd.distill_config import DistillConfig
from edgecsd.progress import SILENT, Reporter
from edgecsd.selection import Selection
from edgecsd.training import ContextualTargets, copy_state, learning_rate_factor
from edgecsd.training_log import TrainingLog
from edgecsd.training_set import TrainingSet

VALIDATIONS = 8  # in the course of the stage


def train_head(
    projection: nn.Linear,
    project: Callable[[Tensor], Tensor],
    pooled: NDArray[np.float32],
    data: TrainingSet,
    targets: ContextualTargets,
    log: TrainingLog,
    reporter: Reporter = SILENT,
) -> None:
    """Train the projection on pooled features (all images, 1 + V, C); keeps what `Selection` takes.

    `project` maps (B, C) pooled features to embeddings through `projection`.
    """
    config, features = targets.config, torch.from_numpy(pooled)
    optimizer = torch.optim.AdamW(projection.parameters(), lr=config.head_lr, weight_decay=config.weight_decay)
    train = torch.from_numpy(data.train)
    selection, overlaps = Selection(), _overlaps(project, features, data, config)
    kept = copy_state(projection) if selection.takes(overlaps) else {}
    log.record(0, loss=None, held_out_overlap=float(overlaps.mean()))
    total = head_steps(config, len(train) * features.shape[1])
    every = max(1, total // VALIDATIONS)
    with reporter.task("training the projection", total) as advance:
        for step in range(total):
            images, views = _random_pairs(config, step, len(train), features.shape[1])
            rate = config.head_lr * learning_rate_factor(step, total, config.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = targets.loss(project(features[train[images], views]), images, views)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(projection.parameters(), config.clip)
            optimizer.step()
            log.scalars(step + 1, loss=loss.item(), learning_rate=rate)
            advance(1)
            if (step + 1) % every == 0 or step + 1 == total:
                overlaps = _overlaps(project, features, data, config)
                log.record(step + 1, loss=loss.item(), held_out_overlap=float(overlaps.mean()))
                if selection.takes(overlaps):
                    kept = copy_state(projection)
    projection.load_state_dict(kept)


def head_steps(config: DistillConfig, views: int) -> int:
    """Steps for a training set of `views` views in all: `head_steps`, or those of `head_passes` if they are fewer."""
    return min(config.head_steps, config.head_passes * -(-views // config.head_batch_size))


def _random_pairs(
    config: DistillConfig, step: int, images: int, views: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    random = np.random.Generator(np.random.Philox(key=[config.seed, step]))
    size = min(config.head_batch_size, images)
    return random.choice(images, size, replace=False), random.integers(0, views, size)


def _overlaps(
    project: Callable[[Tensor], Tensor], features: Tensor, data: TrainingSet, config: DistillConfig
) -> NDArray[np.float64]:
    with torch.inference_mode():
        embeddings = project(features[torch.from_numpy(data.held_out), 0]).numpy()
    return data.held_out_overlaps(embeddings, config.overlap_k)
