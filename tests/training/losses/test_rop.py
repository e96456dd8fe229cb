"""rop against its formula in slow loops, and what it thinks of orders."""

from __future__ import annotations

import numpy as np
import pytest
import slow_formulas as slow
import torch
from slow_formulas import gallery_similarities, similarities

from edgecsd.errors import BadInputError
from edgecsd.training.losses.rop import rop


@pytest.mark.parametrize("neighbours", [3, 6, 256])
@pytest.mark.parametrize(("tau", "rank_weight"), [(0.1, 0.2), (0.05, 5.0)])
def test_value_and_gradient(tau: float, rank_weight: float, neighbours: int) -> None:
    slow.assert_is_formula(
        rop, slow.rop, similarities(1), gallery_similarities(2), tau=tau, rank_weight=rank_weight, neighbours=neighbours
    )


def test_equal_similarities_of_the_gallery_model_count_half() -> None:
    c_g = np.array([[1.0, 0.5, 0.5, 0.25]])
    slow.assert_is_formula(rop, slow.rop, similarities(3, 1, 3), c_g, tau=0.1, rank_weight=0.2, neighbours=3)


def test_falls_to_zero_at_the_gallery_feature_only_as_the_step_hardens() -> None:
    c_g = torch.tensor([[1.0, 0.8, 0.6, 0.4]])
    soft, harder, hard = (rop(c_g, c_g, tau=tau).item() for tau in (0.1, 0.03, 0.001))
    assert soft > harder > hard
    assert soft > 1e-3 and hard < 1e-12


def test_a_kept_order_is_better_than_a_turned_one() -> None:
    c_g = torch.tensor([[1.0, 0.8, 0.6, 0.4]])
    turned = torch.tensor([[1.0, 0.4, 0.6, 0.8]])
    assert rop(c_g, c_g, tau=0.03).item() < 0.1 * rop(turned, c_g, tau=0.03).item()


def test_an_order_alone_is_not_enough() -> None:
    """The steps are taken against the gallery model's similarities: the right order far below them is no match."""
    c_g = torch.tensor([[1.0, 0.8, 0.6, 0.4]])
    assert rop(c_g - 1, c_g, tau=0.03).item() > 10 * rop(c_g, c_g, tau=0.03).item()


def test_the_order_of_the_anchors_is_of_no_matter() -> None:
    c_q, c_g = torch.tensor(gallery_similarities(4)), torch.tensor(similarities(5))
    places = [0, *(1 + np.random.default_rng(2).permutation(6))]
    shuffled = rop(c_q[:, places], c_g[:, places], neighbours=4)
    assert shuffled.item() == pytest.approx(rop(c_q, c_g, neighbours=4).item(), rel=1e-12)


def test_only_the_nearest_anchors_count() -> None:
    c_q, c_g = torch.tensor(gallery_similarities(6)), torch.tensor(similarities(7))
    changed = c_q.clone()
    changed.scatter_(1, 1 + c_g[:, 1:].argmin(dim=1, keepdim=True), 5.0)
    assert rop(changed, c_g, neighbours=5).item() == rop(c_q, c_g, neighbours=5).item()
    assert rop(changed, c_g, neighbours=6).item() != rop(c_q, c_g, neighbours=6).item()


def test_no_neighbours_are_refused() -> None:
    with pytest.raises(BadInputError, match="neighbours 0"):
        rop(torch.zeros(1, 3), torch.zeros(1, 3), neighbours=0)
