"""Decoupled differential distillation: differences of similarities are kept, wrong-sign ones above all.

Xie, Lin, Cai, Xu, Zhang, Du, He: "D3still: Decoupled Differential Distillation for Asymmetric Image Retrieval",
CVPR 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgecsd.training.losses.similarities import at_least_float32, nearest

SOFTENING = 0.1  # added to |gallery difference| where pairs are divided by it, as in the authors' code


def d3still(
    query_similarities: Tensor,
    gallery_similarities: Tensor,
    *,
    alpha: float = 3.125,
    beta: float = 2.0,
    gamma: float = 1.0,
    neighbours: int = 9,
) -> Tensor:
    """Mean over the batch of alpha x own + beta x inconsistent + gamma x consistent.

    query_similarities    C_q (B, K + 1): cosines of the query embedding to the anchors, the image's own g first
    gallery_similarities  C_g (B, K + 1): the same of the gallery feature
    neighbours            at most this many nearest anchors, n, are compared, each with each: see `nearest`

    own = |C_g^1 - C_q^1|, the feature itself. For a pair of the n neighbours, d_j = C_j^k - C_j^l, and
    e = (d_q - d_g) / (0.1 + |d_g|). inconsistent = root mean square of e over all n^2 pairs, counting only those with
    d_q d_g < 0 (the query model orders them the other way round); consistent = the same of those with d_q d_g > 0.
    0 exactly at q = g. Without `own` it is blind to a constant added to all similarities.

    Known from the authors' code (SCY-X/D3still: 10 neighbours with the image itself, alpha, beta, gamma = 50, 2, 1).
    Deviations: cached anchors take the place of the batch's gallery features. Their `own` is the norm over the batch
    divided by its size, which depends on the size; ours is a mean, and alpha = 50 / sqrt(256), equal at their batch of
    256 when all errors are equal. Pairs that tie for the gallery model are left out; their code gives them the
    difference 1.
    """
    c_q, c_g = nearest(at_least_float32(query_similarities), at_least_float32(gallery_similarities), neighbours)
    own = (c_g[:, 0] - c_q[:, 0]).abs().mean()
    d_q = c_q[:, None, 1:] - c_q[:, 1:, None]
    d_g = c_g[:, None, 1:] - c_g[:, 1:, None]
    errors = (d_q - d_g) / (SOFTENING + d_g.abs())
    agreement = torch.sign(d_q.detach()) * torch.sign(d_g)
    inconsistent = _root_mean_square(errors * (agreement < 0))
    consistent = _root_mean_square(errors * (agreement > 0))
    return alpha * own + beta * inconsistent + gamma * consistent


def _root_mean_square(pairs: Tensor) -> Tensor:
    """Mean over the batch of the root mean square of (B, n, n); its slope at 0 is 0, not infinite."""
    norms: Tensor = torch.linalg.vector_norm(pairs, dim=(1, 2))
    return norms.mean() / pairs.shape[1]
