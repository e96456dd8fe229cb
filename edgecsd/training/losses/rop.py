"""Rank order preservation: the anchors keep their order, softly.

Wu, Wang, Zhou, Li: "A General Rank Preserving Framework for Asymmetric Image Retrieval", ICLR 2023, eq. 8 to 10.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgecsd.training.losses.similarities import at_least_float32, nearest


def rop(
    query_similarities: Tensor,
    gallery_similarities: Tensor,
    *,
    tau: float = 0.1,
    rank_weight: float = 0.2,
    neighbours: int = 256,
) -> Tensor:
    """Mean over the batch of 1/n sum_i w_i sum_j (I_g[i, j] - I_q[i, j])^2 over n anchors: g itself and its nearest.

    query_similarities    C_q (B, K + 1): cosines of the query embedding to the anchors, the image's own g first
    gallery_similarities  C_g (B, K + 1): the same of the gallery feature
    tau                   softness of the step: the sigmoid that replaces the Heaviside function
    neighbours            at most this many nearest anchors are compared, each with each: see `nearest`

    I_g[i, j] = H(C_g^j - C_g^i): is anchor j above i for the gallery model (1/2 for equals);
    I_q[i, j] = sigmoid((C_q^j - C_g^i) / tau): the *query's* similarity to j against the *gallery's* to i, so that the
    loss ties q to the gallery space and not to an order alone;
    w_i = i x softmax(rank_weight x C_g)_i, i = 1 the highest.

    q = g is not a minimum: a soft step never equals a hard one. Its loss falls to 0 with tau only where similarities
    are further apart than tau.

    Sources: the formulas are read from the implementation of a later work by others (AIR-Distiller, SCY-X/D3still),
    which names these equations; the paper's own text was not at hand. Deviations: cached anchors take the place of the
    batch's gallery features (the paper itself extracts them beforehand), 256 of them as in that implementation's
    configurations; a true step for I_g instead of a sigmoid of width 1e-6.
    """
    c_q, c_g = nearest(at_least_float32(query_similarities), at_least_float32(gallery_similarities), neighbours)
    c_g, places = c_g.sort(dim=1, descending=True, stable=True)
    c_q = c_q.gather(1, places)
    ranks = torch.arange(1, c_g.shape[1] + 1, dtype=c_g.dtype, device=c_g.device)
    weights = ranks * torch.softmax(rank_weight * c_g, dim=1)
    above_g = (1 + torch.sign(c_g[:, None, :] - c_g[:, :, None])) / 2
    above_q = torch.sigmoid((c_q[:, None, :] - c_g[:, :, None]) / tau)
    return (weights[:, :, None] * (above_g - above_q).square()).sum(dim=(1, 2)).mean() / c_g.shape[1]
