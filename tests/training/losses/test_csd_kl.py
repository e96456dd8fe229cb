"""csd_kl against the paper's formula in slow loops: value, gradient, its two terms, and facts about temperatures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import slow_formulas as slow
import torch
from slow_formulas import gallery_similarities, similarities
from torch.nn.functional import normalize

from edgecsd.training.choices import Order
from edgecsd.training.losses.csd_kl import csd_kl


def gradient(c_q: torch.Tensor, c_g: torch.Tensor, **options: object) -> torch.Tensor:
    return slow.value_and_gradient(csd_kl, [c_q, c_g], options)[1]


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize(("tau_q", "tau_g"), [(0.1, 0.1), (1.0, 0.05), (0.2, 0.5)])
def test_value_and_gradient(tau_q: float, tau_g: float, order: Order) -> None:
    slow.assert_is_formula(
        csd_kl, slow.csd_kl, similarities(1), gallery_similarities(2), tau_q=tau_q, tau_g=tau_g, order=order
    )


@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0])
def test_zero_exactly_where_the_query_is_the_gallery_feature(tau: float) -> None:
    c_g = torch.tensor(gallery_similarities(5), dtype=torch.float32)
    value, slope = slow.value_and_gradient(csd_kl, [c_g, c_g], {"tau_q": tau, "tau_g": tau})
    assert value.item() == 0.0
    assert slope.abs().max().item() < 1e-6 / tau


def test_equal_temperatures_have_their_minimum_at_the_gallery_feature() -> None:
    c_g = gallery_similarities(7)
    for seed in range(5):
        moved = c_g + np.random.default_rng(seed).normal(scale=0.01, size=c_g.shape)
        assert csd_kl(torch.tensor(moved), torch.tensor(c_g)).item() > 0


@pytest.mark.parametrize("order", list(Order))
def test_the_order_of_the_anchors_is_of_no_matter(order: Order) -> None:
    c_q, c_g = torch.tensor(gallery_similarities(8)), torch.tensor(similarities(9))
    places = [0, *(1 + np.random.default_rng(0).permutation(6))]
    shuffled = csd_kl(c_q[:, places], c_g[:, places], tau_q=0.2, order=order)
    assert shuffled.item() == pytest.approx(csd_kl(c_q, c_g, tau_q=0.2, order=order).item(), rel=1e-12)


def test_the_terms_and_the_constant_add_up() -> None:
    c_q, c_g = torch.tensor(gallery_similarities(10)), torch.tensor(similarities(11))
    p_g = torch.softmax(c_g / 0.3, dim=1)
    constant = (p_g * p_g.log()).sum(dim=1).mean()
    first, second = (csd_kl(c_q, c_g, tau_q=0.2, tau_g=0.3, order=order) for order in (Order.FIRST, Order.SECOND))
    whole = csd_kl(c_q, c_g, tau_q=0.2, tau_g=0.3)
    assert (constant + first + second).item() == pytest.approx(whole.item(), rel=1e-12)


def test_the_second_term_alone_pushes_away_from_the_gallery_feature_and_has_no_floor() -> None:
    c_g = torch.tensor(gallery_similarities(12))
    slope = gradient(c_g, c_g, order=Order.SECOND)
    p_g = torch.softmax(c_g / 0.1, dim=1)
    np.testing.assert_allclose(slope[:, 0], p_g[:, 0] / 0.1 / len(c_g))  # > 0: less q.g, less loss
    values = [csd_kl(c_g - shift, c_g, order=Order.SECOND).item() for shift in (0.0, 1.0, 100.0)]
    fall = (p_g[:, 0] / 0.1).mean().item()
    assert values[0] - values[1] == pytest.approx(fall)
    assert values[0] - values[2] == pytest.approx(100 * fall)
    assert values[2] < -100


def test_the_divergence_over_the_neighbours_alone_has_neither_fault() -> None:
    c_g = torch.tensor(gallery_similarities(12))
    assert csd_kl(c_g[:, 1:] - 100, c_g[:, 1:]).item() == pytest.approx(0, abs=1e-9)


def test_the_first_term_pulls_with_the_weight_of_the_image_itself() -> None:
    c_q, c_g = torch.tensor(gallery_similarities(13)), torch.tensor(similarities(14))
    slope = gradient(c_q, c_g, tau_q=0.5, tau_g=0.2, order=Order.FIRST)
    np.testing.assert_allclose(slope[:, 0], -torch.softmax(c_g / 0.2, dim=1)[:, 0] / 0.5 / len(c_g))
    assert not slope[:, 1:].any()


def clustered(count: int = 1024, dim: int = 32) -> torch.Tensor:
    """(count, dim) unit vectors in 10 clusters, so that an image has near and far neighbours."""
    random = torch.Generator().manual_seed(3)
    centres = normalize(torch.randn(10, dim, generator=random), dim=1)
    places = torch.randint(10, (count,), generator=random)
    return normalize(centres[places] + torch.randn(count, dim, generator=random) / math.sqrt(dim), dim=1)


def best_query(gallery: torch.Tensor, neighbours: int, tau_q: float, tau_g: float) -> tuple[float, float, float]:
    """(cosine to g of the query that minimises the loss for row 0, its loss, the loss of q = g); starts elsewhere."""
    g = gallery[:1]
    anchors = gallery[(g @ gallery.T)[0].topk(neighbours + 1).indices]  # row 0 itself is its nearest

    def loss(query: torch.Tensor) -> torch.Tensor:
        return csd_kl(query @ anchors.T, g @ anchors.T, tau_q=tau_q, tau_g=tau_g)

    best, lowest = slow.descend(loss, g + 0.1 * gallery[1], 0.5 * tau_q, 200)
    return (best * g).sum().item(), lowest, loss(g).item()


def test_unequal_temperatures_pull_the_query_away_and_less_with_more_anchors() -> None:
    gallery = clustered()
    few, some, many = (best_query(gallery, neighbours, 1.0, 0.01) for neighbours in (16, 128, 1000))
    for _, loss, at_g in (few, some, many):
        assert loss < at_g - 1e-3
    assert few[0] < some[0] < many[0] < 0.999
    assert few[0] < 0.8 < 0.95 < many[0]


def test_equal_temperatures_bring_the_query_to_the_gallery_feature() -> None:
    assert best_query(clustered(), 128, 0.1, 0.1)[0] > 0.999


def test_two_low_temperatures_stall_far_from_the_gallery_feature() -> None:
    """At cosine 0.7 with all neighbours below 0.5 the softmax is all on g: nothing pulls any more."""
    c_g = torch.tensor([[1.0, 0.8, 0.75, 0.7]])
    c_q = torch.tensor([[0.7, 0.5, 0.45, 0.4]])
    assert gradient(c_q, c_g, tau_q=0.01, tau_g=0.01).abs().max().item() < 1e-5
    assert gradient(c_q, c_g, tau_q=0.1, tau_g=0.1).abs().max().item() < 0.1  # equal differences: little to say
    c_q[:, 1:] = 0.2
    assert gradient(c_q, c_g, tau_q=0.01, tau_g=0.01).abs().max().item() < 1e-5
    assert gradient(c_q, c_g, tau_q=0.1, tau_g=0.1).abs().max().item() > 0.5
