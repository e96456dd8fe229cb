"""A distillation small enough for tests, as a program too, so that a test can kill it: python distillations.py DIR."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from edgecsd.features.store import FeatureStore
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.training import distill as distill_module
from edgecsd.training import network_stage as training
from edgecsd.training.distill import distill
from edgecsd.training.network_stage import NetworkTraining
from edgecsd.training.run_folder import DistillResult
from edgecsd.training.settings import DistillConfig
from edgecsd.training.training_set import TrainingSet, make_training_set

SETTINGS: dict[str, Any] = {
    "query_model": "test_efficientnet",
    "pretrained": False,
    "size": 48,
    "k": 12,
    "head_steps": 12,
    "head_batch_size": 8,
    "epochs": 2,
    "batch_size": 4,
    "held_out": 0.2,
    "overlap_k": 5,
    "checkpoint_steps": 3,
    "seed": 5,
    "backbone_lr": 1e-4,
    "projection_lr": 1e-3,
    "head_lr": 1e-3,
    "refit": False,
}


def config(**changes: Any) -> DistillConfig:
    return DistillConfig.model_validate({**SETTINGS, **changes})


def run(photos: Path | ImageSet, store: Path, out: Path, **options: Any) -> DistillResult:
    """Two decoding threads, one computing thread: the same numbers on a busy machine as on a quiet one."""
    torch.set_num_threads(1)
    distill_module.PART_ITEMS = 6
    options.setdefault("config", config())
    images = photos if isinstance(photos, ImageSet) else find_images(photos)
    return distill(images, store, out, workers=2, **options)


def training_set(photos: Path, store: FeatureStore, by: str = "kinds") -> TrainingSet:
    """What a run with SETTINGS learns from."""
    settings = config(held_out_by=by)
    return make_training_set(
        find_images(photos),
        store,
        None,
        share=settings.held_out,
        limit=settings.held_out_limit,
        overlap_k=settings.overlap_k,
        by=settings.held_out_by,
    )


def die_at(stage: str) -> None:
    """Have this very process killed, as by `kill -9`, in the middle of a stage."""
    if stage == "pooled":
        from edgecsd.files.whole import Parts

        write = Parts.write

        def write_and_die(self: Parts, number: int, **arrays: Any) -> None:
            write(self, number, **arrays)
            if "pooled" in self.folder.name and number == 1:
                kill()

        Parts.write = write_and_die  # type: ignore[method-assign]
    elif stage == "head":
        from edgecsd.training import head_training

        def die_at_step_7(step: int, total: int, warmup: float) -> float:
            return kill() if step == 7 else training.learning_rate_factor(step, total, warmup)

        head_training.learning_rate_factor = die_at_step_7
    elif stage == "network":
        train_step = NetworkTraining.train_step

        def train_and_die(self: NetworkTraining, *arguments: Any) -> float:
            return kill() if self.step == 5 else train_step(self, *arguments)  # one step after a checkpoint

        NetworkTraining.train_step = train_and_die  # type: ignore[method-assign]


def kill() -> Any:
    """Of torchrun's processes only the last dies: the others have to notice."""
    if int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1:
        os.kill(os.getpid(), 9)
    time.sleep(60)


if __name__ == "__main__":
    photos, store, out, stage = sys.argv[1:]
    die_at(stage)
    run(Path(photos), Path(store), Path(out))
