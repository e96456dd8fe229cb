"""Re-embedding: gallery photos, embedded again by the gallery model, must give the stored vectors; if not, why not?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecsd.checking.probes.result import Probe
from edgecsd.errors import ImageReadError
from edgecsd.features.exact import store_rows, unit
from edgecsd.features.store import FeatureStore
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.stored_vectors import Floats, Rows, StoredVectors
from edgecsd.models.gallery.model import GalleryModel, WhitenedGalleryModel
from edgecsd.photos.images import ImageSet
from edgecsd.photos.pixel_mistakes.diagnosis import explain_pixels, renormalising
from edgecsd.progress import SILENT, Reporter

NAME = "re-embedding"
SAME = 0.999  # cosine: float16 costs 1e-7; the mildest mistake, lanczos for bicubic, gave 0.997 (EfficientNet-Lite2)
DOUBTFUL = 0.9999  # below it mistakes are tried: one that explains the rest is named even where SAME is kept
MOST_WRONG = 0.03  # share of the photos that may miss SAME: one of 64, a photo that decodes otherwise elsewhere
CODED = 0.05  # by how much decoded codes must be nearer to their own photo than to the others, on average
EXPLAINED = 0.1  # a mistake explains a deviation if it leaves at most this share of it
LIKELY = 0.5  # and what is wrong is most like it if it leaves at most this share
PHOTOS = 8  # embedded with every mistake


@dataclass(frozen=True)
class Again:
    """Photos embedded again. positions in the ImageSet; wanted: what index or store hold of them; both unit length."""

    positions: list[int]
    vectors: Floats
    wanted: Floats


def reembedding_probe(
    index: GalleryIndex,
    store: FeatureStore | None,
    model: GalleryModel,
    photos: ImageSet,
    sample: int,
    random: np.random.Generator,
    reporter: Reporter = SILENT,
) -> tuple[Probe | None, str]:
    """The probe, or why it could not run."""
    if model.space.fingerprint != index.space.fingerprint:
        differences = "; ".join(model.space.differences(index.space))
        return None, f"{NAME}: the gallery model given is not the index's ({differences})"
    again, changed = _embed_again(index, store, model, photos, sample, random, reporter)
    if not again.positions:
        why = f"all {changed} sampled photos have changed since" if changed else "no photo of the gallery can be read"
        return None, f"{NAME}: {why}"
    if store is None and not StoredVectors(index).exact:
        return _by_codes(again, changed), ""
    cosines = (again.vectors * again.wanted).sum(1)
    right = cosines >= SAME
    passed = bool((~right).mean() <= MOST_WRONG and np.median(cosines) >= SAME)
    figure = float(np.median(cosines))
    message = (
        f"{int(right.sum())} of {len(right)} gallery photos, embedded again, give the stored vector (cosine >= {SAME}; "
        f"median {figure:.6f}, lowest {cosines.min():.6f})"
    )
    if changed:
        message += f"; {changed} more have changed since and were left out"
    if not passed or figure < DOUBTFUL:
        reason = _why(model, photos, again, cosines, failed=not passed) or (
            _misplaced(index, photos, again, cosines) if not store else ""
        )
        passed = passed and not reason
        if not passed:
            message += f": {reason or 'the vectors are of another gallery model or of other weights'}; " + (
                "extract the gallery again as the manifest says, or correct the manifest"
            )
    return Probe(NAME, passed, figure, f"median >= {SAME}, at most {MOST_WRONG:.0%} below", message), ""


def _embed_again(
    index: GalleryIndex,
    store: FeatureStore | None,
    model: GalleryModel,
    photos: ImageSet,
    sample: int,
    random: np.random.Generator,
    reporter: Reporter,
) -> tuple[Again, int]:
    """Sampled photos that are in the index, readable and unchanged; how many were changed."""
    candidates = [p for p, item in enumerate(photos.ids) if item in index.row_of]
    if store is not None:
        candidates = [p for p in candidates if photos.ids[p] in store.row_of]
    if not candidates:
        return Again([], np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)), 0
    count = min(sample, len(candidates))
    chosen = sorted(int(p) for p in random.choice(candidates, count, replace=False))
    kept, vectors, changed = [], [], 0
    with reporter.task("embedding gallery photos again", len(chosen)) as advance:
        for position in chosen:
            advance(1)
            try:
                photo = photos.read(position)
            except ImageReadError:
                continue
            if _changed(index, store, photos.ids[position], photo.digest):
                changed += 1
                continue
            kept.append(position)
            vectors.append(model.embed(model.preprocess.pixels(photo.image, photo.scale)[None])[0])
    held = _held(index, store, [photos.ids[position] for position in kept])
    return Again(kept, unit(np.array(vectors, np.float32).reshape(len(kept), index.space.dim)), held), changed


def _changed(index: GalleryIndex, store: FeatureStore | None, item: str, digest: str) -> bool:
    known = store.items.digests[store.row_of[item]] if store is not None else ""
    known = known or index.digests.get(item, "")
    return bool(known) and known != digest


def _held(index: GalleryIndex, store: FeatureStore | None, items: list[str]) -> Floats:
    """What the gallery holds of the items: the store's vectors; without a store, the index's."""
    if not items:
        return np.empty((0, index.space.dim), np.float32)
    if store is None:
        return unit(index.read(_rows(index.row_of, items)))
    return unit(store_rows(store, _rows(store.row_of, items)))


def _rows(row_of: Mapping[str, int], items: list[str]) -> Rows:
    return np.array([row_of[item] for item in items], np.int64)


def _by_codes(again: Again, changed: int) -> Probe:
    """Without the store a code is known only roughly: it must be nearer to its own photo than to the others."""
    cosines = again.vectors @ again.wanted.T
    own = cosines.diagonal()
    others = (cosines.sum(axis=1) - own) / max(1, len(own) - 1)
    margin = float((own - others).mean())
    passed = len(own) < 2 or margin >= CODED
    message = (
        f"{len(own)} gallery photos, embedded again, are nearer to their own codes than to others by {margin:.3f} on "
        f"average{f'; {changed} more have changed since' if changed else ''}"
    )
    if not passed:
        message += ": the codes are not of these photos by this gallery model; give the store, which says more"
    return Probe(NAME, bool(passed), margin, f">= {CODED}", message)


def _why(model: GalleryModel, photos: ImageSet, again: Again, cosines: NDArray[np.float32], *, failed: bool) -> str:
    """What explains the photos that deviate most, or if the probe failed is most like it; "" where nothing known is."""
    worst = np.sort(np.argsort(cosines, kind="stable")[:PHOTOS])
    subset, wanted = photos.subset([again.positions[i] for i in worst]), again.wanted[worst]
    found = explain_pixels(
        model.embed, wanted, subset, model.preprocess, renormalised=renormalising(model), sample=PHOTOS
    )
    if found is not None and 1 - found.cosine <= EXPLAINED * (1 - found.right) and found.cosine >= SAME:
        return f"the gallery was embedded with a mistake: {found.name} (then the cosine is {found.cosine:.6f})"
    if isinstance(model, WhitenedGalleryModel) and (reason := _without_whitening(model, subset, wanted)):
        return reason
    if failed and found is not None and 1 - found.cosine <= LIKELY * (1 - found.right):
        return (
            f"most like a gallery embedded with a mistake: {found.name} (then the cosine is {found.cosine:.6f}, which "
            "does not explain all of it)"
        )
    return ""


def _misplaced(index: GalleryIndex, photos: ImageSet, again: Again, cosines: NDArray[np.float32]) -> str:
    """Whether the vectors stand in the index under other ids; "" where they don't."""
    worst = np.flatnonzero(cosines < SAME)
    if not len(worst):
        return ""
    scores, rows = index.search(again.vectors[worst], 1)
    if np.mean(scores[:, 0] >= SAME) < 0.7:
        return ""
    own = _rows(index.row_of, [photos.ids[again.positions[i]] for i in worst])
    steps = np.unique(own - rows[:, 0])
    how = f"shifted by {abs(int(steps[0]))}" if len(steps) == 1 else "permuted"
    return f"the vectors stand in the index under other ids: rows and ids are {how}"


def _without_whitening(model: WhitenedGalleryModel, photos: ImageSet, wanted: Floats) -> str:
    plain = model._model  # what stands in front of the whitening
    if plain.space.dim != wanted.shape[1]:
        return ""
    shots = [photos.read(position) for position in range(len(photos))]
    vectors = [plain.embed(plain.preprocess.pixels(shot.image, shot.scale)[None])[0] for shot in shots]
    cosine = float((unit(np.array(vectors)) * wanted).sum(1).mean())
    return f"the vectors were never whitened (then the cosine is {cosine:.6f})" if cosine >= SAME else ""
