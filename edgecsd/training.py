"""The two gradient stages of a distillation: the projection alone on cached pooled features, then the whole network.

Both are pure functions of (settings, data, step), so that a killed run continued from its checkpoint ends with the
same weights, bit for bit on the same machine, as one that was never interrupted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from edgecsd.anchors import Anchors, contextual_similarities
from edgecsd.backbones import to_input
from edgecsd.distill_config import DistillConfig
from edgecsd.errors import BadInputError, missing_extra
from edgecsd.files import replace_whole
from edgecsd.images import load_in_order
from edgecsd.losses.csd_kl import csd_kl
from edgecsd.progress import SILENT, Reporter
from edgecsd.query_models import QueryModel
from edgecsd.training_set import TrainingSet

try:
    from lightning_fabric import Fabric
except ImportError:
    raise missing_extra("lightning-fabric", "train") from None


@dataclass
class ContextualTargets:
    """The gallery side of the loss for training vectors: row = position in `train` x (1 + views) + view."""

    features: Tensor  # (T, 1 + V, D) of the training images only
    gallery: Tensor  # (N, D)
    anchors: Anchors  # ids and similarities of shape (T x (1 + V), K)
    config: DistillConfig = field(repr=False)

    def loss(self, embeddings: Tensor, images: NDArray[np.int64], views: NDArray[np.int64]) -> Tensor:
        """Contextual loss of (B, D) embeddings of the given views of the given training images."""
        own = self.features[torch.from_numpy(images), torch.from_numpy(views)]
        rows = images * self.features.shape[1] + views
        ids = torch.from_numpy(self.anchors.ids[rows].astype(np.int64))
        queries = contextual_similarities(embeddings, own, self.gallery, ids)
        others = torch.from_numpy(self.anchors.similarities[rows].astype(np.float32))
        target = torch.cat([(own * own).sum(1, keepdim=True), others], dim=1)
        return csd_kl(queries, target, tau_q=self.config.tau_q, tau_g=self.config.tau_g)


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over the share `warmup` of all steps, then a half cosine to 0."""
    ramp = max(1, round(warmup * total))
    if step < ramp:
        return (step + 1) / ramp
    return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, total - ramp)))


def train_head(
    projection: nn.Linear, project: Any, pooled: NDArray[np.float32], data: TrainingSet, targets: ContextualTargets, reporter: Reporter = SILENT
) -> list[dict[str, float]]:
    """Train the projection on pooled features (all images, 1 + V, C); keeps the weights best on held-out images.

    `project` maps (B, C) pooled features to embeddings through `projection`. Returns one record a validation.
    """
    config, features = targets.config, torch.from_numpy(pooled)
    optimizer = torch.optim.AdamW(projection.parameters(), lr=config.head_lr, weight_decay=config.weight_decay)
    train = torch.from_numpy(data.train)
    best, best_overlap, records = _copy(projection), _head_overlap(project, features, data, config), []
    every = max(1, config.head_steps // 8)
    with reporter.task("training the projection", config.head_steps) as advance:
        for step in range(config.head_steps):
            images, views = _random_pairs(config, step, len(train), features.shape[1])
            for group in optimizer.param_groups:
                group["lr"] = config.head_lr * learning_rate_factor(step, config.head_steps, config.warmup)
            loss = targets.loss(project(features[train[images], views]), images, views)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(projection.parameters(), config.clip)
            optimizer.step()
            advance(1)
            if (step + 1) % every == 0 or step + 1 == config.head_steps:
                overlap = _head_overlap(project, features, data, config)
                records.append({"step": step + 1, "loss": loss.item(), "held_out_overlap": overlap})
                if overlap > best_overlap:
                    best, best_overlap = _copy(projection), overlap
    projection.load_state_dict(best)
    return records


def _random_pairs(config: DistillConfig, step: int, images: int, views: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    random = np.random.Generator(np.random.Philox(key=[config.seed, step]))
    size = min(config.head_batch_size, images)
    return random.choice(images, size, replace=False), random.integers(0, views, size)


def _head_overlap(project: Any, features: Tensor, data: TrainingSet, config: DistillConfig) -> float:
    with torch.inference_mode():
        embeddings = project(features[torch.from_numpy(data.held_out), 0]).numpy()
    return data.held_out_overlap(embeddings, config.overlap_k)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


class NetworkTraining:
    """Trains the whole query model on cached views, with checkpoints in `folder` and records in metrics.jsonl."""

    def __init__(self, model: QueryModel, data: TrainingSet, targets: ContextualTargets, folder: Path, *, workers: int) -> None:
        self.config, self.data, self.targets, self.workers = targets.config, data, targets, workers
        self.folder, self.model = folder, model
        self.steps_per_epoch = max(1, len(data.train) // self.config.batch_size)
        self.total = self.config.epochs * self.steps_per_epoch
        self.step, self.best_overlap, self.best = 0, -1.0, _copy(model)
        self.fabric = Fabric(accelerator="cpu", devices=1, precision=self.config.precision.value)  # type: ignore[arg-type]
        self._module, self._optimizer = self.fabric.setup(model, self._make_optimizer())

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW, two rates, no decay on biases and norms."""
        groups = []
        for module, rate in ((self.model.backbone, self.config.backbone_lr), (self.model.projection, self.config.projection_lr)):
            parameters = [p for p in module.parameters() if p.requires_grad]
            groups.append({"params": [p for p in parameters if p.ndim > 1], "base": rate, "weight_decay": self.config.weight_decay})
            groups.append({"params": [p for p in parameters if p.ndim <= 1], "base": rate, "weight_decay": 0.0})
        return torch.optim.AdamW(groups, lr=0.0)

    def run(self, reporter: Reporter = SILENT) -> None:
        """Train to the end from wherever a checkpoint left off; the best weights on held-out images are loaded last."""
        if self._resume():
            reporter.message(f"going on from step {self.step} of {self.total}")
        elif self.step == 0:
            self._validate(loss=float("nan"))
        with reporter.task("training the network", self.total, self.step) as advance:
            while self.step < self.total:
                for images, views, pixels in self._batches():
                    loss = self._train_step(images, views, pixels)
                    self.step += 1
                    advance(1)
                    if self.step % self.steps_per_epoch == 0:
                        self._validate(loss)
                        reporter.message(
                            f"epoch {self.step // self.steps_per_epoch} of {self.config.epochs}: loss {loss:.4f}, held-out overlap@{self.config.overlap_k} {self.last_overlap:.4f}"
                        )
                    if self.step % self.config.checkpoint_steps == 0 or self.step % self.steps_per_epoch == 0:
                        self._save()
        self.model.load_state_dict(self.best)
        self.model.eval()

    def _batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]]:
        """The rest of the current epoch: (positions in `train` (B,), view numbers (B,), (B, S, S, 3) pixels)."""
        epoch, first = divmod(self.step, self.steps_per_epoch)
        order, views = self.epoch_plan(epoch)
        start = first * self.config.batch_size
        order = order[: self.steps_per_epoch * self.config.batch_size]
        positions = self.data.train[order[start:]]
        view_of = {int(p): int(views[i]) for i, p in zip(order, self.data.train[order], strict=True)}
        recipe, ids = self.data.store.views, self.data.images.ids

        def transform(position: int, image: Image.Image) -> tuple[NDArray[np.uint8], ...]:
            return (self.model.config.preprocess.pixels(recipe.view(image, ids[position], view_of[position])),)

        batch: list[NDArray[np.uint8]] = []
        for item in load_in_order(self.data.images, positions.tolist(), transform, workers=self.workers):
            if item.problem:
                raise BadInputError(f"{item.problem}; it could be read when its features were extracted")
            known = self.data.digests[item.position]
            if known and item.digest != known:
                raise BadInputError(f"{self.data.images.path(item.position)}: changed since its features were extracted; extract again")
            batch.append(item.arrays[0])
            if len(batch) == self.config.batch_size:
                chosen = order[start : start + len(batch)]
                yield chosen, views[chosen], np.stack(batch)
                start, batch = start + len(batch), []

    def epoch_plan(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The order of the training images in an epoch, and which view of each is shown: pure in (seed, epoch)."""
        count, views = len(self.data.train), self.targets.features.shape[1]
        random = np.random.Generator(np.random.Philox(key=[self.config.seed, 1 << 32 | epoch]))
        offsets = np.random.Generator(np.random.Philox(key=[self.config.seed, 1 << 33])).integers(0, views, count)
        return random.permutation(count), (offsets + epoch) % views

    def _train_step(self, images: NDArray[np.int64], views: NDArray[np.int64], pixels: NDArray[np.uint8]) -> float:
        self._set_mode()
        factor = learning_rate_factor(self.step, self.total, self.config.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = group["base"] * factor
        embeddings = self._module(to_input(pixels, self.model.config.preprocess))
        loss = self.targets.loss(embeddings.float(), images, views)
        self._optimizer.zero_grad()
        self.fabric.backward(loss)
        self.fabric.clip_gradients(self._module, self._optimizer, max_norm=self.config.clip)
        self._optimizer.step()
        return float(loss.item())

    def _set_mode(self) -> None:
        self.model.train()
        if self.config.freeze_norm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _validate(self, loss: float) -> None:
        self.last_overlap = self.data.held_out_overlap(self.embed_held_out(), self.config.overlap_k)
        if self.last_overlap > self.best_overlap:
            self.best_overlap, self.best = self.last_overlap, _copy(self.model)
        self._record({"step": self.step, "loss": None if math.isnan(loss) else loss, "held_out_overlap": self.last_overlap})

    def embed_held_out(self) -> NDArray[np.float32]:
        contract = self.model.config.preprocess
        loaded = load_in_order(self.data.images, self.data.held_out.tolist(), lambda _, image: (contract.pixels(image),), workers=self.workers)
        pixels = [item.arrays[0] for item in loaded]
        blocks = [np.stack(pixels[i : i + 32]) for i in range(0, len(pixels), 32)]
        return np.concatenate([self.model.embed(block) for block in blocks])

    def _record(self, values: dict[str, Any]) -> None:
        file = self.folder / "metrics.jsonl"
        with open(file, "a") as handle:
            handle.write(json.dumps({"stage": "network", **values}) + "\n")

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.pt"

    def _save(self) -> None:
        state = {
            "step": self.step, "model": self.model.state_dict(), "optimizer": self._optimizer.state_dict(),
            "best": self.best, "best_overlap": self.best_overlap, "torch_rng": torch.get_rng_state(),
        }  # fmt: skip
        with replace_whole(self._checkpoint) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> bool:
        if not self._checkpoint.is_file():
            return False
        state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch_rng"])
        self.step, self.best, self.best_overlap = state["step"], state["best"], state["best_overlap"]
        return True
