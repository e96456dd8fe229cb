"""What a distillation learns from: photos matched with cached gallery features, split into training and held-out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.features.exact import unit_rows
from edgecsd.features.mapped import FlatViews, Queries, Vectors, Views, gallery_vectors, view_vectors
from edgecsd.features.space import require_same_space
from edgecsd.features.store import FeatureStore
from edgecsd.metrics.retrieval import overlap_at
from edgecsd.photos.decoding import photo_digest
from edgecsd.photos.images import ImageSet
from edgecsd.photos.views import ViewRecipe
from edgecsd.training.anchors.mining import nearest
from edgecsd.training.choices import HeldOutBy

Floats = NDArray[np.float32]
BLOCK_ROWS = 65_536  # vectors that are held while clusters are sought
CLUSTERS = 60  # of the photos' gallery features; whole ones are held out


@dataclass(frozen=True)
class TrainingSet:
    """Photos whose gallery features are cached, and the gallery that they are compared with.

    images    only those with features, in store order
    features  (T, 1 + V, D): of each image and its views; like `gallery` left on disk where they are many
    gallery   (N, D) the vectors that anchors and neighbours come from
    own_rows  per image the gallery rows that show the same photo (same id or byte-identical)
    """

    images: ImageSet
    digests: tuple[str, ...]
    store: FeatureStore
    views: ViewRecipe  # those of the store, or fewer
    features: Views = field(repr=False)
    gallery: Vectors = field(repr=False)
    own_rows: tuple[NDArray[np.int64], ...] = field(repr=False)
    train: NDArray[np.int64] = field(repr=False)
    held_out: NDArray[np.int64] = field(repr=False)

    @cached_property
    def held_out_neighbours(self) -> NDArray[np.int64]:
        """(H, 100 or the gallery) rows nearest to the held-out images' own gallery features."""
        return self.neighbours(self.own_features(self.held_out), depth=100)

    def own_features(self, images: NDArray[np.int64]) -> Floats:
        """(B, D) of some images themselves, without their views."""
        return np.asarray(self.features[images, 0])

    def neighbours(self, embeddings: Floats, depth: int) -> NDArray[np.int64]:
        """(H, depth) gallery rows nearest to the (H, D) embeddings of the held-out images, best first.

        Ties are in any order. The photos themselves are left out; where nothing else remains the row is -1. The gallery
        goes through memory block by block.
        """
        own = [self.own_rows[int(position)] for position in self.held_out]
        rows, cosines = nearest(embeddings, self.gallery, min(depth, len(self.gallery)), own)
        return np.where(cosines > -np.inf, rows, -1).astype(np.int64)

    def held_out_overlaps(self, embeddings: Floats, k: int) -> NDArray[np.float64]:
        """(H,) share of the gallery model's first k neighbours that each of the (H, D) embeddings finds too."""
        return overlap_at(self.neighbours(embeddings, k), self.held_out_neighbours, k)

    def held_out_overlap(self, embeddings: Floats, k: int) -> float:
        """The mean of `held_out_overlaps`."""
        return float(self.held_out_overlaps(embeddings, k).mean())


def make_training_set(
    images: ImageSet,
    gallery: FeatureStore,
    features: FeatureStore | None,
    *,
    share: float,
    limit: int,
    overlap_k: int,
    by: HeldOutBy,
    views: int | None = None,
) -> TrainingSet:
    """Match photos with their cached features and set held-out ones aside.

    features: the store with the photos' own features where they are not part of the gallery.
    views: use only the first so many of the cached views.
    """
    store = features or gallery
    if views is not None and views > store.views.count:
        raise BadInputError(f"`views` {views}: {store.path} has {store.views.count} cached views an image")
    recipe = store.views if views is None else store.views.model_copy(update={"count": views})
    require_same_space(store.space, gallery.space, str(store.path), str(gallery.path))
    matched = [p for p, item in enumerate(images.ids) if item in store.row_of]
    if not matched:
        raise BadInputError(
            f"none of the {len(images)} images of {images.root} has features in {store.path}: an image there is called "
            f"{store.items.ids[0]!r}, here {images.ids[0]!r}; give the folder that `extract` was given, or the "
            f"photos' own store with `features`"
        )
    rows = np.array([store.row_of[images.ids[p]] for p in matched])
    digests = tuple(store.items.digests[r] for r in rows)
    chosen = images.subset(matched)
    vectors = view_vectors(store, rows, recipe)
    train, held_out = _split(chosen.ids, digests, vectors, share, limit, by)
    if len(held_out) < 2 or len(train) < 8 or gallery.count <= overlap_k + 1:
        raise BadInputError(
            f"{len(train)} training images, {len(held_out)} held out and a gallery of {gallery.count} are too few: "
            f"at least 8, 2 and {overlap_k + 2} are needed; give more photos, or a larger `held_out` share"
        )
    own_rows = gallery.rows_of(chosen.ids, digests)
    return TrainingSet(chosen, digests, store, recipe, vectors, gallery_vectors(gallery), own_rows, train, held_out)


def _split(
    ids: tuple[str, ...], digests: tuple[str, ...], vectors: Views, share: float, limit: int, by: HeldOutBy
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(training, held-out) positions. Held out by kinds are whole clusters of the gallery space, not single photos.

    A photo held out by itself leaves its near twins to train on, and what is then selected is what remembers them: on
    photos of classes never seen, ridge regression looked better than a trained projection and was worse by 15 mAP
    (docs/decisions/0004). Where no query is of such classes, that is what should be selected (0013).

    Everything follows from the hash of the photos' bytes, not from order or chance; copies and crops of a photo stay on
    one side.
    """
    keys = [
        hashlib.sha256(("held-out " + (photo_digest(digest) or item)).encode()).hexdigest()
        for item, digest in zip(ids, digests, strict=True)
    ]
    order = np.argsort(keys, kind="stable")
    wanted = max(2, min(limit, round(share * len(ids))))
    held = np.zeros(len(ids), bool)
    held[order[:wanted] if by is HeldOutBy.PHOTOS else _of_few_clusters(vectors, order, wanted)] = True
    held |= np.isin(keys, [key for key, chosen in zip(keys, held, strict=True) if chosen])
    return np.flatnonzero(~held), np.flatnonzero(held)


def _of_few_clusters(vectors: Views, order: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """As many images as wanted, cluster by cluster.

    Clusters come and are cut by `order`, that of the photos' hashes, so that all is alike whatever the list's order.
    """
    clusters = spherical_k_means(FlatViews(vectors, order, 1), np.arange(max(2, min(CLUSTERS, len(order) // 4))))
    found = order[:0]
    for cluster in dict.fromkeys(clusters.tolist()):
        found = np.concatenate([found, order[clusters == cluster][: wanted - len(found)]])
    return found


def spherical_k_means(vectors: Queries, first: NDArray[np.int64], rounds: int = 10) -> NDArray[np.int64]:
    """(T,) cluster of each unit vector (T, D), by cosine; centres start from the rows `first` (Dhillon, Modha 2001).

    faiss's k-means, which codebooks use, starts from a sample by position and holds all vectors at once: this one gives
    the same clusters however the photos are listed, and reads the vectors in blocks.
    """
    centres = np.array(vectors[first], np.float32)
    cluster_of = np.zeros(len(vectors), np.int64)
    for _ in range(rounds):
        sums, counts = np.zeros_like(centres), np.zeros(len(centres), np.int64)
        for start in range(0, len(vectors), BLOCK_ROWS):
            block = np.asarray(vectors[start : start + BLOCK_ROWS], np.float32)
            found = cluster_of[start : start + BLOCK_ROWS] = np.argmax(block @ centres.T, axis=1)
            for number in np.unique(found):
                members = block[found == number]
                sums[number] += members.sum(axis=0)
                counts[number] += len(members)
        means = sums[counts > 0] / counts[counts > 0, None].astype(np.float32)
        centres[counts > 0] = unit_rows(means)
    return cluster_of
