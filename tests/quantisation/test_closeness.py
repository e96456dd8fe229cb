"""One list of least cosines, for rows of every device and for golden packs."""

from __future__ import annotations

import pytest

from edgecsd.measuring.parity import parity_problem
from edgecsd.measuring.schema import Parity
from edgecsd.quantisation.precisions import CLOSENESS, Precision


def parity(mean: float, least: float, norm: float = 1.0) -> Parity:
    return Parity(
        reference="right ones",
        images=3,
        cosine_mean=mean,
        cosine_min=least,
        max_difference=0.1,
        norm_min=norm,
        norm_max=norm,
    )


def test_every_precision_has_limits_and_the_same_file_is_nearer_than_torch() -> None:
    assert set(CLOSENESS) == set(Precision)
    assert all(least.torch <= least.same_file < 1 for least in CLOSENESS.values())
    assert CLOSENESS[Precision.FP32].same_file == 0.9999  # what is promised of browsers


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("same_file", [True, False])
def test_a_row_is_held_to_the_limit_of_its_precision(precision: Precision, *, same_file: bool) -> None:
    """Of the same file the worst image counts, of torch the mean."""
    limit = CLOSENESS[precision].same_file if same_file else CLOSENESS[precision].torch
    other = -1.0 if not same_file else 1.0
    right, wrong = (limit + (1 - limit) / 2, limit - 1e-5)
    for value, fails in ((right, False), (limit, False), (wrong, True), (float("nan"), True)):
        given = parity(other, value) if same_file else parity(value, other)
        problem = parity_problem(given, precision, same_file=same_file)
        assert bool(problem) == fails, (value, problem)
        assert not fails or f"{limit} or more is expected of {precision}" in problem


def test_sixteen_bit_arithmetic_on_an_fp32_file_is_seen_by_every_back_end() -> None:
    """0.9956 is what a software WebGPU gave once, and was called ok."""
    for same_file in (True, False):
        assert "0.99560" in parity_problem(parity(0.9956, 0.9956), Precision.FP32, same_file=same_file)
        assert parity_problem(parity(0.9956, 0.9956), Precision.W8A8, same_file=same_file) == ""


def test_norms_and_an_unknown_precision() -> None:
    assert "norms 1.0200" in parity_problem(parity(1, 1, norm=1.02), Precision.FP32, same_file=True)
    assert parity_problem(parity(0.95, 0.8), None, same_file=False) == ""
    assert "expected of any precision" in parity_problem(parity(0.85, 0.8), None, same_file=False)
