"""The closed-form start: ridge regression from the query backbone's pooled features to the gallery features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# Relative to the mean eigenvalue of the features' covariance.
STRENGTHS = tuple(float(s) for s in np.logspace(-4, 2, 13))
BLOCK_ROWS = 8192  # rows in float64 at once


@dataclass(frozen=True)
class Projection:
    """y = pooled @ weight.T + bias; weight (D, C), bias (D,), as torch.nn.Linear holds them."""

    weight: Floats
    bias: Floats

    def __call__(self, pooled: Floats) -> Floats:
        """(B, C) -> (B, D), L2-normalised."""
        vectors = pooled @ self.weight.T + self.bias
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


class Ridge:
    """Ridge regression with a free intercept, solved for any strength from one eigendecomposition, in float64."""

    def __init__(self, pooled: Floats, targets: Floats) -> None:
        """pooled (M, C) features, targets (M, D) gallery features of the same M views."""
        self._pooled_mean, self._target_mean = pooled.mean(0, dtype=np.float64), targets.mean(0, dtype=np.float64)
        width = pooled.shape[1]
        gram, cross = np.zeros((width, width)), np.zeros((width, targets.shape[1]))
        for first in range(0, len(pooled), BLOCK_ROWS):  # centred in float64, without a copy of the whole
            block = pooled[first : first + BLOCK_ROWS] - self._pooled_mean
            gram += block.T @ block
            cross += block.T @ (targets[first : first + BLOCK_ROWS] - self._target_mean)
        values, self._vectors = np.linalg.eigh(gram)
        self._values = np.maximum(values, 0.0)
        self._rotated = self._vectors.T @ cross

    def solve(self, strength: float) -> Projection:
        """The projection for a penalty of `strength` x the mean eigenvalue."""
        penalty = max(strength * float(self._values.mean()), 1e-12)
        weight = (self._vectors @ (self._rotated / (self._values + penalty)[:, None])).T
        bias = self._target_mean - weight @ self._pooled_mean
        # Embeddings are normalised, so the scale is free; outputs of rms 1 instead of 1 / sqrt(D) make a usual learning
        # rate small beside the weights: unscaled, the first Adam steps of 1e-3 undo the regression.
        scale = len(bias) ** 0.5
        return Projection((scale * weight).astype(np.float32), (scale * bias).astype(np.float32))
