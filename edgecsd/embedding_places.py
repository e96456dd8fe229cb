"""Where embeddings lie on a map: two principal axes of what the gallery model made, found here without scikit-learn.

The places are found when an artifact is checked, so that evidence, which holds no vectors, can still be drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GALLERY_POINTS, PAIR_POINTS = 1000, 300  # on a map: more hide one another
PREFIX = "map_"
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingPlaces:
    """Places on two axes: sampled gallery (N, 2); the pairs (P, 2), by the gallery model and by the checked file.

    queries (P,): positions of the pairs' queries; share: of the gallery model's variance that both axes hold
    """

    gallery: Floats
    by_gallery_model: Floats
    by_file: Floats
    queries: NDArray[np.int64]
    share: float

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As they stand in evidence.npz."""
        return {f"{PREFIX}{name}": np.asarray(value) for name, value in vars(self).items()}

    @staticmethod
    def of_arrays(arrays: Mapping[str, NDArray[Any]]) -> EmbeddingPlaces | None:
        """None where there are none, as in evidence of earlier versions. Raises ValueError if they do not fit."""
        if f"{PREFIX}share" not in arrays:
            return None
        gallery, one, other, queries = (
            arrays[f"{PREFIX}{name}"] for name in ("gallery", "by_gallery_model", "by_file", "queries")
        )
        if one.shape != other.shape or one.shape != (len(queries), 2) or gallery.shape[1:] != (2,):
            raise ValueError("the places of its map do not belong together")
        return EmbeddingPlaces(gallery, one, other, queries, float(arrays[f"{PREFIX}share"]))


def find_places(gallery: Floats, by_gallery_model: Floats, by_file: Floats, *, seed: int = 0) -> EmbeddingPlaces | None:
    """Sampled gallery (N, D); the queries' embeddings by both models (Q, D), of which PAIR_POINTS are drawn by `seed`.

    The axes are fitted to what the gallery model made, so that they are the same whatever file is checked. What is not
    finite stands nowhere; None where nothing is left to draw.
    """
    finite = np.flatnonzero(np.isfinite(by_file).all(axis=1) & np.isfinite(by_gallery_model).all(axis=1))
    pairs = np.sort(np.random.default_rng(seed).permutation(finite)[:PAIR_POINTS])
    known = gallery[np.isfinite(gallery).all(axis=1)]
    fitted = np.concatenate([known, by_gallery_model[pairs]]).astype(np.float64)
    if not len(pairs) or not len(known) or min(fitted.shape) < 2:
        return None
    centre = fitted.mean(axis=0)
    _, sizes, axes = np.linalg.svd(fitted - centre, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    whole = float((sizes**2).sum())
    share = float((sizes[:2] ** 2).sum()) / whole if whole else 1.0
    axes = axes.T
    return EmbeddingPlaces(
        _on(known, centre, axes), _on(by_gallery_model[pairs], centre, axes), _on(by_file[pairs], centre, axes),
        pairs.astype(np.int64), share,
    )  # fmt: skip


def _on(vectors: Floats, centre: NDArray[np.float64], axes: NDArray[np.float64]) -> Floats:
    return np.asarray((vectors.astype(np.float64) - centre) @ axes, np.float32)
