"""Contextual similarity consistency, KL form.

Wu, Wang, Zhou, Li, Tian: "Contextual Similarity Distillation for Asymmetric Image Retrieval", CVPR 2022, section 3.3:
the two softmaxes over the anchors, their KL divergence, and its split into a first- and a second-order term.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgecsd.training.choices import Order
from edgecsd.training.losses.similarities import at_least_float32


def csd_kl(
    query_similarities: Tensor,
    gallery_similarities: Tensor,
    *,
    tau_q: float = 0.1,
    tau_g: float = 0.1,
    order: Order = Order.BOTH,
) -> Tensor:
    """Mean over the batch of KL(p_g || p_q), p_j = softmax(C_j / tau_j) over the K + 1 anchors, or of one of its terms.

    query_similarities    C_q (B, K + 1): cosines of the query embedding to the anchors, the image's own g first
    gallery_similarities  C_g (B, K + 1): the same of the gallery feature; entry 0 is 1
    order                 both: KL = C + first + second, where the constant C = sum p_g log p_g
                          first: -p_g^1 / tau_q x q.g
                          second: p_g^1 log D_q - sum_{l >= 2} p_g^l log p_q^l, D_q = sum_l exp(C_q^l / tau_q)

    0 exactly if q = g and tau_q = tau_g. With unequal temperatures q = g is not the minimum, and the bias is large
    for small K. With both temperatures at 0.01 the loss sees nothing but "g is the nearest anchor" and stalls there.

    The split is the paper's own, and its terms are no losses to be used alone without knowing this: `first` is plain
    regression weighted by p_g^1, at least -p_g^1 / tau_q. `second` still holds q.g inside D_q, and its slope there is
    p_q^1 / tau_q > 0: alone it pushes q *away* from g. It also falls by p_g^1 t / tau_q if all entries of C_q fall by
    t: unbounded below for free similarities, bounded only because cosines end at -1. The KL over the neighbours alone,
    with neither fault, is csd_kl(C_q[:, 1:], C_g[:, 1:]). Values of `first` and `second` can be negative.
    """
    log_p_g = torch.log_softmax(at_least_float32(gallery_similarities) / tau_g, dim=1)
    logits = at_least_float32(query_similarities) / tau_q
    if order == Order.FIRST:
        return -(log_p_g[:, 0].exp() * logits[:, 0]).mean()
    if order == Order.SECOND:
        log_d_q = logits.logsumexp(dim=1)
        own, others = log_p_g[:, 0].exp(), log_p_g[:, 1:].exp()
        return (own * log_d_q - (others * (logits[:, 1:] - log_d_q[:, None])).sum(dim=1)).mean()
    log_p_q = torch.log_softmax(logits, dim=1)
    return (log_p_g.exp() * (log_p_g - log_p_q)).sum(dim=1).mean()
