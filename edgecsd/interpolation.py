"""Weights on the straight line between a stage's start and what the stage trained: as far as retrieval gains by it.

WiSE-FT (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022): training specialises weights to its
photos, and part of the way back gives some of that up for what the start knew of all others. The paper fixes the share
or sweeps it; here held-out photos choose it, within limits (docs/decisions/0011).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgecsd.progress import SILENT, Reporter
from edgecsd.selection import Selection

State = dict[str, Tensor]
# Held-out photos are searched among photos that were trained on, and would go back farther than unseen kinds gain by.
SHARES = (0.7, 0.8, 0.9, 1.0)  # of the way from the start to what was trained


def same_weights(start: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> bool:
    """Whether the two, of the same names, are equal to the bit: nothing was trained, or its start was kept."""
    return all(torch.equal(start[name], tensor) for name, tensor in trained.items())


def interpolated(start: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float) -> State:
    """start + share (trained - start), tensor by tensor; what is not of floating point (counters) is the trained one's.

    The two are of the same names and shapes; with 0 and 1 the result is the one or the other to the bit.
    """
    if share == 1:
        return {name: tensor.clone() for name, tensor in trained.items()}
    return {
        name: start[name].lerp(tensor, share) if tensor.is_floating_point() else tensor.clone()
        for name, tensor in trained.items()
    }


def best_between(
    start: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    judge: Callable[[State], NDArray[np.float64]],
    reporter: Reporter = SILENT,
) -> float:
    """The share, of `SHARES`, of the most trained weights that `judge` finds not measurably worse than the best.

    judge: the held-out overlaps (H,) of weights, which `Selection` compares. It is not asked where nothing was trained.
    """
    if same_weights(start, trained):
        return 1.0
    selection, means, taken = Selection(), {}, SHARES[0]
    for share in SHARES:
        overlaps = judge(interpolated(start, trained, share))
        means[share] = overlaps.mean()
        if selection.takes(overlaps):
            taken = share
    reporter.message(
        f"kept {taken:.1f} of the way from this stage's start to its end: held-out overlap {means[taken]:.4f} "
        f"(all of it {means[1.0]:.4f})"
    )
    return taken
