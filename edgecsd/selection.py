"""Which of several weights to keep, by held-out retrieval: what is held out, and the rule that fits it."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class HeldOutBy(StrEnum):
    """What is held out from training, and so what a run is judged by (docs/decisions/0013)."""

    KINDS = "kinds"  # whole clusters of the gallery space: queries may show what no training photo does
    PHOTOS = "photos"  # single photos: the training photos are the gallery, or of all the kinds that it holds


class Selection:
    """Decides validation by validation; `best` holds the overlaps (H,) of the best seen so far, or None.

    A few hundred held-out photos cannot tell 0.52 from 0.53, and training goes on improving what they don't show. So
    later weights are taken unless they are worse by more than one standard error of the paired difference: the
    one-standard-error rule of Breiman et al. ("Classification and Regression Trees", 1984) turned to more training.
    That is for held-out kinds. Single photos tell what queries like them will find: of them the best is taken.
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
