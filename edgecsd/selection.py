"""Which of several weights to keep: the latest that is not measurably worse than the best, by held-out retrieval."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Selection:
    """Decides validation by validation; `best` holds the overlaps (H,) of the best seen so far, or None.

    A few hundred held-out photos cannot tell 0.52 from 0.53, and training goes on improving what they don't show. So
    later weights are taken unless they are worse by more than one standard error of the paired difference: the
    one-standard-error rule of Breiman et al. ("Classification and Regression Trees", 1984) turned to more training.
    """

    def __init__(self, best: NDArray[np.float64] | None = None) -> None:
        self.best = best

    def takes(self, overlaps: NDArray[np.float64]) -> bool:
        """Whether the weights that gave these overlaps, image by image, replace those taken before."""
        if self.best is None or overlaps.mean() >= self.best.mean():
            self.best = overlaps
            return True
        loss = self.best - overlaps
        return bool(loss.mean() <= loss.std(ddof=1) / len(loss) ** 0.5)
