"""Ridge regression against numpy's least squares on an explicitly augmented system; Procrustes against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from edgecsd.training import closed_form
from edgecsd.training.closed_form import ClosedForms


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
    found = ClosedForms(pooled, targets).ridge(strength)
    weight, bias = least_squares(pooled, targets, strength)
    scale = np.sqrt(targets.shape[1])  # outputs of rms 1 instead of 1 / sqrt(D)
    np.testing.assert_allclose(found.weight, scale * weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.bias, scale * bias, rtol=1e-4, atol=1e-3)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pooled, targets = data()
    whole = ClosedForms(pooled, targets).ridge(0.1)
    monkeypatch.setattr(closed_form, "BLOCK_ROWS", 7)
    np.testing.assert_allclose(ClosedForms(pooled, targets).ridge(0.1).weight, whole.weight, rtol=1e-5)


def test_projection_gives_unit_vectors() -> None:
    pooled, targets = data()
    projection = ClosedForms(pooled, targets).ridge(0.01)
    vectors = projection(pooled)
    assert vectors.dtype == np.float32 and vectors.shape == targets.shape
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    unit = targets / np.linalg.norm(targets, axis=1, keepdims=True)
    assert (vectors * unit).sum(1).mean() > 0.9


def test_more_features_than_images() -> None:
    pooled, targets = data(rows=12, width=40)
    projection = ClosedForms(pooled, targets).ridge(1e-4)
    assert np.isfinite(projection.weight).all() and np.isfinite(projection.bias).all()


def test_procrustes_is_scipys() -> None:
    pooled, targets = data(width=6, dim=6)
    x, y = (rows.astype(np.float64) - rows.mean(0, dtype=np.float64) for rows in (pooled, targets))
    rotation, _ = orthogonal_procrustes(x, y)
    found = ClosedForms(pooled, targets).procrustes()
    length = np.linalg.norm(found.weight.astype(np.float64), axis=1).mean()
    np.testing.assert_allclose(found.weight / length, rotation.T, atol=1e-5)
    mapped = pooled @ found.weight.T + found.bias
    np.testing.assert_allclose(mapped.mean(0), 6**0.5 * targets.mean(0), rtol=1e-3, atol=1e-3)
    assert ((mapped - mapped.mean(0)) ** 2).sum() == pytest.approx(6 * (y * y).sum(), rel=1e-3)


@pytest.mark.parametrize(("width", "dim"), [(9, 5), (5, 9)])
def test_procrustes_finds_a_rotation_and_keeps_distances(width: int, dim: int) -> None:
    random = np.random.default_rng(3)
    pooled = random.gamma(2.0, size=(60, min(width, dim)))
    rotation = ortho_group.rvs(max(width, dim), random_state=1)[:, : min(width, dim)]
    wide = pooled @ rotation.T + 3.0
    given, targets = (wide, pooled) if width > dim else (pooled, wide)
    found = ClosedForms(given.astype(np.float32), targets.astype(np.float32)).procrustes()
    mapped = (given @ found.weight.T + found.bias) / dim**0.5
    np.testing.assert_allclose(mapped, targets, atol=1e-3)


def test_procrustes_leaves_out_directions_that_nothing_is_known_of() -> None:
    """12 images span 11 directions of 40 channels and 20 dimensions."""
    random = np.random.default_rng(4)
    pooled, targets = random.normal(size=(12, 40)), random.normal(size=(12, 20))
    found = ClosedForms(pooled.astype(np.float32), targets.astype(np.float32)).procrustes()
    strengths = np.linalg.svd(found.weight.astype(np.float64), compute_uv=False)
    assert (strengths > 1e-3 * strengths[0]).sum() == 11
    np.testing.assert_allclose(strengths[:11], strengths[0], rtol=1e-4)
