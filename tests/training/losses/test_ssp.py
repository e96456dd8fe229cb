"""ssp against its formula in slow loops, and what its normalisation per sub-space cannot see."""

from __future__ import annotations

import numpy as np
import pytest
import slow_formulas as slow
import torch
from slow_formulas import unit_vectors
from torch.nn.functional import normalize

from edgecsd.errors import BadInputError
from edgecsd.training.losses.ssp import ssp


def codebooks(seed: int = 0, parts: int = 2, centroids: int = 5, width: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(parts, centroids, width))


@pytest.mark.parametrize(("tau_q", "tau_g", "first_order"), [(0.1, 0.1, 0.0), (0.5, 0.1, 0.0), (0.1, 0.2, 3.0)])
def test_value_and_gradient(tau_q: float, tau_g: float, first_order: float) -> None:
    slow.assert_is_formula(
        ssp,
        slow.ssp,
        unit_vectors(1, 3, 8),
        unit_vectors(2, 3, 8),
        codebooks(),
        tau_q=tau_q,
        tau_g=tau_g,
        first_order=first_order,
    )


def test_zero_exactly_where_the_query_is_the_gallery_feature() -> None:
    g = torch.tensor(unit_vectors(3, 4, 8), dtype=torch.float32)
    value, gradient = slow.value_and_gradient(ssp, [g, g, torch.tensor(codebooks())], {})
    assert value.item() == 0.0
    assert gradient.abs().max().item() < 1e-5


def test_blind_to_the_lengths_of_sub_vectors_unless_the_first_order_term_is_on() -> None:
    """Sub-vectors in the right directions with wrong lengths: no loss, but other cosines to the gallery."""
    g = torch.tensor(unit_vectors(4, 6, 16))
    books = torch.tensor(codebooks(1, parts=4))
    lengths = torch.tensor([3.0, 0.3, 1.0, 0.5], dtype=torch.float64)
    q = normalize((g.reshape(6, 4, 4) * lengths[:, None]).reshape(6, 16), dim=1)
    cosines = (q * g).sum(dim=1)
    assert cosines.max().item() < 0.9
    assert ssp(q, g, books).item() == pytest.approx(0, abs=1e-12)
    assert ssp(q, g, books, first_order=2.0).item() == pytest.approx(2 * (1 - cosines).mean().item(), rel=1e-9)
    assert ssp(g, g, books, first_order=2.0).item() == pytest.approx(0, abs=1e-12)


def test_the_lengths_of_centroids_do_not_count() -> None:
    q, g, books = (torch.tensor(x) for x in (unit_vectors(5, 3, 8), unit_vectors(6, 3, 8), codebooks(2)))
    assert ssp(q, g, 7 * books).item() == pytest.approx(ssp(q, g, books).item(), rel=1e-9)


def test_a_dead_sub_vector_has_a_finite_gradient() -> None:
    q, g = torch.tensor(unit_vectors(7, 2, 8)), torch.tensor(unit_vectors(8, 2, 8))
    q[0, :4] = 0
    value, gradient = slow.value_and_gradient(ssp, [q.float(), g.float(), torch.tensor(codebooks())], {})
    assert value.isfinite() and gradient.isfinite().all()
    assert gradient.abs().max().item() < 1e6


def test_autocast_does_not_make_it_coarse() -> None:
    q, g, books = (torch.tensor(x) for x in (unit_vectors(9, 3, 8), unit_vectors(10, 3, 8), codebooks(3)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ssp(q.float(), g.float(), books)
    assert inside.item() == pytest.approx(ssp(q, g, books).item(), rel=1e-5)


def test_codebooks_of_another_dimension_are_refused() -> None:
    vectors = torch.tensor(unit_vectors(11, 2, 9))
    with pytest.raises(BadInputError, match=r"2 sub-spaces x 4 values.*features of 9"):
        ssp(vectors, vectors, torch.tensor(codebooks()))
