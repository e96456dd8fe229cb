"""What losses share: float32 arithmetic (float64 stays), and the nearest anchors of each image.

Losses that compare anchors in pairs use the nearest only: memory grows with the square of their number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgecsd.errors import BadInputError


def nearest(query_similarities: Tensor, gallery_similarities: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """C_q and C_g (B, K + 1) cut to the image itself and its nearest anchors: each (B, n + 1), n = min(neighbours, K).

    Nearest means the highest entries of C_g, so anchors may come in any order; equal ones keep theirs. Entry 0 stays
    first. A pair loss on the result holds tensors of B x (n + 1)^2 numbers, whatever K is: at n = 256 and B = 64,
    17 MB each in float32. Raises BadInputError if `neighbours` is below 1.
    """
    if neighbours < 1:
        raise BadInputError(f"neighbours {neighbours}: a loss over pairs of anchors needs at least 1")
    order = gallery_similarities[:, 1:].argsort(dim=1, descending=True, stable=True)[:, :neighbours] + 1
    places = order.new_zeros(len(order), order.shape[1] + 1)
    places[:, 1:] = order
    return query_similarities.gather(1, places), gallery_similarities.gather(1, places)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Values as float32, or float64 where they are that already.

    bfloat16 has 3 digits: a KL near 0 is a difference of logarithms, and 1 - q.g of a good query is below 0.05.
    """
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context without autocast on the tensor's device, which would run matrix products in 16 bit all the same."""
    return torch.autocast(tensor.device.type, enabled=False)
