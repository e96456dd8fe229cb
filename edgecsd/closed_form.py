"""The closed-form start: ridge regression from the query backbone's pooled features to the gallery features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# Relative to the mean eigenvalue of the features' covariance.
STRENGTHS = tuple(float(s) for s in np.logspace(-4, 2, 13))
BLOCK_ROWS = 8192  # rows in float64 at once


class BlockwiseRows(Protocol):
    """Rows of numbers that are there, or made, when a slice of them is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Floats: ...


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

    def __init__(self, pooled: BlockwiseRows, targets: BlockwiseRows) -> None:
        """pooled (M, C) features, targets (M, D) gallery features of the same M views; both are taken in blocks."""
        count = len(pooled)
        blocks = [slice(first, min(first + BLOCK_ROWS, count)) for first in range(0, count, BLOCK_ROWS)]
        self._pooled_mean, self._target_mean = (
            np.sum([rows[block].sum(0, dtype=np.float64) for block in blocks], axis=0) / count
            for rows in (pooled, targets)
        )
        width = len(self._pooled_mean)
        gram, cross = np.zeros((width, width)), np.zeros((width, len(self._target_mean)))
        for rows in blocks:  # centred in float64, without a copy of the whole
            block = pooled[rows] - self._pooled_mean
            gram += block.T @ block
            cross += block.T @ (targets[rows] - self._target_mean)
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
