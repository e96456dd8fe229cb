"""Anchors: what a training image's similarity is measured against, and the contextual similarities to them."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgecsd.anchor_kinds import AnchorKind, Mining
from edgecsd.distributed import ALONE, Ranks
from edgecsd.errors import BadInputError
from edgecsd.files import Parts, digest_of, replace_whole
from edgecsd.mining import drawn_for_all, drawn_for_each, in_blocks, mine
from edgecsd.progress import SILENT, Reporter

BLOCK_ROWS = 256  # vectors whose cosines to given anchors are taken at once
# What the ways of `products` cost, in anchors that `by_image` takes one by one (measured: benchmarks/anchors.py):
# a gallery row that is read in order, its product with one query there and back, and a row copied beside others.
STREAM, MULTIPLY, COPY = 0.9, 0.05, 2.0

Floats = NDArray[np.float32]
Rows = Sequence[NDArray[np.int64]]


@dataclass(frozen=True)
class Anchors:
    """The K anchors of each of T training vectors.

    vectors       (N, D) what ids point into: the gallery, or the K centroids of a codebook
    ids           (T, K) rows of `vectors`; a read-only broadcast view where all rows are alike.
                  TOPK: nearest first. RANDOM and FIXED: as drawn. CODEBOOK: 0 to K - 1
    similarities  (T, K) cosines to them, in the order of ids
    recall        of approximate mining against exact mining, on a sample; None where exact
    """

    vectors: Floats
    ids: NDArray[np.int32]
    similarities: NDArray[np.float16]
    recall: float | None = None


def make_anchors(
    vectors: Floats,
    gallery: Floats,
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
    """K anchors for each of vectors (T, D) out of gallery (N, D), both unit length.

    own_rows[t] are the gallery rows of the very image that vector t shows (and of byte-identical copies): they are left
    out, or g would stand twice among its anchors; to the centroids of a codebook they don't matter. `seed` is for
    kinds that draw, `mining` for TOPK. The result is kept in `out`, and an interrupted run goes on.
    The processes of `everyone` share the work.
    Raises BadInputError where the gallery has not as many.
    """
    own = [np.unique(rows) for rows in own_rows]
    most_own = 0 if kind is AnchorKind.CODEBOOK else max((len(rows) for rows in own), default=0)
    most = len(gallery) - most_own
    if not 1 <= k <= most:
        raise BadInputError(f"--k {k}: the gallery offers 1 to {most} anchors an image")
    settings: dict[str, Any] = {
        "kind": kind.value, "k": k, "vectors": _digest(vectors), "gallery": _digest(gallery),
        **({"mining": mining.value} if kind is AnchorKind.TOPK else {"seed": seed}),
        **({} if kind is AnchorKind.CODEBOOK else {"own": digest_of([rows.tolist() for rows in own])}),
    }  # fmt: skip
    kept = _read(out, digest_of(settings), gallery, len(vectors))
    if kept is not None:
        return kept
    with everyone.one_ahead():
        parts = Parts(out, settings)
    if kind is AnchorKind.TOPK:
        (ids, similarities), recall = mine(
            vectors, gallery, k, own, parts, mining=mining, everyone=everyone, reporter=reporter
        )
        anchors = Anchors(gallery, ids, similarities, recall)
    else:
        anchors = _given(vectors, gallery, k, kind, own, seed, parts, reporter, everyone)
    everyone.meet()  # all have read the parts
    if everyone.first:
        _write(out, anchors, digest_of(settings), codebook=kind is AnchorKind.CODEBOOK)
        parts.discard()
    return anchors


def _given(
    vectors: Floats,
    gallery: Floats,
    k: int,
    kind: AnchorKind,
    own: Rows,
    seed: int,
    parts: Parts,
    reporter: Reporter,
    everyone: Ranks,
) -> Anchors:
    """Anchors that do not depend on what is near, and the cosines to them."""
    if kind is AnchorKind.CODEBOOK:
        with everyone.one_ahead():
            gallery = _codebook(gallery, k, seed, parts)
        ids = np.broadcast_to(np.arange(k, dtype=np.int32), (len(vectors), k))
    elif kind is AnchorKind.FIXED:
        ids = drawn_for_all(len(gallery), k, own, seed)
    else:
        ids = drawn_for_each(len(gallery), k, own, seed)
    everything = torch.from_numpy(gallery)

    def make(block: slice) -> dict[str, NDArray[Any]]:
        chosen = torch.from_numpy(ids[block].astype(np.int64))
        cosines = products(torch.from_numpy(vectors[block]), everything, chosen)
        return {"similarities": cosines.to(torch.float16).numpy()}

    found = in_blocks(make, len(vectors), BLOCK_ROWS, parts, "similarities to anchors", reporter, everyone)
    return Anchors(gallery, ids, found["similarities"])


def _codebook(gallery: Floats, k: int, seed: int, parts: Parts) -> Floats:
    """(K, D) centroids, kept among the parts: they can take longer than all the rest."""
    from edgecsd.clustering import spherical_codebook  # faiss: only where it is asked for

    place = 10**6 - 1  # after every block
    if not parts.has(place):
        parts.write(place, vectors=spherical_codebook(gallery, k, seed=seed))
    return np.asarray(parts.read(place)["vectors"], np.float32)


def contextual_similarities(queries: Tensor, own: Tensor, gallery: Tensor, ids: Tensor) -> Tensor:
    """(B, K + 1) cosines of queries (B, D) to their anchors: `own` (B, D) first, then gallery (N, D) rows ids (B, K).

    Gradients go to the queries alone. No (B, K + 1, D) copy is made, see `products`.
    """
    first = (queries * own).sum(dim=1, keepdim=True)
    return torch.cat([first, products(queries, gallery, ids)], dim=1)


def products(queries: Tensor, gallery: Tensor, ids: Tensor) -> Tensor:
    """(B, K) products of queries (B, D) with gallery (N, D) rows ids (B, K), in the way that costs least.

    All with all costs (B, N) of memory, but is one fast matrix product; by image costs B K rows, but no row is
    multiplied in vain; unique anchors are worth their gathering where the images of a batch share most of them.
    """
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


def _write(out: Path, anchors: Anchors, key: str, *, codebook: bool) -> None:
    """The file: ids as one row where all are alike, `vectors` only of a codebook, recall NaN where exact."""
    alike = anchors.ids.strides[0] == 0
    arrays: dict[str, Any] = {
        "ids": anchors.ids[:1] if alike else anchors.ids,
        "similarities": anchors.similarities,
        "recall": np.float64(np.nan if anchors.recall is None else anchors.recall),
        "settings": np.str_(key),
    }
    if codebook:
        arrays["vectors"] = anchors.vectors
    with replace_whole(out) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, **arrays)


def _read(out: Path, key: str, gallery: Floats, count: int) -> Anchors | None:
    """What `_write` left under the same settings; anything else is made again."""
    try:
        with open(out, "rb") as handle, np.load(handle, allow_pickle=False) as saved:
            if str(saved["settings"]) != key:
                return None
            vectors = saved["vectors"] if "vectors" in saved.files else gallery
            ids, recall = saved["ids"], float(saved["recall"])
            if len(ids) != count:
                ids = np.broadcast_to(ids, (count, ids.shape[1]))
            return Anchors(vectors, ids, saved["similarities"], None if np.isnan(recall) else recall)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def _digest(array: Floats) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
