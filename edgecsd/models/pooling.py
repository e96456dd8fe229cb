"""Pooling and L2 normalisation that survive half precision, and the heads built from them: features -> embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgecsd.models.query_config import Pooling

EPSILON = 1e-4  # after scaling by the maximum: the smallest value that fp16 does not lose (1e-6 becomes 0 when squared)

POWERS = (1.0, 10.0)  # what a learnt p keeps to: 1 is the average, 10 nearly the maximum


def scaled_l2(vectors: Tensor) -> Tensor:
    """(B, D) -> (B, D) unit length, safe in fp16.

    Squares of a 2048-d vector overflow 65504 or vanish; so divide by the largest magnitude first and take the mean of
    squares, not their sum: |v| = max * sqrt(D * mean((v / max)^2)).
    """
    scaled, root = _scaled(vectors)
    length: Tensor = root * vectors.shape[1] ** 0.5
    return scaled / length


def scaled_rms(vectors: Tensor) -> Tensor:
    """(B, D) -> (B, D) with a root mean square of 1, safe in fp16: `scaled_l2` times sqrt(D)."""
    scaled, root = _scaled(vectors)
    return scaled / root


def _scaled(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """(B, D) divided by its largest magnitude, and the root mean square of that, (B, 1)."""
    largest = vectors.abs().amax(dim=1, keepdim=True).clamp_min(EPSILON)
    scaled = vectors / largest
    # One entry is 1, so the mean is at least 1 / D. The floor keeps a zero vector zero, even without subnormals.
    root = (scaled * scaled).mean(dim=1, keepdim=True).clamp_min(0.25 / vectors.shape[1]).sqrt()
    return scaled, root


def scaled_gem(maps: Tensor, power: float | Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C): generalised mean (Radenovic et al., TPAMI 2018), safe in fp16.

    x^3 overflows above 40.3 in fp16; each channel is divided by its own maximum first. Negative values count as 0.
    power: p, or a tensor of one element while p is learnt.
    """
    positive = maps.clamp_min(0.0)
    largest = positive.amax(dim=(2, 3), keepdim=True).clamp_min(EPSILON)
    scaled = positive / largest
    cubed = not isinstance(power, Tensor) and power == 3.0
    raised = scaled * scaled * scaled if cubed else scaled.clamp_min(EPSILON).pow(power)
    mean = raised.mean(dim=(2, 3)).clamp_min(EPSILON)
    return mean.pow(1.0 / power) * largest.flatten(1)


class Pool(nn.Module):
    """(B, C, h, w) -> (B, C), or (B, 2C): GeM, then average. With `learned`, p is a parameter, `power` at first."""

    def __init__(self, kind: Pooling, power: float, *, learned: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.power: float | nn.Parameter = nn.Parameter(torch.tensor([power])) if learned else power

    def forward(self, maps: Tensor) -> Tensor:
        if self.kind is Pooling.AVERAGE:
            return maps.mean(dim=(2, 3))
        gem = scaled_gem(maps, self.power.clamp(*POWERS) if isinstance(self.power, Tensor) else self.power)
        if self.kind is Pooling.GEM:
            return gem
        return torch.cat([scaled_rms(gem), scaled_rms(maps.mean(dim=(2, 3)))], dim=1)

    @property
    def current_power(self) -> float:
        """p as it is now."""
        return float(self.power.detach().clamp(*POWERS)) if isinstance(self.power, Tensor) else self.power
