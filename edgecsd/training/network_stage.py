"""The contextual loss against cached gallery features, and the training of the whole query model with it.

A stage is a pure function of (settings, data, step), so that a killed run continued from its checkpoint ends with the
same weights, bit for bit on the same machine, as one that was never interrupted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from edgecsd.distributed import ALONE, Ranks
from edgecsd.errors import BadInputError, missing_extra
from edgecsd.files.whole import replace_whole
from edgecsd.models.backbones import to_input
from edgecsd.models.embedding import loading
from edgecsd.models.query import QueryModel
from edgecsd.photos.images import Loaded
from edgecsd.progress import SILENT, Reporter
from edgecsd.training.choices import TrainPrecision
from edgecsd.training.keeping import SHARES, MovingAverage, Selection, State, best_between, interpolated
from edgecsd.training.log import NoLog, TrainingLog
from edgecsd.training.objective import Objective
from edgecsd.training.training_set import TrainingSet

try:
    from lightning_fabric import Fabric
except ImportError:
    raise missing_extra("lightning-fabric", "train") from None

EMBED_BATCH = 32  # held-out images embedded at once


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's weights, apart from the module."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over the share `warmup` of all steps, then a half cosine to 0."""
    ramp = max(1, round(warmup * total))
    if step < ramp:
        return (step + 1) / ramp
    return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, total - ramp)))


def _fabric(precision: TrainPrecision, everyone: Ranks) -> Any:
    """One process as it is; several of torchrun's as DDP."""
    if everyone.count == 1:
        return Fabric(accelerator="cpu", devices=1, precision=precision.value)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", everyone.count))
    fabric = Fabric(
        accelerator="cpu", devices=here, num_nodes=everyone.count // here, strategy="ddp", precision=precision.value
    )
    fabric.launch()
    return fabric


class NetworkTraining:
    """Trains the whole query model on cached views, with checkpoints in `folder` and records in metrics.jsonl."""

    def __init__(
        self,
        model: QueryModel,
        data: TrainingSet,
        objective: Objective,
        folder: Path,
        *,
        workers: int,
        everyone: Ranks = ALONE,
    ) -> None:
        """everyone: each process takes every count-th image of a batch, and the gradients are averaged."""
        self.everyone = everyone
        self.config, self.data, self.objective, self.workers = objective.config, data, objective, workers
        self.folder, self.model = folder, model
        self.batch_size = min(self.config.batch_size, len(data.train))
        self.steps_per_epoch = len(data.train) // self.batch_size
        self.total = self.config.epochs * self.steps_per_epoch
        self.step, self.selection, self.start = 0, self._selection(), copy_state(model)
        self.kept = self.start
        self.average = MovingAverage(model, self.config.ema) if self.config.ema else None
        self.fabric = _fabric(self.config.precision, everyone)
        self._module, self._optimizer = self.fabric.setup(model, self._make_optimizer())

    def _selection(self, best: NDArray[np.float64] | None = None) -> Selection:
        return Selection(self.config.held_out_by, best, everything=not self.config.select)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW, two rates, no decay on biases and norms."""
        config, groups = self.config, []
        backbone = list(self.model.backbone.parameters())
        for part, rate in ((backbone, config.backbone_lr), (self.model.head_parameters(), config.projection_lr)):
            parameters = [p for p in part if p.requires_grad]
            matrices, vectors = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
            groups.append({"params": matrices, "base": rate, "weight_decay": config.weight_decay})
            groups.append({"params": vectors, "base": rate, "weight_decay": 0.0})
        return torch.optim.AdamW(groups, lr=0.0)

    def run(self, reporter: Reporter = SILENT) -> None:
        """Train to the end from wherever a checkpoint left off. Loaded last are the weights between start and end that
        held-out photos have, or without interpolation those of the epoch that `Selection` took.
        """
        resumed = self._resume()
        with closing(self._log(resumed)) as log:
            if resumed:
                reporter.message(f"going on from step {self.step} of {self.total}")
            else:
                self._validate(log)
            with reporter.task("training the network", self.total, self.step) as advance:
                while self.step < self.total:
                    self._train_epoch(log, advance, reporter)
        if self.config.goes_part_way and self.config.freeze_norm and self.everyone.first:
            self.kept = self._part_of_the_way(reporter)
        self.model.load_state_dict(self.kept)
        self.model.eval()

    def _part_of_the_way(self, reporter: Reporter) -> State:
        """Of the weights between the stage's start and its end those that held-out photos have."""
        pixels = self._held_out_pixels()
        with self.average.applied() if self.average is not None else nullcontext():
            end = copy_state(self.model)

        def judge(state: State) -> NDArray[np.float64]:
            self.model.load_state_dict(state)
            return self.data.held_out_overlaps(self._embed(pixels), self.config.overlap_k)

        kept = best_between(self.start, end, SHARES, judge, self.config.held_out_by)
        if kept is None:
            return end
        reporter.message(kept.in_words)
        return interpolated(self.start, end, kept.share)

    def _log(self, resumed: bool) -> TrainingLog | NoLog:
        if not self.everyone.first:
            return NoLog()
        return TrainingLog(self.folder, "network", last_step=self.step if resumed else -1)

    def _train_epoch(self, log: TrainingLog | NoLog, advance: Callable[[int], None], reporter: Reporter) -> None:
        """The rest of the current epoch."""
        with closing(self.batches()) as batches:
            for images, views, pixels in batches:
                factor = learning_rate_factor(self.step, self.total, self.config.warmup)
                loss = self.everyone.mean(self.train_step(images, views, pixels, factor))
                self.step += 1
                log.scalars(self.step, loss=loss, learning_rate=self.config.projection_lr * factor)
                advance(1)
                ended = self.step % self.steps_per_epoch == 0
                if ended:
                    overlap = self._validate(log, loss)
                    reporter.message(
                        f"epoch {self.step // self.steps_per_epoch} of {self.config.epochs}: loss {loss:.4f}, "
                        f"held-out overlap@{self.config.overlap_k} {overlap:.4f}"
                    )
                if ended or self.step % self.config.checkpoint_steps == 0:
                    log.flush()
                    self._save()

    def batches(self) -> Generator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]], None, None]:
        """The rest of the current epoch: (positions in `train` (B,), view numbers (B,), (B, S, S, 3) pixels).

        B is this process' share of the batch size.
        """
        epoch, first = divmod(self.step, self.steps_per_epoch)
        order, views = self.epoch_plan(epoch)
        order = order[first * self.batch_size : self.steps_per_epoch * self.batch_size]
        order, own_size = order[self.everyone.rank :: self.everyone.count], self.batch_size // self.everyone.count
        view_of = {int(p): int(views[i]) for i, p in zip(order, self.data.train[order], strict=True)}
        start, batch = 0, []
        with closing(self._pixels(self.data.train[order].tolist(), view_of)) as loaded:
            for pixels in loaded:
                batch.append(pixels)
                if len(batch) == own_size:
                    chosen = order[start : start + own_size]
                    yield chosen, views[chosen], np.stack(batch)
                    start, batch = start + own_size, []

    def _pixels(self, positions: Sequence[int], view_of: dict[int, int]) -> Generator[NDArray[np.uint8], None, None]:
        """(S, S, 3) of the given view of each image; a photo other than the one that was extracted is refused."""
        recipe, ids, contract = self.data.views, self.data.images.ids, self.model.config.preprocess

        def transform(position: int, image: Image.Image) -> tuple[NDArray[np.uint8], ...]:
            return (contract.pixels(recipe.view(image, ids[position], view_of[position])),)

        with loading(self.data.images, positions, transform, workers=self.workers) as loaded:
            for item in loaded:
                self._require_unchanged(item)
                yield item.arrays[0]

    def _require_unchanged(self, item: Loaded) -> None:
        if item.problem:
            raise BadInputError(f"{item.problem}; it could be read when its features were extracted")
        known = self.data.digests[item.position]
        if known and item.digest != known:
            name = self.data.images.name(item.position)
            raise BadInputError(f"{name}: changed since its features were extracted; extract again")

    def epoch_plan(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The order of the training images in an epoch, and which view of each is shown: pure in (seed, epoch)."""
        count, views = len(self.data.train), self.objective.features.shape[1]
        random = np.random.Generator(np.random.Philox(key=[self.config.seed, 1 << 32 | epoch]))
        offsets = np.random.Generator(np.random.Philox(key=[self.config.seed, 1 << 33])).integers(0, views, count)
        return random.permutation(count), (offsets + epoch) % views

    def train_step(
        self, images: NDArray[np.int64], views: NDArray[np.int64], pixels: NDArray[np.uint8], factor: float
    ) -> float:
        self._set_mode()
        for group in self._optimizer.param_groups:
            group["lr"] = group["base"] * factor
        self._optimizer.zero_grad()
        loss, parts = 0.0, np.array_split(np.arange(len(images)), min(self.config.accumulate, len(images)))
        for number, chosen in enumerate(parts, 1):
            with self.fabric.no_backward_sync(self._module, enabled=number < len(parts)):
                embeddings = self._module(to_input(pixels[chosen], self.model.config.preprocess))
                part = self.objective.loss(embeddings.float(), images[chosen], views[chosen])
                part = part * (len(chosen) / len(images))
                self.fabric.backward(part)
            loss += float(part.item())
        self.fabric.clip_gradients(self._module, self._optimizer, max_norm=self.config.clip)
        self._optimizer.step()
        if self.average is not None:
            self.average.update()
        return loss

    def _set_mode(self) -> None:
        self.model.train()
        if self.config.freeze_norm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _validate(self, log: TrainingLog | NoLog, loss: float | None = None) -> float:
        if not self.everyone.first:  # the weights are the same everywhere: one process judges them
            return math.nan
        with self.average.applied() if self.average is not None else nullcontext():
            overlaps = self.data.held_out_overlaps(self.embed_held_out(), self.config.overlap_k)
            if self.selection.takes(overlaps):
                self.kept = copy_state(self.model)
        log.record(self.step, loss=loss, held_out_overlap=float(overlaps.mean()))
        return float(overlaps.mean())

    def embed_held_out(self) -> NDArray[np.float32]:
        """(H, D) embeddings of the held-out images themselves."""
        return self._embed(self._held_out_pixels())

    def _held_out_pixels(self) -> list[NDArray[np.uint8]]:
        positions = self.data.held_out.tolist()
        return list(self._pixels(positions, dict.fromkeys(positions, 0)))

    def _embed(self, pixels: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        blocks = [np.stack(pixels[i : i + EMBED_BATCH]) for i in range(0, len(pixels), EMBED_BATCH)]
        return np.concatenate([self.model.embed(block) for block in blocks])

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.pt"

    def _save(self) -> None:
        if not self.everyone.first:
            return
        assert self.selection.best is not None  # there is a validation before the first step
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "kept": self.kept,
            "best": torch.from_numpy(self.selection.best),
            "torch_rng": torch.get_rng_state(),
        }
        if self.average is not None:
            state["average"] = self.average.state_dict()
        with replace_whole(self._checkpoint) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> bool:
        if not self._checkpoint.is_file():
            return False
        state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        torch.set_rng_state(state["torch_rng"])
        self.step, self.kept = state["step"], state["kept"]
        self.selection = self._selection(state["best"].numpy())
        return True
