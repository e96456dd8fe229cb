"""csd_l2 against the paper's formula in slow loops: a vector norm over the K + 1 entries, and its terms."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import slow_formulas as slow
import torch
from slow_formulas import gallery_similarities, similarities

from edgecsd.training.choices import Order
from edgecsd.training.losses.csd_norms import csd_l2


@pytest.mark.parametrize("order", list(Order))
def test_value_and_gradient(order: Order) -> None:
    formula = partial(slow.csd_distance, power=2)
    slow.assert_is_formula(csd_l2, formula, similarities(21), gallery_similarities(22), order=order)


def test_the_terms_add_up() -> None:
    c_q, c_g = torch.tensor(similarities(5, batch=1)), torch.tensor(gallery_similarities(6, batch=1))
    first, second, both = (csd_l2(c_q, c_g, order=order).item() for order in (Order.FIRST, Order.SECOND, Order.BOTH))
    assert first**2 + second**2 == pytest.approx(both**2, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_finite_gradient_at_the_minimum(dtype: torch.dtype) -> None:
    c_g = torch.tensor(gallery_similarities(7)).to(dtype)
    value, gradient = slow.value_and_gradient(csd_l2, [c_g, c_g], {})
    assert value.item() == 0.0
    assert not gradient.any()
    close = c_g.clone()
    close[0, 0] += 2e-2  # one image off, the others at the minimum
    _, gradient = slow.value_and_gradient(csd_l2, [close, c_g], {})
    assert gradient[0, 0].item() == pytest.approx(1 / 3, rel=1e-2)
    assert gradient.isfinite().all() and not gradient[1:].any()


@pytest.mark.parametrize("order", list(Order))
def test_the_order_of_the_anchors_is_of_no_matter(order: Order) -> None:
    c_q, c_g = torch.tensor(similarities(8)), torch.tensor(gallery_similarities(9))
    places = [0, *(1 + np.random.default_rng(1).permutation(6))]
    shuffled = csd_l2(c_q[:, places], c_g[:, places], order=order)
    assert shuffled.item() == pytest.approx(csd_l2(c_q, c_g, order=order).item(), rel=1e-12)
