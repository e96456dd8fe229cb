"""csd_kl against the paper's formula in slow loops, with its gradient, and its facts about temperatures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgecsd.losses.csd_kl import csd_kl


def slow_loss(c_q: np.ndarray, c_g: np.ndarray, tau_q: float, tau_g: float) -> float:
    """Equations 5 to 7, float64, one term at a time."""
    total = 0.0
    for queries, gallery in zip(c_q.tolist(), c_g.tolist(), strict=True):
        sum_q = math.fsum(math.exp(value / tau_q) for value in queries)
        sum_g = math.fsum(math.exp(value / tau_g) for value in gallery)
        for q, g in zip(queries, gallery, strict=True):
            p_g, p_q = math.exp(g / tau_g) / sum_g, math.exp(q / tau_q) / sum_q
            total += p_g * math.log(p_g / p_q)
    return total / len(c_q)


def slow_gradient(c_q: np.ndarray, c_g: np.ndarray, tau_q: float, tau_g: float, step: float = 1e-6) -> np.ndarray:
    gradient = np.zeros_like(c_q)
    for place in np.ndindex(*c_q.shape):
        above, below = c_q.copy(), c_q.copy()
        above[place] += step
        below[place] -= step
        gradient[place] = (slow_loss(above, c_g, tau_q, tau_g) - slow_loss(below, c_g, tau_q, tau_g)) / (2 * step)
    return gradient


def similarities(seed: int, batch: int = 3, anchors: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.9, (batch, anchors + 1))


@pytest.mark.parametrize(("tau_q", "tau_g"), [(0.1, 0.1), (1.0, 0.05), (0.2, 0.5)])
def test_value_and_gradient(tau_q: float, tau_g: float) -> None:
    c_q, c_g = similarities(1), similarities(2)
    queries = torch.tensor(c_q, dtype=torch.float32, requires_grad=True)
    loss = csd_kl(queries, torch.tensor(c_g, dtype=torch.float32), tau_q=tau_q, tau_g=tau_g)
    assert loss.shape == () and loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_loss(c_q, c_g, tau_q, tau_g), rel=1e-5)
    loss.backward()
    assert queries.grad is not None
    np.testing.assert_allclose(queries.grad.numpy(), slow_gradient(c_q, c_g, tau_q, tau_g), atol=2e-5)


def test_brain_floats_are_computed_in_float32() -> None:
    c_q, c_g = torch.tensor(similarities(3)).bfloat16(), torch.tensor(similarities(4)).bfloat16()
    loss = csd_kl(c_q, c_g)
    assert loss.dtype == torch.float32
    expected = slow_loss(c_q.double().numpy(), c_g.double().numpy(), 0.1, 0.1)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0])
def test_zero_exactly_where_the_query_is_the_gallery_feature(tau: float) -> None:
    c_g = torch.tensor(similarities(5), dtype=torch.float32)
    queries = c_g.clone().requires_grad_()
    loss = csd_kl(queries, c_g, tau_q=tau, tau_g=tau)
    assert loss.item() == 0.0
    loss.backward()
    assert queries.grad is not None and queries.grad.abs().max().item() < 1e-6 / tau


def test_unequal_temperatures_pull_the_query_away() -> None:
    """q = g is no minimum: its loss is positive, and so is the slope there."""
    c_g = torch.tensor(similarities(6), dtype=torch.float32)
    queries = c_g.clone().requires_grad_()
    loss = csd_kl(queries, c_g, tau_q=1.0, tau_g=0.05)
    loss.backward()
    assert queries.grad is not None
    assert loss.item() > 0.1
    assert queries.grad.norm().item() > 0.1


def test_equal_temperatures_have_their_minimum_at_the_gallery_feature() -> None:
    c_g = similarities(7)
    for seed in range(5):
        moved = c_g + np.random.default_rng(seed).normal(scale=0.01, size=c_g.shape)
        assert csd_kl(torch.tensor(moved), torch.tensor(c_g)).item() > 0
