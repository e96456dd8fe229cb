"""Which weights a stage keeps: the best by held-out retrieval, a moving average, or part of the way back to its start.

Weights on the straight line between a stage's start and its end: WiSE-FT (Wortsman et al., "Robust fine-tuning of
zero-shot models", CVPR 2022). Training specialises weights to its photos, and part of the way back gives some of that
up for what the start knew of all others. The paper fixes the share or sweeps it; here held-out photos choose it, within
limits (docs/decisions/0011).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecsd.training.choices import HeldOutBy

State = dict[str, Tensor]
# Of the way from the start to what was trained; 0: nothing that was trained is kept. Held-out kinds are searched among
# photos that were trained on, and would take a head back farther than unseen kinds gain by.
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SHARES_OF_A_HEAD_BY_KINDS = (0.0, 0.7, 0.8, 0.9, 1.0)
# Fewer photos of held-out kinds than MANY take a head back farther still: of a way that they go at all, at least this
MANY, LEAST_BY_FEW_OF_KINDS = 100, 0.9


def head_shares(by: HeldOutBy) -> tuple[float, ...]:
    """What is tried of a head's way."""
    return SHARES_OF_A_HEAD_BY_KINDS if by is HeldOutBy.KINDS else SHARES


def least_of_a_head(by: HeldOutBy, held_out: int) -> float:
    """How much of a head's way is kept, if any is, where so many photos judge it."""
    return LEAST_BY_FEW_OF_KINDS if by is HeldOutBy.KINDS and held_out < MANY else 0.0


def same_weights(start: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> bool:
    """Whether the two, of the same names, are equal to the bit: nothing was trained, or its start was kept."""
    return all(torch.equal(start[name], tensor) for name, tensor in trained.items())


def interpolated(start: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float) -> State:
    """start + share (trained - start), tensor by tensor; of what is not of floating point (counters) the trained one's.

    The two are of the same names and shapes; with 0 and 1 the result is the one or the other to the bit.
    """
    if share in (0, 1):
        return {name: tensor.clone() for name, tensor in (trained if share else start).items()}
    return {
        name: start[name].lerp(tensor, share) if tensor.is_floating_point() else tensor.clone()
        for name, tensor in trained.items()
    }


@dataclass(frozen=True)
class Kept:
    """The weights that were chosen on a line: their share of it, and held-out overlaps, of them and of both ends."""

    share: float
    named: str  # what the line begins with
    overlap: float
    start: float
    end: float

    @property
    def in_words(self) -> str:
        """In words."""
        kept = f"{self.share:.1f} of the way from {self.named} to the end" if self.share else self.named
        return f"kept {kept}: held-out overlap {self.overlap:.4f} (start {self.start:.4f}, end {self.end:.4f})"


def best_between(
    start: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    shares: Sequence[float],
    judge: Callable[[State], NDArray[np.float64]],
    by: HeldOutBy,
    *,
    named: str = "this stage's start",
    least: float = 0.0,
) -> Kept | None:
    """The largest of `shares` (0 to 1, ascending) whose weights a `Selection` by these held-out photos takes.

    least: instead of a smaller share above 0 the first that is as large

    judge: the held-out overlaps (H,) of weights. It is not asked where nothing was trained: None.
    named: what `start` is
    """
    if same_weights(start, trained):
        return None
    selection, means, taken = Selection(by), {}, shares[0]
    for share in shares:
        overlaps = judge(interpolated(start, trained, share))
        means[share] = float(overlaps.mean())
        if selection.takes(overlaps):
            taken = share
    if taken:
        taken = next(share for share in shares if share >= max(taken, least))
    return Kept(taken, named, means[taken], means[0.0], means[1.0])


class MovingAverage:
    """average <- decay x average + (1 - decay) x weights, after every step (Polyak and Juditsky, 1992).

    The decay is lower in the first steps, min(decay, (1 + step) / (10 + step)), so that the start is forgotten.
    Integer buffers (batch counters) are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay, self._steps = model, decay, 0
        self._average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self) -> None:
        """Take in the model's weights after a step."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        with torch.no_grad():
            for name, value in self._model.state_dict().items():
                kept = self._average[name]
                if kept.is_floating_point():
                    kept.lerp_(value, 1 - decay)
                else:
                    kept.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the model has the average's weights."""
        trained = {name: value.detach().clone() for name, value in self._model.state_dict().items()}
        self._model.load_state_dict(self._average)
        try:
            yield
        finally:
            self._model.load_state_dict(trained)

    def state_dict(self) -> dict[str, Tensor]:
        """The average and the number of steps that went into it."""
        return {**self._average, "steps": torch.tensor(self._steps)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        self._steps = int(state["steps"])
        self._average = {name: value.clone() for name, value in state.items() if name != "steps"}


class Selection:
    """Decides validation by validation; `best` holds the overlaps (H,) of the best seen so far, or None.

    On a few hundred held-out photos 0.52 and 0.53 are the same, and training goes on improving what they don't show. So
    later weights are taken unless they are worse by more than one standard error of the paired difference: the
    one-standard-error rule of Breiman et al. ("Classification and Regression Trees", 1984) turned to more training.
    That is for held-out kinds. With single photos held out, keep the best.
    everything: take whatever comes, for studies of what training does by itself.
    """

    def __init__(self, by: HeldOutBy, best: NDArray[np.float64] | None = None, *, everything: bool = False) -> None:
        self.best, self._everything = best, everything
        self._errors = 1.0 if by is HeldOutBy.KINDS else 0.0  # standard errors that later weights may be worse by

    def takes(self, overlaps: NDArray[np.float64]) -> bool:
        """Whether the weights that gave these overlaps, image by image, replace those taken before."""
        if self._everything or self.best is None or overlaps.mean() >= self.best.mean():
            self.best = overlaps
            return True
        loss = self.best - overlaps
        return bool(loss.mean() <= self._errors * loss.std(ddof=1) / len(loss) ** 0.5)
