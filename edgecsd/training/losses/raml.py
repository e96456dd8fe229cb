"""Absolute and relational distillation over a batch.

Suma, Tolias: "Large-to-small Image Resolution Asymmetry in Deep Metric Learning", WACV 2023, arXiv 2210.05463.
"""

from __future__ import annotations

from torch import Tensor

from edgecsd.training.losses.similarities import at_least_float32, full_precision


def raml(
    embeddings: Tensor, features: Tensor, *, absolute: float = 1.0, cross: float = 0.7482, relational: float = 0.6778
) -> Tensor:
    """absolute x mean (1 - q_i.g_i)^2 + cross x mean (q_i.g_j - g_i.g_j)^2 + relational x mean (q_i.q_j - g_i.g_j)^2.

    embeddings  q (B, D), unit length
    features    g (B, D), unit length: the cached gallery features of the same images

    The last two means run over the B (B - 1) pairs i != j; a batch of one image has none, and they are 0. The weights
    `cross` and `relational` are the lambda_1 and lambda_2 that the authors' code lists for SOP, the largest of their
    sets. `relational` alone is blind to any rotation of the gallery space: a query model that is trained by it alone
    retrieves at chance from a gallery index.

    Deviations: in the paper the B vectors are augmented views of *one* image; here they are the images of a batch, the
    form in which later comparisons use it (cached features hold few views). The authors' code adds 1e-6 to each
    difference before the square; ours does not.
    """
    q, g = at_least_float32(embeddings), at_least_float32(features)
    loss = absolute * (1 - (q * g).sum(dim=1)).square().mean()
    with full_precision(q):
        gallery = g @ g.T
        if cross:
            loss = loss + cross * _mean_of_pairs(q @ g.T - gallery)
        if relational:
            loss = loss + relational * _mean_of_pairs(q @ q.T - gallery)
    return loss


def _mean_of_pairs(differences: Tensor) -> Tensor:
    """Mean of the squares off the diagonal of (B, B)."""
    squares = differences.square()
    return (squares.sum() - squares.diagonal().sum()) / max(1, len(squares) * (len(squares) - 1))
