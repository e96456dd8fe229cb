"""The precision that every loss computes in: float32 whatever comes in; float64 stays float64."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """The same values as float32, or float64 where they are that already.

    bfloat16 has 3 digits: a KL near 0 is a difference of logarithms, and 1 - q.g of a good query is below 0.05.
    """
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context without autocast on the tensor's device, which would run matrix products in 16 bit all the same."""
    return torch.autocast(tensor.device.type, enabled=False)
