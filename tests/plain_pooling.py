"""L2 and GeM by their plain formulas."""

from __future__ import annotations

from torch import Tensor


def plain_l2(vectors: Tensor) -> Tensor:
    """v / sqrt(sum v^2), as written."""
    return vectors / (vectors * vectors).sum(dim=1, keepdim=True).sqrt()


def plain_gem(maps: Tensor, power: float) -> Tensor:
    """Radenovic et al. (TPAMI 2018), equation 3: (mean of x^p)^(1/p) over the positions, x >= 0."""
    return maps.clamp_min(0).pow(power).mean(dim=(2, 3)).pow(1 / power)
