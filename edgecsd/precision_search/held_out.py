"""The photos that a search is judged by: what the gallery model finds for them, and what the torch query model does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, ImageReadError
from edgecsd.features.exact import exact_neighbours, store_blocks
from edgecsd.features.store import FeatureStore
from edgecsd.gate.waterfall import relative_loss
from edgecsd.index.stored_vectors import Floats, Rows
from edgecsd.metrics.retrieval import cosines, overlap_at
from edgecsd.models.query import QueryModel
from edgecsd.photos.images import ImageSet
from edgecsd.quantisation.calibration import one_digest

K = 10  # depth of the overlap
BATCH = 16
FEWEST = 16


class HeldOut:
    """Held-out photos' pixels, what the gallery model finds for them, and what the torch query model finds.

    pixels   (n, S, S, 3) uint8
    truth    (n, D) what the gallery model makes of them
    rows     (n,) of the photos in the gallery: they are left out of what is found, with all copies of theirs
    names    their ids
    """

    def __init__(self, pixels: NDArray[np.uint8], truth: Floats, rows: Rows, gallery: FeatureStore) -> None:
        self.pixels, self.gallery = pixels, gallery
        ids, digests = (tuple(each[int(row)] for row in rows) for each in (gallery.items.ids, gallery.items.digests))
        self.names = frozenset(ids)
        self._own = gallery.rows_of(ids, digests)
        self._wanted = self._find(truth)
        self.torch: Floats = np.empty((0, gallery.space.dim), np.float32)
        self._before: NDArray[np.float64] = np.empty(0)

    def start_from(self, model: QueryModel) -> None:
        """Take the torch model's own results as what nothing is lost against."""
        parts = [model.embed(self.pixels[i : i + BATCH]) for i in range(0, len(self.pixels), BATCH)]
        self.torch = np.concatenate(parts)
        self._before = self.overlap(self.torch)

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
        """(n, K) gallery rows, best first; -1 where nothing else is left."""
        depth = K + max(len(own) for own in self._own)
        rows = exact_neighbours(vectors, store_blocks(self.gallery), depth)[1]
        for found, own in zip(rows, self._own, strict=True):
            found[np.isin(found, own)] = -1
        return np.take_along_axis(rows, np.argsort(rows < 0, axis=1, kind="stable")[:, :K], axis=1)


def require_enough(photos: ImageSet, most: int, calibration_count: int) -> None:
    """Raise BadInputError where fewer than 16 photos would be left to search with."""
    if most < FEWEST:
        raise BadInputError(
            f"`held_out` {most}: {FEWEST} photos or more are needed to measure what is lost (300 are good)"
        )
    if len(photos) < calibration_count + FEWEST:
        left = max(0, len(photos) - calibration_count)
        raise BadInputError(
            f"{photos.root}: of {len(photos)} photos {calibration_count} give the ranges, which leaves {left} to "
            f"search with; {FEWEST} or more are needed (300 are good): give more, or a smaller `calibration_count`"
        )


def held_out_photos(
    photos: ImageSet, store: FeatureStore, model: QueryModel, most: int, ranges: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], Rows]:
    """Pixels and store rows of the first `most` of the photos that have features; copies of `ranges` are left out.

    ranges: (n, S, S, 3) uint8 of the photos that calibrate

    Raises BadInputError for fewer than 16.
    """
    calibrated = frozenset(map(one_digest, ranges))
    pixels: list[NDArray[np.uint8]] = []
    rows: list[int] = []
    for position, item in enumerate(photos.ids):
        if len(rows) == most:
            break
        if item not in store.row_of:
            continue
        try:
            photo = photos.read(position)
        except ImageReadError:
            continue
        shown = model.config.preprocess.pixels(photo.image, photo.scale)
        if one_digest(shown) in calibrated:
            continue
        pixels.append(shown)
        rows.append(store.row_of[item])
    if len(rows) < FEWEST:
        raise BadInputError(
            f"{photos.root}: beside the photos that give the ranges, {len(rows)} of {len(photos)} have features in "
            f"{store.path}, can be read and are no copies of those; "
            f"{FEWEST} or more are needed to measure what is lost (300 are good)"
        )
    return np.stack(pixels), np.array(rows, np.int64)
