"""The queries that files are compared by: a workshop's photos, each searched for among the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from seeded.workshop import Workshop

from edgecsd.benchmark import Benchmark
from edgecsd.embedding import Embedder, embed_images
from edgecsd.evaluate import make_benchmark
from edgecsd.features import Items


class Asked:
    """Query and gallery photos but those that calibrate 8 bit, `limit` at most; a photo's own row is never a result."""

    def __init__(self, workshop: Workshop, limit: int, name: str) -> None:
        gallery, queries = workshop.gallery, workshop.queries
        calibrating = set(workshop.calibration_photos().ids)
        rows = [row for row, item in enumerate(gallery.items.ids) if item not in calibrating]
        every = [(gallery, row) for row in rows] + [(queries, row) for row in range(queries.count)]
        if len(every) > limit:
            every = [every[place] for place in np.linspace(0, len(every) - 1, limit).round().astype(int)]
        self.photos = replace(
            workshop.gallery_photos, ids=tuple(store.items.ids[row] for store, row in every), labels=None, boxes=None
        )
        labelled = gallery.items.labels is not None and queries.items.labels is not None
        items = Items(
            self.photos.ids, tuple(store.items.digests[row] for store, row in every),
            tuple((store.items.labels or ())[row] for store, row in every) if labelled else None,
        )  # fmt: skip
        vectors = np.stack([store.vectors()[row] for store, row in every])
        self.benchmark: Benchmark = make_benchmark(gallery, workshop.store(name, vectors, items=items))

    def embed(self, embedder: Embedder, name: str) -> NDArray[np.float32]:
        """(Q, D), the photos' embeddings."""
        return np.asarray(embed_images(self.photos, embedder, name=name, strict=True).vectors[:, 0], np.float32)
