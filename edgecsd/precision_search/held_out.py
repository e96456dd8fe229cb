"""The photos that a search is judged by: what the gallery model finds for them, and what the torch query model does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecsd.attribution import relative_loss
from edgecsd.errors import BadInputError, ImageReadError
from edgecsd.features import FeatureStore
from edgecsd.gallery_vectors import Floats, Rows, exact_neighbours, store_blocks, without_own
from edgecsd.images import ImageSet
from edgecsd.metrics import cosines, overlap_at
from edgecsd.query_models import QueryModel

K = 10  # depth of the overlap
BATCH = 16
FEWEST = 16


class HeldOut:
    """Held-out photos' pixels, what the gallery model finds for them, and what the torch query model finds.

    pixels   (n, S, S, 3) uint8
    own      (n,) rows of the photos themselves in the gallery, -1 where one is not in it: they are left out
    """

    def __init__(self, pixels: NDArray[np.uint8], truth: Floats, own: Rows, gallery: FeatureStore) -> None:
        self.pixels, self._own, self.gallery = pixels, own, gallery
        self._wanted = self._find(truth)
        self.torch: Floats = np.empty((0, gallery.space.dim), np.float32)
        self._before: NDArray[np.float64] = np.empty(0)

    def start_from(self, model: QueryModel) -> None:
        """Take the torch model's own results as what nothing is lost against."""
        parts = [model.embed(self.pixels[i : i + BATCH]) for i in range(0, len(self.pixels), BATCH)]
        self.torch = np.concatenate(parts)
        self._before = self.overlap(self.torch)

    @property
    def names(self) -> frozenset[str]:
        """The ids of the photos, those of them that are in the gallery."""
        return frozenset(self.gallery.items.ids[row] for row in self._own if row >= 0)

    @property
    def torch_overlap(self) -> float:
        return float(self._before.mean())

    def overlap(self, vectors: Floats) -> NDArray[np.float64]:
        """(n,) overlap@10 of what these embeddings (n, D) find with what the gallery model finds."""
        return overlap_at(self._find(vectors), self._wanted, K)

    def lost(self, vectors: Floats) -> NDArray[np.float64]:
        """(n,) values whose mean is the share of the torch model's overlap that is gone."""
        return relative_loss(self._before, self.overlap(vectors))

    def cosine(self, vectors: Floats) -> float:
        """Mean cosine to the torch model's embeddings."""
        return float(cosines(self.torch, vectors).mean())

    def _find(self, vectors: Floats) -> Rows:
        return without_own(*exact_neighbours(vectors, store_blocks(self.gallery), K + 1), self._own, K)[1]


def held_out_photos(
    photos: ImageSet, store: FeatureStore, model: QueryModel, most: int, calibration_count: int, seed: int
) -> tuple[np.ndarray, Rows]:
    """Pixels and store rows of photos that do not calibrate; the calibration takes the first of the same order.

    Raises BadInputError for fewer than 16.
    """
    if most < FEWEST:
        raise BadInputError(
            f"--held-out {most}: {FEWEST} photos or more are needed to measure what is lost (300 are good)"
        )
    if len(photos) < calibration_count + FEWEST:
        left = max(0, len(photos) - calibration_count)
        raise BadInputError(
            f"{photos.root}: of {len(photos)} photos {calibration_count} give the ranges, which leaves {left} to "
            f"search with; {FEWEST} or more are needed (300 are good): give more, or a smaller --calibration-count"
        )
    order = [int(position) for position in np.random.default_rng(seed).permutation(len(photos))]
    candidates = [p for p in order[calibration_count:] if photos.ids[p] in store.row_of]
    pixels: list[np.ndarray] = []
    rows: list[int] = []
    for position in candidates:
        if len(rows) == most:
            break
        try:
            photo = photos.read(position)
        except ImageReadError:
            continue
        pixels.append(model.config.preprocess.pixels(photo.image, photo.scale))
        rows.append(store.row_of[photos.ids[position]])
    if len(rows) < FEWEST:
        raise BadInputError(
            f"{photos.root}: beside the {calibration_count} photos that give the ranges, {len(rows)} of "
            f"{len(photos) - calibration_count} have features in {store.path}; {FEWEST} or more are needed to measure "
            "what is lost (300 are good)"
        )
    return np.stack(pixels), np.array(rows, np.int64)
