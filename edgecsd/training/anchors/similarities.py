"""Cosines of training images to their anchors, for galleries in memory and on disk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgecsd.features.mapped import MappedVectors

# What the ways of `products` cost, in anchors that `by_image` takes one by one (measured: benchmarks/speed/anchors.py):
# a gallery row that is read in order, its product with one query there and back, and a row copied beside others.
STREAM, MULTIPLY, COPY = 0.9, 0.05, 2.0
GATHERED_VALUES = 1 << 26  # of anchors on disk that are in memory at once: 256 MB as float32


def contextual_similarities(queries: Tensor, own: Tensor, gallery: Tensor | MappedVectors, ids: Tensor) -> Tensor:
    """(B, K + 1) cosines of queries (B, D) to their anchors: `own` (B, D) first, then gallery (N, D) rows ids (B, K).

    Gradients go to the queries alone. No (B, K + 1, D) copy is made, see `products`.
    """
    first = (queries * own).sum(dim=1, keepdim=True)
    return torch.cat([first, products(queries, gallery, ids)], dim=1)


def products(queries: Tensor, gallery: Tensor | MappedVectors, ids: Tensor) -> Tensor:
    """(B, K) products of queries (B, D) with gallery (N, D) rows ids (B, K), in the way that costs least.

    All with all costs (B, N) of memory, but is one fast matrix product; by image costs B K rows, but no row is
    multiplied in vain; unique anchors are worth their gathering where the images of a batch share most of them.
    """
    if isinstance(gallery, MappedVectors):
        return _from_disk(queries, gallery, ids)
    batch, k = ids.shape
    row = STREAM + MULTIPLY * batch
    present = torch.zeros(len(gallery), dtype=torch.bool).index_fill_(0, ids.reshape(-1), True)
    unique = int(present.sum())
    costs = {by_whole_gallery: len(gallery) * row, by_unique_anchors: unique * (COPY + row), by_image: batch * k}
    return min(costs, key=costs.__getitem__)(queries, gallery, ids)


def by_whole_gallery(queries: Tensor, gallery: Tensor, ids: Tensor) -> Tensor:
    """`products` as one matrix product with all of the gallery, and a gather of scalars."""
    return (queries @ gallery.T).gather(1, ids)


def by_unique_anchors(queries: Tensor, gallery: Tensor, ids: Tensor) -> Tensor:
    """`products` as one matrix product with every row that the batch needs, copied once."""
    present = torch.zeros(len(gallery), dtype=torch.bool).index_fill_(0, ids.reshape(-1), True)
    places = (present.cumsum(0) - 1)[ids]  # no sorting, as torch.unique would
    return (queries @ gallery[present].T).gather(1, places)


def _from_disk(queries: Tensor, gallery: MappedVectors, ids: Tensor) -> Tensor:
    """`products` with the rows that the batch needs, read once; with too many of them for that, image by image."""
    rows, places = torch.unique(ids, return_inverse=True)
    if len(rows) * gallery.shape[1] > GATHERED_VALUES:
        result: Tensor = _ByMappedImage.apply(queries, gallery, ids)
        return result
    return products(queries, torch.from_numpy(gallery[rows.numpy()]), places)


def by_image(queries: Tensor, gallery: Tensor, ids: Tensor) -> Tensor:
    """`products` image by image: never more than one image's (K, D) anchors in memory, there and back."""
    result: Tensor = _ByImage.apply(queries, gallery, ids)
    return result


class _ByImage(torch.autograd.Function):
    """Autograd by itself would keep every image's gathered anchors for the way back; they are gathered anew instead."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, gallery: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(gallery, ids)
        result, rows = queries.new_empty(ids.shape), gallery.new_empty(ids.shape[1], gallery.shape[1])
        for number, own in enumerate(ids):  # into the same rows: new ones for each image cost more than the products
            torch.mv(torch.index_select(gallery, 0, own, out=rows), queries[number], out=result[number])
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gallery, ids = ctx.saved_tensors
        weights = gradients[0].contiguous()
        return torch.nn.functional.embedding_bag(ids, gallery, per_sample_weights=weights, mode="sum"), None, None


class _ByMappedImage(torch.autograd.Function):
    """`by_image` with anchors on disk, which are read again for the way back."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, gallery: MappedVectors, ids: Tensor) -> Tensor:
        ctx.gallery, ctx.ids = gallery, ids
        rows = (torch.from_numpy(gallery[own.numpy()]) for own in ids)
        return torch.stack([anchors @ query for anchors, query in zip(rows, queries, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows = (torch.from_numpy(ctx.gallery[own.numpy()]) for own in ctx.ids)
        pairs = zip(gradients[0], rows, strict=True)
        return torch.stack([weights @ anchors for weights, anchors in pairs]), None, None
