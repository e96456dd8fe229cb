"""Contextual similarity consistency, L1 form.

Wu, Wang, Zhou, Li, Tian: "Contextual Similarity Distillation for Asymmetric Image Retrieval", CVPR 2022, section 3.3,
L_D with alpha = 1.
"""

from __future__ import annotations

from torch import Tensor

from edgecsd.losses.order import Order
from edgecsd.losses.precision import at_least_float32


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
