"""Anchors: for each training vector its K nearest gallery features by cosine, without the image itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgecsd.errors import BadInputError
from edgecsd.files import Parts, digest_of, replace_whole
from edgecsd.progress import SILENT, Reporter

BLOCK_VALUES = 32_000_000  # similarities held at once while mining: 128 MB
WHOLE_GALLERY_FACTOR = 16  # up to this many times K, one product against the whole gallery beats gathering rows


@dataclass(frozen=True)
class Anchors:
    """ids (T, K) int32 rows of the gallery, nearest first; similarities (T, K) float16."""

    ids: NDArray[np.int32]
    similarities: NDArray[np.float16]


def mine_anchors(
    vectors: NDArray[np.float32],
    gallery: NDArray[np.float32],
    k: int,
    *,
    own_rows: Sequence[NDArray[np.int64]],
    out: Path,
    reporter: Reporter = SILENT,
) -> Anchors:
    """Exact top-K in blocks: vectors (T, D) against gallery (N, D), both unit length.

    own_rows[t] are the gallery rows of the very image that vector t shows (and of byte-identical copies): they are left
    out, or g would stand twice among its anchors. The result is kept in `out` and an interrupted run goes on.
    """
    most = len(gallery) - max((len(rows) for rows in own_rows), default=0)
    if not 1 <= k <= most:
        raise BadInputError(f"--anchors {k}: the gallery offers 1 to {most} anchors an image")
    own = digest_of([rows.tolist() for rows in own_rows])
    settings = {"k": k, "vectors": _digest(vectors), "gallery": _digest(gallery), "own": own}
    if out.is_file():
        with np.load(out, allow_pickle=False) as saved:
            if str(saved["settings"]) == digest_of(settings):
                return Anchors(saved["ids"], saved["similarities"])
    rows = max(1, BLOCK_VALUES // len(gallery))
    parts = Parts(out, {**settings, "rows": rows})
    starts = range(0, len(vectors), rows)
    gallery_tensor = torch.from_numpy(gallery)
    with reporter.task("mining anchors", len(vectors)) as advance:
        for number, start in enumerate(starts):
            block = slice(start, start + rows)
            if not parts.has(number):
                ids, similarities = _nearest(torch.from_numpy(vectors[block]), gallery_tensor, k, own_rows[block])
                parts.write(number, ids=ids, similarities=similarities)
            advance(len(vectors[block]))
    read = [parts.read(number) for number in range(len(starts))]
    anchors = Anchors(np.concatenate([p["ids"] for p in read]), np.concatenate([p["similarities"] for p in read]))
    with replace_whole(out) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, ids=anchors.ids, similarities=anchors.similarities, settings=np.str_(digest_of(settings)))
    parts.discard()
    return anchors


def _nearest(
    vectors: Tensor, gallery: Tensor, k: int, own_rows: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.int32], NDArray[np.float16]]:
    similarities = vectors @ gallery.T
    for row, own in enumerate(own_rows):
        similarities[row, torch.from_numpy(own)] = -torch.inf
    values, ids = similarities.topk(k, dim=1)
    return ids.to(torch.int32).numpy(), values.to(torch.float16).numpy()


def _digest(array: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def contextual_similarities(queries: Tensor, own: Tensor, gallery: Tensor, ids: Tensor) -> Tensor:
    """(B, K + 1) cosines of queries (B, D) to their anchors: `own` (B, D) first, then gallery (N, D) rows ids (B, K).

    Two ways to the same numbers, chosen by size: the product with the whole gallery and a gather of scalars, or a
    product with the batch's unique anchors. Neither makes a (B, K + 1, D) copy of the gallery.
    """
    first = (queries * own).sum(dim=1, keepdim=True)
    if len(gallery) <= WHOLE_GALLERY_FACTOR * ids.shape[1]:
        others = (queries @ gallery.T).gather(1, ids)
    else:
        unique, places = torch.unique(ids, return_inverse=True)
        others = (queries @ gallery[unique].T).gather(1, places)
    return torch.cat([first, others], dim=1)
