"""Anchors: what a training image's similarity is measured against, and the contextual similarities to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgecsd.distributed import ALONE, Ranks
from edgecsd.errors import BadInputError
from edgecsd.features.mapped import Queries, Vectors, digest
from edgecsd.files.places import sharing
from edgecsd.files.whole import Parts, digest_of
from edgecsd.progress import SILENT, Reporter
from edgecsd.training.anchors.mining import drawn_for_each, drawn_order, first_of, in_blocks, mine
from edgecsd.training.anchors.similarities import products
from edgecsd.training.anchors.stored import Anchors, read_anchors, write_anchors
from edgecsd.training.choices import AnchorKind, Mining

BLOCK_ROWS = 256  # vectors whose cosines to given anchors are taken at once
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
        raise BadInputError(f"`k` {k}: the gallery offers 1 to {most} anchors an image")
    settings: dict[str, Any] = {
        "kind": kind.value,
        "k": k,
        "vectors": digest(vectors),
        "gallery": digest(gallery),
        **({"mining": mining.value} if kind is AnchorKind.TOPK else {"seed": seed}),
        **({} if kind is AnchorKind.CODEBOOK else {"own": digest_of([rows.tolist() for rows in own])}),
    }
    key = digest_of(settings)
    kept = read_anchors(out, key, gallery, len(vectors)) if everyone.count == 1 else None
    if kept is not None:
        return kept
    with sharing(out, everyone, reporter):
        kept = read_anchors(out, key, gallery, len(vectors))
        if kept is None:
            with everyone.one_ahead():
                parts = Parts(out, settings)
            work = _AnchorWork(vectors, gallery, k, own, parts, everyone, reporter)
            work.write(out, key, *work.make(kind, seed, mining))
            kept = read_anchors(out, key, gallery, len(vectors))
    assert kept is not None
    return kept


@dataclass(frozen=True)
class _AnchorWork:
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
            from edgecsd.training.anchors.list_mining import mine_in_lists  # faiss: only where it is asked for

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
