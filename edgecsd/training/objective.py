"""The chosen loss over the training vectors: the gallery's side of it is made once and looked up batch by batch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgecsd.distributed import ALONE, Ranks
from edgecsd.features.mapped import FlatViews, Views, chosen_views
from edgecsd.files.whole import digest_of
from edgecsd.index.engines.faiss.clustering import product_codebooks
from edgecsd.progress import SILENT, Reporter
from edgecsd.training.anchor_pool import anchor_pool
from edgecsd.training.anchors.making import make_anchors
from edgecsd.training.anchors.similarities import contextual_similarities
from edgecsd.training.anchors.stored import Anchors
from edgecsd.training.choices import ANCHORED_LOSSES, Loss
from edgecsd.training.losses.csd_kl import csd_kl
from edgecsd.training.losses.csd_norms import csd_l1, csd_l2
from edgecsd.training.losses.d3still import d3still
from edgecsd.training.losses.raml import raml
from edgecsd.training.losses.regression import regression
from edgecsd.training.losses.rop import rop
from edgecsd.training.losses.ssp import ssp
from edgecsd.training.settings import DistillConfig
from edgecsd.training.training_set import TrainingSet


@dataclass
class Objective:
    """The loss of embeddings of given views of given training images.

    features   (T, 1 + V, D) gallery features of the training images and of their cached views, maybe left on disk
    anchors    of every one of those vectors, row = image x (1 + V) + view; None for a loss without anchors
    codebooks  (M, L, D / M) product quantiser of the gallery, for SSP only
    """

    features: Views
    config: DistillConfig = field(repr=False)
    anchors: Anchors | None = field(default=None, repr=False)
    codebooks: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        assert (self.anchors is not None) == (self.config.loss in ANCHORED_LOSSES)
        assert (self.codebooks is not None) == (self.config.loss is Loss.SSP)
        vectors = None if self.anchors is None else self.anchors.vectors
        self._vectors = torch.from_numpy(vectors) if isinstance(vectors, np.ndarray) else vectors

    def loss(self, embeddings: Tensor, images: NDArray[np.int64], views: NDArray[np.int64]) -> Tensor:
        """Mean loss of (B, D) unit embeddings; images (B,) rows of `features`, views (B,)."""
        config = self.config
        own = torch.from_numpy(self.own_features(images, views))
        if self.anchors is not None:
            return self._contextual(*self._similarities(self.anchors, embeddings, own, images, views))
        if config.loss is Loss.REGRESSION:
            return regression(embeddings, own)
        if config.loss is Loss.RAML:
            return raml(embeddings, own)
        assert self.codebooks is not None
        return ssp(
            embeddings, own, self.codebooks, tau_q=config.tau_q, tau_g=config.tau_g, first_order=config.first_order
        )

    def own_features(self, images: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.float32]:
        """(B, D) gallery features of views (B,) of images (B,)."""
        return np.asarray(self.features[images, views])

    def _similarities(
        self, anchors: Anchors, embeddings: Tensor, own: Tensor, images: NDArray[np.int64], views: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """C_q and C_g, each (B, K + 1), the image's own gallery feature first."""
        assert self._vectors is not None
        rows = images * self.features.shape[1] + views
        ids = torch.from_numpy(np.asarray(anchors.ids[rows], np.int64))
        queries = contextual_similarities(embeddings, own, self._vectors, ids)
        others = torch.from_numpy(np.asarray(anchors.similarities[rows], np.float32))
        return queries, torch.cat([(own * own).sum(1, keepdim=True), others], dim=1)

    def _contextual(self, queries: Tensor, gallery: Tensor) -> Tensor:
        config = self.config
        match config.loss:
            case Loss.CSD_KL:
                return csd_kl(queries, gallery, tau_q=config.tau_q, tau_g=config.tau_g, order=config.order)
            case Loss.CSD_L2:
                return csd_l2(queries, gallery, order=config.order)
            case Loss.CSD_L1:
                return csd_l1(queries, gallery, order=config.order)
            case Loss.ROP:
                return rop(queries, gallery)
            case _:
                return d3still(queries, gallery)


def make_objective(
    data: TrainingSet, config: DistillConfig, cache: Path, *, everyone: Ranks = ALONE, reporter: Reporter = SILENT
) -> Objective:
    """The loss of a configuration over `data.train`; anchors are kept in the folder `cache`, shared by `everyone`."""
    features, codebooks = chosen_views(data.features, data.train), None
    if config.loss is Loss.SSP:
        centroids = min(config.centroids, len(data.gallery))
        if centroids < config.centroids:
            reporter.message(f"the gallery offers only {centroids} centroids a sub-space, not {config.centroids}")
        books = product_codebooks(data.gallery, config.sub_spaces, centroids, seed=config.seed)
        codebooks = torch.from_numpy(books)
    if config.loss not in ANCHORED_LOSSES:
        return Objective(features, config, codebooks=codebooks)
    pool = anchor_pool(data, config)
    k = pool.count(config.k)
    whose = hashlib.sha256(data.train.tobytes()).hexdigest()  # runs that hold out others share the cache
    made_of = digest_of([config.anchors, k, config.mining, config.seed, features.shape, pool.views, whose])
    anchors = make_anchors(
        FlatViews(features, np.arange(len(features))),
        pool.vectors,
        k,
        kind=config.anchors,
        seed=config.seed,
        own_rows=pool.own_rows,
        out=cache / f"anchors-{made_of[:16]}",
        mining=config.mining,
        everyone=everyone,
        reporter=reporter,
    )
    return Objective(features, config, anchors)
