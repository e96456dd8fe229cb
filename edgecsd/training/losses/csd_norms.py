"""Contextual similarity consistency, L1 and L2 forms.

Wu, Wang, Zhou, Li, Tian: "Contextual Similarity Distillation for Asymmetric Image Retrieval", CVPR 2022, section 3.3,
L_D with alpha = 1 and 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgecsd.training.choices import Order
from edgecsd.training.losses.similarities import at_least_float32


def csd_l1(query_similarities: Tensor, gallery_similarities: Tensor, *, order: Order = Order.BOTH) -> Tensor:
    """Mean over the batch of sum |C_q - C_g| over the K + 1 entries: a sum, as the paper writes it, not a mean.

    query_similarities    C_q (B, K + 1): cosines of the query embedding to the anchors, the image's own g first
    gallery_similarities  C_g (B, K + 1): the same of the gallery feature
    order                 both: all entries; first: that of g alone; second: the K others; both = first + second

    Grows with K, and every entry pulls with the same strength however small its error: the paper finds this form the
    hardest to optimise.
    """
    difference = at_least_float32(query_similarities) - at_least_float32(gallery_similarities)
    return difference[:, order.entries].abs().sum(dim=1).mean()


def csd_l2(query_similarities: Tensor, gallery_similarities: Tensor, *, order: Order = Order.BOTH) -> Tensor:
    """Mean over the batch of (sum |C_q - C_g|^2)^(1/2): a vector norm over the K + 1 entries, not a mean of squares.

    query_similarities    C_q (B, K + 1): cosines of the query embedding to the anchors, the image's own g first
    gallery_similarities  C_g (B, K + 1): the same of the gallery feature
    order                 both: all entries; first: that of g alone; second: the K others. For one image
                          both^2 = first^2 + second^2.

    Grows with the square root of K: a learning rate chosen for one K does not carry over to another. The slope does not
    fade near the minimum (a norm, not its square) and is taken as 0 at the minimum itself.
    """
    difference = at_least_float32(query_similarities) - at_least_float32(gallery_similarities)
    norms: Tensor = torch.linalg.vector_norm(difference[:, order.entries], dim=1)
    return norms.mean()
