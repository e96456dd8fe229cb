"""Probes of an index against the feature store it was built from: the same items, each with its own vector?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecsd.checking.probes.result import Probe
from edgecsd.errors import BadInputError
from edgecsd.features.exact import exact_neighbours, store_blocks, store_rows, unit
from edgecsd.features.space import advice
from edgecsd.features.store import FeatureStore
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.kinds import IndexType
from edgecsd.index.stored_vectors import Floats, Rows, StoredVectors

# Cosine of a vector to its copy in a store of another type: float16 above 1 - 1e-6, int8 0.99976 and more
# (EfficientNet-Lite2's vectors); the mildest mistake in the pixels gave 0.997, another photo's is far below.
SAME = 0.999
SHIFTS = (1, -1, 2, -2)
MOST_SEARCHED = 2_000_000  # store rows that are searched for where a vector really belongs
DEPTH = 10  # results in which an approximate index must return the item itself
SCORE_TOLERANCE = 0.01  # of 1, the cosine of a vector with itself
TIE = 1e-5  # scores this near are equal
NEAR = 0.6  # mean cosine of two versions of one model's vectors of one photo; two models' are near 0
# Least share of the sample that must be its own: codes of one byte or two confuse some, a shift or permutation all.
LEAST_OWN = {IndexType.FLAT: 0.99, IndexType.IVF: 0.99, IndexType.HNSW: 0.99, IndexType.IVFPQ: 0.7}
# Least share found by the actual search; lists and graphs may miss a few, and "recall" says how many.
LEAST_FOUND = {IndexType.FLAT: 0.99, IndexType.IVF: 0.95, IndexType.HNSW: 0.9, IndexType.IVFPQ: 0.6}


@dataclass(frozen=True)
class Sampled:
    """Rows of the index, the vectors read back from them, and the store's vectors of the ids they bear, unit length."""

    rows: Rows
    held: Floats
    wanted: Floats


def identity_probes(
    index: GalleryIndex, store: FeatureStore, sample: int, random: np.random.Generator
) -> tuple[list[Probe], list[str]]:
    """Space, items, row order and self-retrieval; each names what it finds wrong."""
    if store.space.fingerprint != index.space.fingerprint:
        return [_space(index, store)], ["row order, self-retrieval: store and index live in different spaces"]
    probes = [_items(index, store)]
    known = np.array([row for row, item in enumerate(index.ids) if item in store.row_of], np.int64)
    known = known[known < index.held]
    if not len(known):
        return probes, ["row order, self-retrieval: no item stands in both"]
    rows = np.sort(random.choice(known, min(sample, len(known)), replace=False))
    held = unit(index.read(rows))
    sampled = Sampled(rows, held, _wanted(index, store, rows))
    return [*probes, _row_order(index, store, sampled), _self_retrieval(index, sampled)], []


def _wanted(index: GalleryIndex, store: FeatureStore, rows: Rows) -> Floats:
    return unit(store_rows(store, np.array([store.row_of[index.ids[row]] for row in rows.tolist()], np.int64)))


def _space(index: GalleryIndex, store: FeatureStore) -> Probe:
    parts = store.space.differences(index.space)
    message = f"{store.path} and the index live in different spaces: {'; '.join(parts)}. "
    return Probe("space", False, float(len(parts)), "0 differences", message + advice(store.space, index.space))


def _items(index: GalleryIndex, store: FeatureStore) -> Probe:
    missing = [item for item in store.items.ids if item not in index.row_of]
    extra = [item for item in index.ids if item not in store.row_of]
    figure = len(missing) + len(extra)
    message = f"{len(index.ids)} items in the index, {store.count} in the store"
    if missing:
        tail = missing == list(store.items.ids[-len(missing) :])
        kind = "the index is truncated: the store's last" if tail else "the index lacks"
        message += f"; {kind} {len(missing)} items are missing, the first: {missing[0]}"
    if extra:
        message += f"; {len(extra)} items of the index are not in the store, the first: {extra[0]}"
    if figure:
        message += "; index and store are of different versions: build the index again from this store"
    return Probe("items", not figure, float(figure), "0 missing or alien", message)


def _own(index: GalleryIndex, held: Floats, wanted: Floats) -> NDArray[np.bool_]:
    """(n,) whether each held vector is the wanted one; of decoded codes, whether none of the others is nearer."""
    cosines = (held * wanted).sum(1)
    if StoredVectors(index).exact:
        return np.asarray(cosines >= SAME, np.bool_)
    return np.asarray(cosines >= (held @ wanted.T).max(axis=1) - 1e-4, np.bool_)


def _row_order(index: GalleryIndex, store: FeatureStore, sampled: Sampled) -> Probe:
    own = _own(index, sampled.held, sampled.wanted)
    share, least = float(own.mean()), LEAST_OWN[index.type]
    passed = share >= least
    message = f"{int(own.sum())} of {len(own)} sampled rows hold the vector that the store has of their item"
    if not passed:
        wrong = np.flatnonzero(~own)
        broken = Sampled(sampled.rows[wrong], sampled.held[wrong], sampled.wanted[wrong])
        message += f"; wrong from row {broken.rows[0]} ({index.ids[broken.rows[0]]}): {_diagnose(index, store, broken)}"
    return Probe("row order", passed, share, f">= {least}", message)


def _diagnose(index: GalleryIndex, store: FeatureStore, broken: Sampled) -> str:
    """Why sampled rows hold other vectors than they should."""
    again = "build the index again from this store, ids and vectors together"
    for shift in SHIFTS:
        moved = broken.rows + shift
        usable = np.array([0 <= r < len(index.ids) and index.ids[r] in store.row_of for r in moved.tolist()])
        if usable.any() and _mostly(_own(index, broken.held[usable], _wanted(index, store, moved[usable]))):
            return f"ids are shifted by {abs(shift)}: row r holds the vector of the item of row r{shift:+d}; {again}"
    if (text := _whitening(index, store, broken)) is not None:
        return text
    if _elsewhere(index, store, broken):
        return f"the vectors are the store's, but under other ids: rows and ids were permuted; {again}"
    cosine = float((broken.held * broken.wanted).sum(1).mean())
    if cosine >= NEAR:
        return (
            f"near the store's vectors (mean cosine {cosine:.3f}) but not the same: another version of the store, made "
            f"with other pixels or weights; {again}"
        )
    return (
        f"not the store's vectors at all (mean cosine {cosine:.3f}): of another gallery model, whitened otherwise, or "
        f"of other images; {again}"
    )


def _mostly(own: NDArray[np.bool_]) -> bool:
    return bool(own.mean() >= 0.7)


def _whitening(index: GalleryIndex, store: FeatureStore, broken: Sampled) -> str | None:
    """The diagnosis where the store's whitening explains the vectors, which it can if it keeps the dimension."""
    transform = store.whitening
    if transform is None or transform.projection.shape[0] != transform.projection.shape[1]:
        return None
    try:
        if _mostly(_own(index, transform.apply(broken.held, "index"), broken.wanted)):
            return "the index holds vectors that were never whitened; build it again from the whitened store"
        if _mostly(_own(index, broken.held, transform.apply(broken.wanted, "store"))):
            return "the index holds vectors that were whitened twice; build it again from the whitened store"
    except BadInputError:  # a vector at the transform's mean has no direction behind it
        return None
    return None


def _elsewhere(index: GalleryIndex, store: FeatureStore, broken: Sampled) -> bool:
    """Whether the vectors stand somewhere in the store, under other ids."""
    if store.count > MOST_SEARCHED:
        return False
    cosines, places = exact_neighbours(broken.held, ((r, unit(v)) for r, v in store_blocks(store)), 1)
    if StoredVectors(index).exact:
        return _mostly(np.asarray(cosines[:, 0] >= SAME, np.bool_))
    # Codes are near what they encode: nearer to some vector of the store than the vectors are to their neighbours.
    others = np.array([store.row_of[index.ids[row]] for row in broken.rows.tolist()])
    typical = float((broken.held * broken.wanted).sum(1).mean())
    return bool(((places[:, 0] != others) & (cosines[:, 0] > (1 + typical) / 2)).mean() >= 0.7)


def _self_retrieval(index: GalleryIndex, sampled: Sampled) -> Probe:
    """The store's vectors, searched: the item itself first (or one with the same score), its score 1."""
    scores, rows = index.search(sampled.wanted, DEPTH)
    exact, least = StoredVectors(index).exact, LEAST_FOUND[index.type]
    here = rows == sampled.rows[:, None]
    own_scores = np.where(here, scores, -np.inf).max(axis=1)
    found = here.any(axis=1)
    if exact:
        found &= own_scores >= scores[:, 0] - TIE
        found |= scores[:, -1] >= scores[:, 0] - TIE  # so many equal photos that the item's own row need not be shown
        found &= np.abs(scores[:, 0] - 1) <= SCORE_TOLERANCE
    share = float(found.mean())
    where = f"first, with score 1 within {SCORE_TOLERANCE}" if exact else f"among the first {DEPTH}"
    message = f"{int(found.sum())} of {len(found)} items, searched with the store's vector of them, are found {where}"
    if share < least:
        missed = int(np.flatnonzero(~found)[0])
        other = int(rows[missed, 0])
        instead = index.ids[other] if 0 <= other < len(index.ids) else "nothing"
        message += (
            f"; for {index.ids[sampled.rows[missed]]} the index gives {instead} with score {scores[missed, 0]:.3f}: "
            "metric, normalisation, row order or search depth is wrong (see those probes)"
        )
    return Probe("self-retrieval", share >= least, share, f">= {least}", message)
