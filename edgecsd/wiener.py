"""The Wiener filter of query vectors: what is known of the gallery's vectors takes the query model's error down.

A query model gives, of a photo whose gallery vector is g, q with q - E q = s (g - E g) + e: a slope s and an error e of
about the same variance in every direction. Of all linear estimates of g - E g from such q, C (C + r I)^-1 q has the
least mean square error, where C is the covariance of the vectors that may be meant, the gallery's, and r = E|e|^2 /
(D s^2). (N. Wiener, Extrapolation, Interpolation, and Smoothing of Stationary Time Series, 1949.) Along directions in
which the gallery hardly varies a query says nothing and is mostly error; they count less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.features.whitening import Spectrum

FEWEST = 20  # photos that tell an error
Doubles = NDArray[np.float64]


def error_ratio(queries: NDArray[Any], truth: NDArray[Any]) -> float | None:
    """r of (n, D) query vectors and the gallery model's vectors of the same photos, which trained nothing.

    The slope is least squares' over all numbers. None for fewer than 20 photos, and where the slope is not above 0: the
    two have nothing in common.
    """
    if len(queries) < FEWEST:
        return None
    asked, meant = _centred(queries), _centred(truth)
    power = float((meant**2).sum())
    slope = float((asked * meant).sum()) / power if power else 0.0
    if slope <= 0:
        return None
    return float(((asked - slope * meant) ** 2).sum()) / (asked.size * slope**2)


def _centred(vectors: NDArray[Any]) -> Doubles:
    return np.asarray(vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64), np.float64)


def wiener_filter(found: Spectrum, ratio: float) -> Doubles:
    """(D, D) symmetric: C (C + ratio I)^-1, of the covariance C that `found` tells."""
    gains = found.values / (found.values + ratio)
    return np.asarray((found.directions.T * gains) @ found.directions, np.float64)
