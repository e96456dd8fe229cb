"""The embedding map: gallery model's and query model's embeddings of the same images, joined, over the gallery.

After the map in Wu et al., "Contextual Similarity Distillation for Asymmetric Image Retrieval", CVPR 2022. PCA keeps
large distances (its axes are fitted to the gallery model's vectors alone); t-SNE (van der Maaten and Hinton, JMLR 2008)
keeps neighbours, its distances mean nothing. So what the distances are in the space itself stands beside the maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from edgecsd.errors import missing_extra
from edgecsd.report.drawing.style import (
    GALLERY_MODEL,
    MUTED,
    NEUTRAL,
    PALETTE,
    QUERY_MODEL,
    bare,
    look,
    new_figure,
    printable,
)

try:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
except ImportError:
    raise missing_extra("scikit-learn", "report") from None

Floats = NDArray[np.float32]
GALLERY_LIMIT, PAIR_LIMIT = 2000, 250  # points drawn: more take minutes of t-SNE and hide one another
PCA_BEFORE_TSNE = 50  # dimensions, as van der Maaten and Hinton do
PERPLEXITY = 30.0


@dataclass(frozen=True)
class Points:
    """Vectors of one space to be drawn: sampled gallery (N, D); the pairs (P, D) of the same images, row by row."""

    gallery: Floats
    by_gallery_model: Floats
    by_query_model: Floats
    labels: tuple[str, ...] | None = None  # of the pairs

    def places(self, flat: Floats) -> tuple[Floats, Floats, Floats]:
        """Rows of stacked (N + 2 P, ...) results, taken apart again."""
        count, pairs = len(self.gallery), len(self.by_gallery_model)
        return flat[:count], flat[count : count + pairs], flat[count + pairs :]


def sample_points(
    gallery: Floats, by_gallery_model: Floats, by_query_model: Floats, labels: Sequence[str] | None, *, seed: int = 0
) -> Points:
    """At most GALLERY_LIMIT of the gallery (N, D) and PAIR_LIMIT of the pairs (Q, D), drawn by `seed`."""
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(len(gallery))[:GALLERY_LIMIT])
    pairs = np.sort(random.permutation(len(by_gallery_model))[:PAIR_LIMIT])
    chosen = None if labels is None else tuple(labels[pair] for pair in pairs)
    return Points(gallery[rows], by_gallery_model[pairs], by_query_model[pairs], chosen)


def pca_places(points: Points) -> tuple[Floats, float]:
    """(N + 2 P, 2): all points on the first two principal axes of what the gallery model made; and the share of the
    gallery model's variance that these axes hold."""
    fitted = PCA(n_components=2, svd_solver="full").fit(np.concatenate([points.gallery, points.by_gallery_model]))
    return np.asarray(fitted.transform(_stacked(points)), np.float32), float(fitted.explained_variance_ratio_.sum())


def tsne_places(points: Points, *, seed: int = 0) -> Floats:
    """(N + 2 P, 2): t-SNE of all points together, begun from PCA, the same for the same seed."""
    stacked = _stacked(points)
    width = min(PCA_BEFORE_TSNE, *stacked.shape)
    reduced = PCA(n_components=width, svd_solver="full").fit_transform(stacked)
    perplexity = min(PERPLEXITY, (len(stacked) - 1) / 3)
    tsne = TSNE(n_components=2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    return np.asarray(tsne.fit_transform(reduced), np.float32)


def _stacked(points: Points) -> Floats:
    return np.concatenate([points.gallery, points.by_gallery_model, points.by_query_model])


def map_figure(points: Points, flat: Floats, *, other_name: str = "query model") -> Figure:
    """The map of (N + 2 P, 2) places: grey gallery; circle = gallery model, triangle = query model, a line each pair.

    Pairs have their label's colour, or grey for none, where there are no more labels than colours, else their model's.
    """
    gallery, one, other = points.places(flat)
    names = sorted(set(points.labels or ()) - {""})
    by_label = 1 < len(names) <= len(PALETTE)
    colour_of = dict(zip(names, PALETTE, strict=False))
    label_colours = [colour_of.get(label, MUTED) for label in points.labels or ()] if by_label else []
    with look():
        figure = new_figure(5.0)
        axes = figure.subplots()
        bare(axes)
        axes.scatter(gallery[:, 0], gallery[:, 1], s=5, color=NEUTRAL, alpha=0.45, linewidth=0, rasterized=True)
        axes.add_collection(
            LineCollection(
                np.stack([one, other], axis=1).tolist(), colors=label_colours or MUTED, linewidths=0.6, alpha=0.6
            )
        )
        axes.scatter(one[:, 0], one[:, 1], s=15, marker="o", color=label_colours or GALLERY_MODEL, linewidth=0)
        axes.scatter(other[:, 0], other[:, 1], s=17, marker="^", color=label_colours or QUERY_MODEL, linewidth=0)
        _legend(axes, colour_of if by_label else {}, other_name)
    return figure


def _legend(axes: Axes, colour_of: dict[str, str], other_name: str) -> None:
    """Below the map: what the shapes are, then the labels' colours."""
    one, other = (MUTED, MUTED) if colour_of else (GALLERY_MODEL, QUERY_MODEL)
    shapes = [("gallery model", "o", one), (other_name, "^", other), ("gallery", "o", NEUTRAL)]
    shapes += [(printable(label, 22), "s", colour) for label, colour in colour_of.items()]
    handles = [
        Line2D([], [], linestyle="none", marker=marker, color=colour, label=name) for name, marker, colour in shapes
    ]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, handletextpad=0.2)


@dataclass(frozen=True)
class Distances:
    """Means over the queries, of Euclidean distances between unit vectors in the space itself (0 to 2)."""

    pair: float  # from an image's embedding by the query model to that by the gallery model
    nearest_other: float  # from the gallery model's embedding to the nearest gallery image that is another
    closer: float  # share of the queries whose pair distance is the smaller of the two

    @staticmethod
    def measure(pair_cosine: NDArray[np.floating], nearest_cosine: NDArray[np.floating]) -> Distances:
        """From (Q,) cosines; |a - b|^2 = 2 - 2 cos(a, b). A query without any other image (NaN) is left out."""
        known = ~np.isnan(nearest_cosine)
        pair, nearest = (
            np.sqrt(np.maximum(0.0, 2 - 2 * np.asarray(cosine, np.float64)[known]))
            for cosine in (pair_cosine, nearest_cosine)
        )
        return Distances(float(pair.mean()), float(nearest.mean()), float((pair < nearest).mean()))
