"""The ridge regression against numpy's least squares on an explicitly augmented system."""

from __future__ import annotations

import numpy as np
import pytest

from edgecsd import closed_form
from edgecsd.closed_form import Ridge


def data(rows: int = 60, width: int = 9, dim: int = 5, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    pooled = random.gamma(2.0, size=(rows, width)) + offset
    targets = pooled @ random.normal(size=(width, dim)) + random.normal(size=(rows, dim))
    return pooled.astype(np.float32), targets.astype(np.float32)


def least_squares(pooled: np.ndarray, targets: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """min |[X 1] [W; b] - Y|^2 + penalty |W|^2 by lstsq: a row sqrt(penalty) e_i for each weight, none for the bias."""
    x, y = pooled.astype(np.float64), targets.astype(np.float64)
    width = x.shape[1]
    penalty = strength * np.linalg.eigvalsh(np.cov(x.T, bias=True) * len(x)).mean()
    left = np.block([[x, np.ones((len(x), 1))], [np.sqrt(penalty) * np.eye(width), np.zeros((width, 1))]])
    right = np.vstack([y, np.zeros((width, y.shape[1]))])
    solution = np.linalg.lstsq(left, right, rcond=None)[0]
    return solution[:-1].T, solution[-1]


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_ridge_is_least_squares_of_the_augmented_system(strength: float, offset: float) -> None:
    """The offset: channels far from 0 lose nothing, for products are centred first."""
    pooled, targets = data(offset=offset)
    found = Ridge(pooled, targets).solve(strength)
    weight, bias = least_squares(pooled, targets, strength)
    scale = np.sqrt(targets.shape[1])  # outputs of rms 1 instead of 1 / sqrt(D)
    np.testing.assert_allclose(found.weight, scale * weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.bias, scale * bias, rtol=1e-4, atol=1e-3)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pooled, targets = data()
    whole = Ridge(pooled, targets).solve(0.1)
    monkeypatch.setattr(closed_form, "BLOCK_ROWS", 7)
    np.testing.assert_allclose(Ridge(pooled, targets).solve(0.1).weight, whole.weight, rtol=1e-5)


def test_projection_gives_unit_vectors() -> None:
    pooled, targets = data()
    projection = Ridge(pooled, targets).solve(0.01)
    vectors = projection(pooled)
    assert vectors.dtype == np.float32 and vectors.shape == targets.shape
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    unit = targets / np.linalg.norm(targets, axis=1, keepdims=True)
    assert (vectors * unit).sum(1).mean() > 0.9


def test_more_features_than_images() -> None:
    pooled, targets = data(rows=12, width=40)
    projection = Ridge(pooled, targets).solve(1e-4)
    assert np.isfinite(projection.weight).all() and np.isfinite(projection.bias).all()
