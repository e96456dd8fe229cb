"""Anchors: what a training image's similarity is measured against, and the contextual similarities to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgecsd.anchor_files import Anchors, read_anchors, write_anchors
from edgecsd.anchor_kinds import AnchorKind, Mining
from edgecsd.distributed import ALONE, Ranks
from edgecsd.errors import BadInputError
from edgecsd.features.mapped import MappedVectors, Queries, Vectors, digest
from edgecsd.files.places import sharing
from edgecsd.files.whole import Parts, digest_of
from edgecsd.mining import drawn_for_each, drawn_order, first_of, in_blocks, mine
from edgecsd.progress import SILENT, Reporter

__all__ = ["Anchors", "contextual_similarities", "make_anchors", "products"]

BLOCK_ROWS = 256  # vectors whose cosines to given anchors are taken at once
# What the ways of `products` cost, in anchors that `by_image` takes one by one (measured: benchmarks/anchors.py):
# a gallery row that is read in order, its product with one query there and back, and a row copied beside others.
STREAM, MULTIPLY, COPY = 0.9, 0.05, 2.0
GATHERED_VALUES = 1 << 26  # of anchors on disk that are in memory at once: 256 MB as float32

Floats = NDArray[np.float32]
Rows = Sequence[NDArray[np.int64]]


def make_anchors(
    vectors: Queries,
    gallery: Vectors,
    k: int,
    *,
    kind: AnchorKind = AnchorKind.TOPK,
    own_rows: Rows,
    out: Path,
    seed: int = 0,
    mining: Mining = Mining.EXACT,
    everyone: Ranks = ALONE,
    reporter: Reporter = SILENT,
) -> Anchors:
    """K anchors for each of vectors (T, D) out of gallery (N, D), both unit length, held in memory or left on disk.

    own_rows[t] are the gallery rows of the very image that vector t shows (and of byte-identical copies): they are left
    out, or g would stand twice among its anchors; to the centroids of a codebook they don't matter. `seed` is for
    kinds that draw, `mining` for TOPK. The result is kept in the folder `out`, and an interrupted run goes on.
    The processes of `everyone` share the work.
    Raises BadInputError where the gallery has not as many.
    """
    own = [np.unique(rows) for rows in own_rows]
    most_own = 0 if kind is AnchorKind.CODEBOOK else max((len(rows) for rows in own), default=0)
    most = len(gallery) - most_own
    if not 1 <= k <= most:
        raise BadInputError(f"--k {k}: the gallery offers 1 to {most} anchors an image")
    settings: dict[str, Any] = {
        "kind": kind.value, "k": k, "vectors": digest(vectors), "gallery": digest(gallery),
        **({"mining": mining.value} if kind is AnchorKind.TOPK else {"seed": seed}),
        **({} if kind is AnchorKind.CODEBOOK else {"own": digest_of([rows.tolist() for rows in own])}),
    }  # fmt: skip
    key = digest_of(settings)
    kept = read_anchors(out, key, gallery, len(vectors)) if everyone.count == 1 else None
    if kept is not None:
        return kept
    with sharing(out, everyone, reporter):
        kept = read_anchors(out, key, gallery, len(vectors))
        if kept is None:
            with everyone.one_ahead():
                parts = Parts(out, settings)
            work = _Work(vectors, gallery, k, own, parts, everyone, reporter)
            work.write(out, key, *work.make(kind, seed, mining))
            kept = read_anchors(out, key, gallery, len(vectors))
    assert kept is not None
    return kept


@dataclass(frozen=True)
class _Work:
    """What `make_anchors` was given, and the parts that an interrupted run goes on from."""

    vectors: Queries
    gallery: Vectors
    k: int
    own: Rows
    parts: Parts
    everyone: Ranks
    reporter: Reporter

    def make(self, kind: AnchorKind, seed: int, mining: Mining) -> tuple[int, dict[str, Any]]:
        """How many parts the anchors are in, and what `write_anchors` takes beside them for this kind."""
        vectors, gallery, k, own = self.vectors, self.gallery, self.k, self.own
        parts, everyone, reporter = self.parts, self.everyone, self.reporter
        if kind is AnchorKind.TOPK and mining is Mining.EXACT:
            return mine(vectors, gallery, k, own, parts, everyone=everyone, reporter=reporter), {}
        if kind is AnchorKind.TOPK:
            from edgecsd.list_mining import mine_in_lists  # faiss: only where it is asked for

            made, recall = mine_in_lists(vectors, gallery, k, own, parts, mining, everyone, reporter)
            return made, {"recall": recall}
        if kind is AnchorKind.CODEBOOK:
            with everyone.one_ahead():
                codebook = _codebook(gallery, k, seed, parts)
            every = np.arange(k, dtype=np.int32)
            return self._given(codebook, lambda block: _repeated(every, block)), {"alike": every, "codebook": codebook}
        if kind is AnchorKind.FIXED:
            order = drawn_order(len(gallery), seed)
            alike = None if any(np.isin(rows, order[:k]).any() for rows in own) else order[:k]
            return self._given(gallery, lambda block: first_of(order, k, own[block])), {"alike": alike}
        return self._given(gallery, lambda block: drawn_for_each(len(gallery), k, own[block], seed, block.start)), {}

    def write(self, out: Path, key: str, made: int, beside: dict[str, Any]) -> None:
        """The anchors to `out` under `key`; the parts are thrown away."""
        if self.everyone.first:
            write_anchors(out, key, self.parts, made, (len(self.vectors), self.k), **beside)
            self.parts.discard()
        self.everyone.meet()  # it is written

    def _given(self, anchors: Vectors, ids_of: Callable[[slice], NDArray[np.int32]]) -> int:
        """Anchors that do not depend on what is near, and the cosines to them, as that many parts."""
        everything = torch.from_numpy(anchors) if isinstance(anchors, np.ndarray) else anchors

        def make(block: slice) -> dict[str, NDArray[Any]]:
            ids = ids_of(block)
            chosen = torch.from_numpy(ids.astype(np.int64))
            asked = torch.from_numpy(np.ascontiguousarray(self.vectors[block], np.float32))
            cosines = products(asked, everything, chosen)
            return {"ids": ids, "similarities": cosines.to(torch.float16).numpy()}

        return in_blocks(
            make, len(self.vectors), BLOCK_ROWS, self.parts, "similarities to anchors", self.reporter, self.everyone
        )


def _repeated(alike: NDArray[np.int32], block: slice) -> NDArray[np.int32]:
    return np.broadcast_to(alike, (block.stop - block.start, len(alike)))


def _codebook(gallery: Vectors, k: int, seed: int, parts: Parts) -> Floats:
    """(K, D) centroids, kept among the parts: they can take longer than all the rest."""
    from edgecsd.index.engines.faiss.clustering import spherical_codebook  # faiss: only where it is asked for

    place = 10**6 - 1  # after every block
    if not parts.has(place):
        parts.write(place, vectors=spherical_codebook(gallery, k, seed=seed))
    return np.asarray(parts.read(place)["vectors"], np.float32)


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
    """The same with anchors on disk, which are read again for the way back."""

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
