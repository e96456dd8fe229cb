"""The fp16-safe L2 and GeM against plain formulas in float64."""

from __future__ import annotations

import pytest
import torch
from plain_pooling import plain_gem, plain_l2
from torch import Tensor

from edgecsd.models.pooling import scaled_gem, scaled_l2


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --------------------------------------------------------------------------------------------------------- L2


@pytest.mark.parametrize("scale", [1e-3, 0.05, 1.0, 6.5, 400.0, 5000.0])
@pytest.mark.parametrize("dim", [2, 256, 2048, 4096])
def test_l2_is_right_in_half_precision_where_the_plain_formula_is_not(dim: int, scale: float) -> None:
    vectors = (normal(8, dim) * scale).half()
    exact = plain_l2(vectors.double())
    result = scaled_l2(vectors)
    assert result.dtype == torch.float16
    assert (result.double() - exact).abs().max() < 2e-3
    assert torch.nn.functional.cosine_similarity(result.double(), exact).min() > 0.99999
    assert (result.double().norm(dim=1) - 1).abs().max() < 5e-3


def test_the_plain_formula_gives_silent_zeros_there() -> None:
    """Why scaled_l2 exists: rms 6.5 x 2048 dimensions is an everyday pooled feature."""
    vectors = (normal(4, 2048) * 6.5).half()
    assert plain_l2(vectors).abs().max() == 0
    assert scaled_l2(vectors).abs().max() > 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_l2_in_single_precision(scale: float) -> None:
    vectors = (normal(8, 2048) * scale).float()
    assert (scaled_l2(vectors).double() - plain_l2(vectors.double())).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("dim", [16, 2048, 8192])
def test_a_zero_vector_stays_zero_and_a_single_spike_stays_one(dtype: torch.dtype, dim: int) -> None:
    vectors = torch.zeros(2, dim, dtype=dtype)
    vectors[1, 3] = -200.0
    result = scaled_l2(vectors)
    assert (result[0] == 0).all()
    assert result[1, 3] == pytest.approx(-1, abs=2e-3)
    assert (result[1].abs() > 0).sum() == 1


def test_l2_gradients_are_those_of_the_plain_formula() -> None:
    vectors, direction = normal(3, 32).requires_grad_(), normal(3, 32, seed=1)
    (scaled,) = torch.autograd.grad((scaled_l2(vectors) * direction).sum(), vectors)
    (plain,) = torch.autograd.grad((plain_l2(vectors) * direction).sum(), vectors)
    assert (scaled - plain).abs().max() < 1e-12


# -------------------------------------------------------------------------------------------------------- GeM


@pytest.mark.parametrize("power", [2.0, 3.0, 4.5])
@pytest.mark.parametrize("scale", [0.01, 1.0, 40.0, 300.0, 20000.0])
def test_gem_is_right_in_half_precision_where_the_plain_formula_is_not(scale: float, power: float) -> None:
    maps = (normal(2, 16, 7, 7).abs() * scale / 4).half()
    exact = plain_gem(maps.double(), power)
    result = scaled_gem(maps, power)
    assert result.dtype == torch.float16
    assert torch.isfinite(result).all()
    assert ((result.double() - exact).abs() / exact).max() < 5e-3


def test_the_plain_formula_overflows_above_40_point_3() -> None:
    maps = torch.full((1, 1, 7, 7), 40.5, dtype=torch.float16)
    assert torch.isinf(plain_gem(maps, 3.0)).all()
    assert scaled_gem(maps, 3.0).item() == pytest.approx(40.5, rel=2e-3)


@pytest.mark.parametrize("power", [1.5, 2.0, 3.0, 4.5])
def test_gem_in_single_precision(power: float) -> None:
    maps = (normal(2, 16, 9, 5) * 10).float()
    exact = plain_gem(maps.double(), power)
    assert ((scaled_gem(maps, power).double() - exact).abs() / exact).max() < 1e-4


@pytest.mark.parametrize("power", [3.0, 2.5])
def test_gem_of_dead_and_of_single_peaked_channels(power: float) -> None:
    maps = torch.zeros(1, 3, 16, 16)
    maps[0, 1] = -5.0  # negative values count as 0
    maps[0, 2, 4, 4] = 8.0
    result = scaled_gem(maps.half(), power)[0]
    assert result[:2].abs().max() < 1e-4
    assert result[2].item() == pytest.approx(8.0 * (1 / 256) ** (1 / power), rel=5e-3)


def test_gem_gradients_are_finite_where_the_map_is_zero() -> None:
    for power in (1.5, 3.0):
        maps = torch.zeros(1, 2, 4, 4, requires_grad=True)
        (gradient,) = torch.autograd.grad(scaled_gem(maps, power).sum(), maps)
        assert torch.isfinite(gradient).all()
