"""Plain feature regression ("Reg"): the query embedding goes where the gallery feature is.

Budnik, Avrithis: "Asymmetric Metric Learning for Knowledge Transfer", CVPR 2021, arXiv 2006.16331.
"""

from __future__ import annotations

from torch import Tensor

from edgecsd.training.losses.similarities import at_least_float32


def regression(embeddings: Tensor, features: Tensor) -> Tensor:
    """Mean over the batch of |q - g|^2, which is 2 (1 - q.g) for unit vectors.

    embeddings  q (B, D), unit length
    features    g (B, D), unit length: the cached gallery features of the same images

    Deviations: on unit vectors the squared distance and the cosine form of regression differ by a constant factor, so
    one function serves both. Later comparisons call the distance itself, without the square, by the same name; the
    square is kept because its slope fades as q reaches g. Differences are taken before squares: 1 - q.g would lose its
    digits there. First-order only: only g pulls q.
    """
    return (at_least_float32(embeddings) - at_least_float32(features)).square().sum(dim=1).mean()
