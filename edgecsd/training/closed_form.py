"""Closed forms: from pooled features to gallery features by one matrix product, and the Wiener filter of query vectors.

A query model gives, of a photo whose gallery vector is g, q with q - E q = s (g - E g) + e: a slope s and an error e of
about the same variance in every direction. Of all linear estimates of g - E g from such q, C (C + r I)^-1 q has the
least mean square error, where C is the covariance of the vectors that may be meant, the gallery's, and r = E|e|^2 /
(D s^2). (N. Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949.) Along directions in
which the gallery hardly varies a query says nothing and is mostly error; they count less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgecsd.features.whitening import Spectrum

Floats = NDArray[np.float32]
# Relative to the mean eigenvalue of the features' covariance.
STRENGTHS = tuple(float(s) for s in np.logspace(-4, 2, 13))
BLOCK_ROWS = 8192  # rows in float64 at once
RANK_TOLERANCE = 1e-9  # singular values below this share of the largest are 0 up to rounding


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


class ClosedForms:
    """The projections that need no gradient, with a free intercept, in float64: all from one pass over the features."""

    def __init__(self, pooled: BlockwiseRows, targets: BlockwiseRows) -> None:
        """pooled (M, C) features, targets (M, D) gallery features of the same M views; both are taken in blocks."""
        count = len(pooled)
        blocks = [slice(first, min(first + BLOCK_ROWS, count)) for first in range(0, count, BLOCK_ROWS)]
        self._pooled_mean, self._target_mean = (
            np.sum([rows[block].sum(0, dtype=np.float64) for block in blocks], axis=0) / count
            for rows in (pooled, targets)
        )
        width = len(self._pooled_mean)
        gram, self._cross = np.zeros((width, width)), np.zeros((width, len(self._target_mean)))
        self._target_energy = 0.0
        for rows in blocks:  # centred in float64, without a copy of the whole
            block, target = pooled[rows] - self._pooled_mean, targets[rows] - self._target_mean
            gram += block.T @ block
            self._cross += block.T @ target
            self._target_energy += float((target * target).sum())
        self._gram = gram
        values, self._vectors = np.linalg.eigh(gram)
        self._values = np.maximum(values, 0.0)
        self._rotated = self._vectors.T @ self._cross

    def ridge(self, strength: float) -> Projection:
        """Ridge regression with a penalty of `strength` x the mean eigenvalue of the features' covariance."""
        penalty = max(strength * float(self._values.mean()), 1e-12)
        return self._projection((self._vectors @ (self._rotated / (self._values + penalty)[:, None])).T)

    def procrustes(self) -> Projection:
        """The rotation (with C > D, onto a subspace) that brings the features nearest to the gallery's, and one scale.

        Orthogonal Procrustes (Schoenemann, Psychometrika 1966): with features^T targets = U S V^T it is V U^T.
        Distances among the features stay what they are, while regression keeps of each direction only as much as these
        photos predict: for photos of a kind that is not among them, that is the backbone's knowledge of them.
        Directions that the two do not share (S = 0: fewer views than dimensions) are left out.
        """
        left, strengths, right = np.linalg.svd(self._cross, full_matrices=False)
        shared = strengths > RANK_TOLERANCE * max(float(strengths[0]), 1e-300)
        weight = (left[:, shared] @ right[shared]).T
        energy = float(((weight @ self._gram) * weight).sum())
        # As long as the gallery's on average, so that the intercept has its due weight
        return self._projection(weight * (self._target_energy / max(energy, 1e-300)) ** 0.5)

    def _projection(self, weight: NDArray[np.float64]) -> Projection:
        bias = self._target_mean - weight @ self._pooled_mean
        # Embeddings are normalised, so the scale is free; outputs of rms 1 instead of 1 / sqrt(D) make a usual learning
        # rate small beside the weights: unscaled, the first Adam steps of 1e-3 undo the regression.
        scale = len(bias) ** 0.5
        return Projection((scale * weight).astype(np.float32), (scale * bias).astype(np.float32))


FEWEST = 20  # photos that an error is measured on
Doubles = NDArray[np.float64]


def error_ratio(queries: NDArray[Any], truth: NDArray[Any]) -> float | None:
    """r of (n, D) query vectors and the gallery model's vectors of the same photos, which trained nothing.

    The slope is least squares' over all numbers. None for fewer than 20 photos, and where the slope is not above 0: the
    two have nothing in common.
    """
    if len(queries) < FEWEST:
        return None
    asked, meant = _centred(queries), _centred(truth)
    power = float((meant**2).sum())
    slope = float((asked * meant).sum()) / power if power else 0.0
    if slope <= 0:
        return None
    return float(((asked - slope * meant) ** 2).sum()) / (asked.size * slope**2)


def _centred(vectors: NDArray[Any]) -> Doubles:
    return np.asarray(vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64), np.float64)


def wiener_filter(found: Spectrum, ratio: float) -> Doubles:
    """(D, D) symmetric: C (C + ratio I)^-1, where C is the covariance described by `found`."""
    gains = found.values / (found.values + ratio)
    return np.asarray((found.directions.T * gains) @ found.directions, np.float64)
