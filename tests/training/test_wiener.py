"""The Wiener filter of query vectors: the error that is told, the matrix against its formula, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest

from edgecsd.features.exact import unit
from edgecsd.features.whitening import spectrum
from edgecsd.metrics.retrieval import overlap_at
from edgecsd.training.closed_form import error_ratio, wiener_filter

DIM, MEAN = 24, 0.3


def vectors(count: int, seed: int, dim: int = DIM) -> np.ndarray:
    """(count, dim) with directions of very different variances, none of them an axis, about a mean."""
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0]
    spread = 0.5 ** np.arange(dim)
    return (random.normal(size=(count, dim)) * np.sqrt(spread)) @ turn + MEAN


def test_the_error_is_that_of_the_least_squares_slope() -> None:
    random, truth = np.random.default_rng(1), vectors(4000, seed=2)
    noise = random.normal(size=truth.shape) * 0.2
    found = error_ratio((0.6 * truth + noise + 5.0).astype(np.float32), truth.astype(np.float32))
    assert found == pytest.approx(0.2**2 / 0.6**2, rel=0.02)
    few, meant = 0.6 * truth[:30] + noise[:30], truth[:30]
    slope, number = 0.0, 0.0
    for q, g in zip(few - few.mean(0), meant - meant.mean(0), strict=True):
        for one, other in zip(q, g, strict=True):
            slope, number = slope + one * other, number + other * other
    slope /= number
    left = sum(
        (one - slope * other) ** 2
        for q, g in zip(few - few.mean(0), meant - meant.mean(0), strict=True)
        for one, other in zip(q, g, strict=True)
    )
    assert error_ratio(few, meant) == pytest.approx(left / (30 * DIM * slope**2))


def test_no_error_is_told_of_few_vectors_or_of_unrelated_ones() -> None:
    truth = vectors(40, seed=3)
    assert error_ratio(truth[:19], truth[:19]) is None and error_ratio(truth[:20], truth[:20]) == pytest.approx(0)
    assert error_ratio(-truth, truth) is None
    assert error_ratio(truth, np.ones_like(truth)) is None


def test_the_filter_is_its_formula() -> None:
    gallery = vectors(300, seed=4)
    covariance = np.cov(gallery.T)
    expected = np.linalg.solve((covariance + 0.05 * np.eye(DIM)).T, covariance.T).T
    found = wiener_filter(spectrum(lambda: iter([gallery]), 1e-12), 0.05)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    np.testing.assert_allclose(wiener_filter(spectrum(lambda: iter([gallery]), 1e-12), 1e-12), np.eye(DIM), atol=1e-3)


def test_it_is_the_best_of_its_kind_and_finds_what_was_meant() -> None:
    """Mean square error to what was meant, against other strengths; and the neighbours, of a gallery of its own."""
    random, gallery, meant = np.random.default_rng(5), vectors(2000, seed=6) - MEAN, vectors(400, seed=7) - MEAN
    asked = 0.5 * meant + random.normal(size=meant.shape) * 0.15
    ratio = error_ratio(asked, meant)
    assert ratio is not None
    told = spectrum(lambda: iter([gallery]), 1e-12)

    def squared(strength: float) -> float:
        estimate = asked @ wiener_filter(told, strength) / 0.5
        return float(((estimate - meant) ** 2).mean())

    assert squared(ratio) < min(squared(ratio / 2), squared(ratio * 2), squared(1e-9))

    def found(queries: np.ndarray) -> np.ndarray:
        return np.argsort(-unit(queries.astype(np.float32)) @ unit(gallery.astype(np.float32)).T, axis=1)

    before, after = (
        overlap_at(found(queries), found(meant), 10).mean() for queries in (asked, asked @ wiener_filter(told, ratio))
    )
    assert after > 1.15 * before
