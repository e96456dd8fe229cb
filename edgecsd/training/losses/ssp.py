"""Structure similarity preservation: centroids of a product quantiser of the gallery are the anchors.

Wu, Wang, Zhou, Li: "Structure Similarity Preservation Learning for Asymmetric Image Retrieval", 2024, arXiv 2403.00648.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from edgecsd.errors import BadInputError
from edgecsd.training.losses.similarities import at_least_float32, full_precision

SMALLEST_NORM = 1e-4  # of a sub-vector: shorter ones are not stretched further, or their slope would have no bound


def ssp(
    embeddings: Tensor,
    features: Tensor,
    codebooks: Tensor,
    *,
    tau_q: float = 0.1,
    tau_g: float = 0.1,
    first_order: float = 0.0,
) -> Tensor:
    """Mean over batch and sub-spaces of KL(p_g || p_q), plus first_order x (1 - q.g).

    embeddings   q (B, D), unit length
    features     g (B, D), unit length: the cached gallery features of the same images
    codebooks    (M, L, D / M): L centroids in each of the M sub-spaces (a product quantiser of gallery features)
    first_order  weight of the absolute term; 0 is the paper's loss

    In each sub-space p_j = softmax(cosines of the sub-vector to the L centroids / tau_j). Sub-vectors and centroids are
    L2-normalised, both temperatures are 0.1 and the mean, not the sum, is taken over the sub-spaces, as in the authors'
    public code (MCC-WH/SSP; M = 32 or 64, L = 256): the text of the paper was not at hand to check it against.

    That normalisation makes the loss blind to the *lengths* of the sub-vectors: q whose sub-vectors point the right way
    with wrong lengths has the loss of q = g and another cosine to every gallery feature. Hence `first_order`, ours.
    No neighbour lists are needed. Raises BadInputError if the codebooks don't divide D.
    """
    parts, _, width = codebooks.shape
    if parts * width != features.shape[1]:
        raise BadInputError(
            f"codebooks of {parts} sub-spaces x {width} values don't fit gallery features of {features.shape[1]}: "
            f"train the product quantiser on the features of this very gallery model"
        )
    q, g = at_least_float32(embeddings), at_least_float32(features)
    centroids = normalize(codebooks.to(q.dtype), dim=2, eps=SMALLEST_NORM)
    log_p_q = torch.log_softmax(_cosines(q, centroids) / tau_q, dim=2)
    log_p_g = torch.log_softmax(_cosines(g.to(q.dtype), centroids) / tau_g, dim=2)
    loss = (log_p_g.exp() * (log_p_g - log_p_q)).sum(dim=2).mean()
    return loss + first_order * (1 - (q * g).sum(dim=1)).mean() if first_order else loss


def _cosines(vectors: Tensor, centroids: Tensor) -> Tensor:
    """(B, M, L) cosines of the sub-vectors of (B, D) to normalised (M, L, D / M) centroids."""
    parts = normalize(vectors.reshape(len(vectors), len(centroids), -1), dim=2, eps=SMALLEST_NORM)
    with full_precision(vectors):
        return torch.einsum("bmc,mlc->bml", parts, centroids)
