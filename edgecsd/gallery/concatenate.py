"""concatenate: feature stores of the same items by several gallery models -> one store of their joint space."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgecsd.errors import BadInputError, IncompatibleError, validation_text
from edgecsd.features.shards import Shard, floating, require_dtype, wider
from edgecsd.features.space import EmbeddingSpace, SpacePart
from edgecsd.features.store import KIND, FeatureStore, Items, write_store
from edgecsd.files.places import holding_out, require_free
from edgecsd.progress import SILENT, Reporter

NAMED = 5  # items that an error names


@holding_out
def concatenate(
    stores: Sequence[Path],
    out: Path,
    *,
    weights: Sequence[float] | None = None,
    common: bool = False,
    dtype: str | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> FeatureStore:
    """Join the vectors of the same items: the cosine of two joint vectors is the weighted mean of the parts' cosines.

    With weights w that add up to 1, a joint vector is [sqrt(w_1) v_1, ..., sqrt(w_n) v_n], of length 1 as every v is.

    weights  one a store, above 0 (default: equal); only their ratios count
    common   keep the items that every store has, instead of refusing where one lacks some
    dtype    float32, float16 or int8 (default: that of the stores, or the one of them that keeps most)

    Items are the same where id and digest agree (an unknown digest agrees with any); they keep the first store's order.
    Labels come from the first store that has them. The joint space has the first store's pixel contract, which gives
    query models their geometry. Raises IncompatibleError (exit 3) for views of different recipes.
    """
    if dtype is not None:
        require_dtype(dtype)
    require_free(out, KIND, overwrite=overwrite, read=stores)
    if len(stores) < 2:
        raise BadInputError(f"{len(stores)} store given; two or more are needed to concatenate")
    parts = [FeatureStore.open(store, verify=True) for store in stores]
    _require_different_spaces(parts)
    _require_same_views(parts)
    shares = _shares(weights, len(parts))
    rows = _matching_rows(parts, common=common, reporter=reporter)
    space = _joint_space(parts, shares)
    dtype = dtype or wider(part.dtype for part in parts)
    views = parts[0].views
    vectors = np.empty((len(rows[0]), space.dim), floating(dtype))
    view_vectors = np.empty((len(rows[0]) * views.count, space.dim), vectors.dtype)
    first = 0
    with reporter.task("concatenating", len(parts)) as advance:
        for part, own_rows, share in zip(parts, rows, shares, strict=True):
            columns = slice(first, first + part.space.dim)
            places = np.full(part.count, -1)
            places[own_rows] = np.arange(len(own_rows))
            _fill(vectors[:, columns], part.blocks(), places, 1, math.sqrt(share))
            _fill(view_vectors[:, columns], part.view_blocks(), places, views.count, math.sqrt(share))
            first += part.space.dim
            advance(1)
    provenance = {"concatenated": [{"store": str(p.path), "fingerprint": p.space.fingerprint} for p in parts]}
    return write_store(
        out,
        space,
        _items(parts, rows),
        vectors,
        views=views,
        view_vectors=view_vectors,
        dtype=dtype,
        provenance=provenance,
    )


def _require_different_spaces(parts: Sequence[FeatureStore]) -> None:
    seen: dict[str, Path] = {}
    for part in parts:
        fingerprint = part.space.fingerprint
        if fingerprint in seen:
            raise BadInputError(
                f"{seen[fingerprint]} and {part.path} live in the same embedding space, {fingerprint}; stores of "
                f"different gallery models (or sizes, scales, whitenings) are concatenated, each once"
            )
        seen[fingerprint] = part.path


def _require_same_views(parts: Sequence[FeatureStore]) -> None:
    first = parts[0]
    for part in parts[1:]:
        if part.views != first.views and (part.views.count or first.views.count):
            raise IncompatibleError(
                f"{first.path} and {part.path} hold different views ({first.views} against {part.views}); extract both "
                f"with the same `views` and `seed`"
            )


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights that add up to 1, rounded so that equal ratios give equal spaces."""
    given = list(weights) if weights is not None else [1.0] * count
    if len(given) != count:
        raise BadInputError(f"`weights`: {len(given)} numbers for {count} stores; one a store is needed")
    if not all(math.isfinite(weight) and weight > 0 for weight in given):
        raise BadInputError(f"`weights` {','.join(f'{w:g}' for w in given)}: numbers above 0 are needed")
    return [round(weight / sum(given), 9) for weight in given]


def _matching_rows(parts: Sequence[FeatureStore], *, common: bool, reporter: Reporter) -> list[NDArray[np.int64]]:
    """For each store the rows of the items that all have, in the first store's order."""
    first = parts[0]
    kept = [item for item in first.items.ids if all(item in part.row_of for part in parts)]
    known = [{_digest(part, item)} - {""} for item in kept for part in parts]
    digests = [set().union(*known[n * len(parts) : (n + 1) * len(parts)]) for n in range(len(kept))]
    changed = [item for item, found in zip(kept, digests, strict=True) if len(found) > 1]
    kept = [item for item, found in zip(kept, digests, strict=True) if len(found) <= 1]
    everything = dict.fromkeys(item for part in parts for item in part.items.ids)
    if len(kept) < len(everything):
        _report_missing(parts, list(everything), changed, common=common, kept=len(kept), reporter=reporter)
    return [np.array([part.row_of[item] for item in kept], np.int64) for part in parts]


def _digest(part: FeatureStore, item: str) -> str:
    return part.items.digests[part.row_of[item]]


def _report_missing(
    parts: Sequence[FeatureStore],
    everything: list[str],
    changed: list[str],
    *,
    common: bool,
    kept: int,
    reporter: Reporter,
) -> None:
    """Raise BadInputError that names what is not in every store; with `common` say how much is left out."""
    problems = []
    for part in parts:
        absent = [item for item in everything if item not in part.row_of]
        if absent:
            problems.append(f"{part.path} lacks {_named(absent)}")
    if changed:
        problems.append(f"of different files under the same id: {_named(changed)}")
    if not common:
        raise BadInputError("; ".join(problems) + "; `common` keeps the items that every store has")
    if not kept:
        raise BadInputError("the stores have no item in common: " + "; ".join(problems))
    reporter.message(f"{kept} of {len(everything)} items are in every store: " + "; ".join(problems))


def _named(items: Sequence[str]) -> str:
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return f"{len(items)} item{'s' if len(items) > 1 else ''} ({', '.join(items[:NAMED])}{more})"


def _joint_space(parts: Sequence[FeatureStore], shares: Sequence[float]) -> EmbeddingSpace:
    try:
        return EmbeddingSpace(
            gallery_model=" + ".join(part.space.gallery_model for part in parts),
            preprocess=parts[0].space.preprocess,
            dim=sum(part.space.dim for part in parts),
            parts=tuple(
                SpacePart(fingerprint=part.space.fingerprint, weight=share)
                for part, share in zip(parts, shares, strict=True)
            ),
        )
    except ValidationError as error:  # a weight that is nothing beside the others
        raise BadInputError(f"`weights`: {validation_text(error)}") from None


def _fill(
    columns: NDArray[Any], blocks: Iterator[tuple[int, Shard]], places: NDArray[Any], each: int, scale: float
) -> None:
    """Put the blocks' rows, each of length `scale`, into the rows of `columns` that `places` gives their items.

    each: rows an item (its views); places: -1 for an item that is left out.
    """
    for start, block in blocks:
        rows = start + np.arange(len(block))
        target = places[rows // each]
        used = target >= 0
        vectors = np.asarray(block[np.flatnonzero(used)], np.float32)
        vectors *= scale / np.linalg.norm(vectors, axis=1, keepdims=True)
        columns[(target * each + rows % each)[used]] = vectors


def _items(parts: Sequence[FeatureStore], rows: Sequence[NDArray[np.int64]]) -> Items:
    ids = tuple(parts[0].items.ids[row] for row in rows[0])
    digests = tuple(next((d for d in (_digest(part, item) for part in parts) if d), "") for item in ids)
    labelled = next((part for part in parts if part.items.labels is not None), None)
    if labelled is None or labelled.items.labels is None:
        return Items(ids, digests)
    return Items(ids, digests, tuple(labelled.items.labels[labelled.row_of[item]] for item in ids))
