"""regression against its formula in slow loops, and its cosine form."""

from __future__ import annotations

import pytest
import slow_formulas as slow
import torch
from slow_formulas import unit_vectors

from edgecsd.training.losses.regression import regression


def test_value_and_gradient() -> None:
    slow.assert_is_formula(regression, slow.regression, unit_vectors(1, 3, 8), unit_vectors(2, 3, 8))


def test_twice_the_cosine_distance_of_unit_vectors() -> None:
    q, g = torch.tensor(unit_vectors(3, 5, 8)), torch.tensor(unit_vectors(4, 5, 8))
    assert regression(q, g).item() == pytest.approx((2 - 2 * (q * g).sum(dim=1)).mean().item(), rel=1e-12)


def test_small_errors_keep_their_digits_in_float32() -> None:
    """1 - q.g of a query 1e-5 away from g is 5e-11, which float32 cannot tell from 0 after the subtraction."""
    g = torch.tensor([[0.6, 0.8]])
    q = g + 1e-5 * torch.tensor([[0.8, -0.6]])
    assert regression(q, g).item() == pytest.approx(1e-10, rel=0.02)
    assert regression(g, g).item() == 0.0
