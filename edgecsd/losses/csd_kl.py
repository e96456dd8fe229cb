"""Contextual similarity consistency, KL form.

Wu, Wang, Zhou, Li, Tian: "Contextual Similarity Distillation for Asymmetric Image Retrieval", CVPR 2022, eq. 5 to 7.
"""

from __future__ import annotations

import torch
from torch import Tensor


def csd_kl(
    query_similarities: Tensor, gallery_similarities: Tensor, *, tau_q: float = 0.1, tau_g: float = 0.1
) -> Tensor:
    """Mean over the batch of KL(p_g || p_q), p_j = softmax(C_j / tau_j) over the K + 1 anchors.

    query_similarities    C_q (B, K + 1): cosines of the query embedding to the anchors, the image's own g first
    gallery_similarities  C_g (B, K + 1): the same of the gallery feature; entry 0 is 1

    0 exactly if q = g and tau_q = tau_g. With unequal temperatures q = g is not the minimum, and the bias is large
    for small K. Computed in float32 whatever comes in: bf16 has 3 digits, and a KL near 0 is a difference of logs.
    """
    log_p_g = torch.log_softmax(gallery_similarities.float() / tau_g, dim=1)
    log_p_q = torch.log_softmax(query_similarities.float() / tau_q, dim=1)
    return (log_p_g.exp() * (log_p_g - log_p_q)).sum(dim=1).mean()
