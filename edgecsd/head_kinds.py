"""The kinds of heads, what stands between a feature map and the embedding: names alone, without the networks."""

from __future__ import annotations

from enum import StrEnum


class Pooling(StrEnum):
    """How a (C, h, w) feature map becomes (C,), or (2C,)."""

    AVERAGE = "average"
    GEM = "gem"
    GEM_AVERAGE = "gem+average"  # both, each divided by its root mean square, one behind the other

    @property
    def has_power(self) -> bool:
        """Whether there is an exponent p in it."""
        return self is not Pooling.AVERAGE

    def width(self, channels: int) -> int:
        """How many values a map of so many channels becomes."""
        return 2 * channels if self is Pooling.GEM_AVERAGE else channels


class ProjectionKind(StrEnum):
    """What stands between the backbone's feature map and the embedding."""

    LINEAR = "linear"  # pooling, linear C -> D
    BOTTLENECK = "bottleneck"  # 1x1 convolution C -> D, ReLU, pooling, L2, linear D -> D
    NONE = "none"  # pooling only: C must be D
