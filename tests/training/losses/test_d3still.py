"""d3still against its formula in slow loops, and the weight of pairs in the wrong order."""

from __future__ import annotations

import numpy as np
import pytest
import slow_formulas as slow
import torch
from slow_formulas import gallery_similarities, similarities

from edgecsd.training.losses.d3still import d3still


@pytest.mark.parametrize("neighbours", [3, 6, 256])
@pytest.mark.parametrize(("alpha", "beta", "gamma"), [(3.125, 2.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_value_and_gradient(alpha: float, beta: float, gamma: float, neighbours: int) -> None:
    slow.assert_is_formula(
        d3still,
        slow.d3still,
        similarities(1),
        gallery_similarities(2),
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        neighbours=neighbours,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_with_a_finite_gradient_at_the_gallery_feature(dtype: torch.dtype) -> None:
    c_g = torch.tensor(gallery_similarities(3)).to(dtype)
    value, gradient = slow.value_and_gradient(d3still, [c_g, c_g], {})
    assert value.item() == 0.0
    assert gradient.isfinite().all()


def test_pairs_in_the_wrong_order_weigh_more() -> None:
    """Two neighbours, the same error of their difference, once with the wrong sign."""
    c_g = torch.tensor([[1.0, 0.7, 0.6]])
    wrong, right = torch.tensor([[1.0, 0.6, 0.65]]), torch.tensor([[1.0, 0.8, 0.55]])
    assert d3still(wrong, c_g).item() == pytest.approx(2 * d3still(right, c_g).item(), rel=1e-4)


def test_pairs_see_differences_only() -> None:
    c_q, c_g = torch.tensor(gallery_similarities(4)), torch.tensor(similarities(5))
    assert d3still(c_q + 0.3, c_g, alpha=0).item() == pytest.approx(d3still(c_q, c_g, alpha=0).item(), rel=1e-12)
    assert d3still(c_g + 0.3, c_g).item() == pytest.approx(3.125 * 0.3, rel=1e-12)


def test_ties_of_the_gallery_model_are_left_out() -> None:
    c_g, c_q = torch.tensor([[1.0, 0.5, 0.5]]), torch.tensor([[1.0, 0.9, 0.1]])
    assert d3still(c_q, c_g).item() == 0.0


def test_the_order_of_the_anchors_is_of_no_matter() -> None:
    c_q, c_g = torch.tensor(gallery_similarities(6)), torch.tensor(similarities(7))
    places = [0, *(1 + np.random.default_rng(3).permutation(6))]
    shuffled = d3still(c_q[:, places], c_g[:, places], neighbours=4)
    assert shuffled.item() == pytest.approx(d3still(c_q, c_g, neighbours=4).item(), rel=1e-12)
