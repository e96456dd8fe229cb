"""matrix: which app version may talk to which index, what an update costs single queries, and the order of a roll-out.

Pairs are refused by the handshake alone; the others are measured through the actual index, on the same photos. Negative
flips (queries right before, wrong now) are Yan et al.'s, "Positive-Congruent Training", CVPR 2021. The criterion of
backward-compatible training is Shen et al.'s, "Towards Backward-Compatible Representation Learning", CVPR 2020: new
queries in the old gallery must do better than old queries in the old gallery.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecsd.checking.matrix.measure import DEPTH, Judged, measure, update_between
from edgecsd.checking.matrix.result import MatrixResult, Pairing, Update
from edgecsd.checking.matrix.rollout import rollout
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.features.space import require_same_space
from edgecsd.features.store import FeatureStore
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.opening import open_index
from edgecsd.metrics.retrieval import require_depth
from edgecsd.models.embedding import embed_images
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.progress import SILENT, Reporter
from edgecsd.targets.artifact import ArtifactEmbedder

if TYPE_CHECKING:
    from edgecsd.checking.pairing import CheckQueries


Floats = NDArray[np.float32]


def matrix(
    artifacts: Sequence[Path],
    indexes: Sequence[Path],
    images: ImageSet,
    *,
    references: Sequence[Path] = (),
    labels: Path | None = None,
    weights: Path | None = None,
    k: int = 10,
    limit: int | None = None,
    threads: int = 1,
    reporter: Reporter = SILENT,
) -> MatrixResult:
    """Every artifact against every index, both oldest first, on the same query photos.

    references  stores with the gallery models' features of the photos, at most one a space; without one of an index's
                space the gallery model that the index names is run (`weights` where it needs a file)
    labels      a feature store with labels or a CSV list (path, label) of the gallery's items and, where `images` has
                no labels, of the photos; without it, right is what the gallery model itself finds first
    limit       use this many photos, spread evenly

    Raises BadInputError for fewer than one artifact or index, for one given twice, and for labels that cover no query.
    """
    _require_distinct(artifacts, "`artifact`")
    _require_distinct(indexes, "`index`")
    opened = [open_index(path) for path in indexes]
    embedders = [ArtifactEmbedder(path, threads=threads) for path in artifacts]
    small = [path for path, index in zip(indexes, opened, strict=True) if len(index.ids) < 2]
    if small:
        raise BadInputError(f"{small[0]}: a gallery of fewer than two has nothing to find beside the photo itself")
    require_depth(k, min(len(each.ids) for each in opened))
    refused = {(a, i): _refusal(embedders[a], opened[i]) for a in range(len(artifacts)) for i in range(len(indexes))}
    spoken = [i for i in range(len(indexes)) if any(not refused[a, i] for a in range(len(artifacts)))]
    photos = images.spread(limit)
    found = len(photos)
    photos, truths, digests = _truths(photos, [opened[i] for i in spoken], references, weights, reporter)
    known = None if labels is None else read_labels(labels)
    judged = {i: _judge(opened[i], photos, truths[opened[i].space.fingerprint], known) for i in spoken}
    names, places = _names(artifacts), _names(indexes)
    pairings: list[Pairing] = []
    for a, embedder in enumerate(embedders):
        vectors = _embed(photos, embedder, digests, reporter) if any(not refused[a, i] for i in spoken) else None
        for i in range(len(indexes)):
            if vectors is None or refused[a, i]:
                pairings.append(Pairing(names[a], places[i], False, refused[a, i]))
            else:
                pairings.append(measure(places[i], names[a], vectors, judged[i], k))
    updates = tuple(_updates(pairings, places, photos.ids))
    return MatrixResult(
        names,
        places,
        tuple(pairings),
        updates,
        rollout(names, places, pairings, updates),
        len(photos),
        found - len(photos),
        k,
        _described(known is not None),
    )


def _described(labelled: bool) -> str:
    if labelled:
        return f"labels: a gallery item of the query's label is right; mAP over the first {DEPTH} results"
    return "no labels: right is what the gallery model itself finds first"


def _require_distinct(paths: Sequence[Path], option: str) -> None:
    if not paths:
        raise BadInputError(f"{option}: one or more are needed, the oldest first")
    if len({path.resolve() for path in paths}) != len(paths):
        raise BadInputError(f"{option}: the same one is given twice")


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """File names, or whole paths where two have the same name."""
    distinct = len({path.name for path in paths}) == len(paths)
    return tuple(path.name if distinct else str(path) for path in paths)


def _refusal(artifact: ArtifactEmbedder, index: GalleryIndex) -> str:
    """Why the handshake refuses the pair; "" where it does not."""
    try:
        require_same_space(artifact.metadata.space, index.space, artifact.path.name, index.path.name)
    except IncompatibleError as error:
        return str(error)
    return ""


def _truths(
    photos: ImageSet,
    indexes: Sequence[GalleryIndex],
    references: Sequence[Path],
    weights: Path | None,
    reporter: Reporter,
) -> tuple[ImageSet, dict[str, Floats], dict[str, str]]:
    """The photos that every gallery model has features of; by fingerprint (n, D) features; by id what they are of."""
    from edgecsd.checking.pairing import gallery_features

    stores = {FeatureStore.open(path).space.fingerprint: path for path in references}
    answers: dict[str, CheckQueries] = {}
    for index in indexes:
        fingerprint = index.space.fingerprint
        if fingerprint not in answers:
            answers[fingerprint] = gallery_features(photos, index, stores.get(fingerprint), weights, reporter)
    places = [{item: p for p, item in enumerate(queries.photos.ids)} for queries in answers.values()]
    shared = [p for p, item in enumerate(photos.ids) if all(item in place for place in places)]
    if not shared:
        raise BadInputError(f"{photos.root}: no photo has features of every gallery model; see `reference`")
    chosen = photos.subset(shared)
    of_space = zip(answers.items(), places, strict=True)
    truths = {name: queries.truth[[place[item] for item in chosen.ids]] for (name, queries), place in of_space}
    return chosen, truths, {item: digest for queries in answers.values() for item, digest in queries.known.items()}


def _embed(photos: ImageSet, artifact: ArtifactEmbedder, digests: dict[str, str], reporter: Reporter) -> Floats:
    """(n, D) embeddings of the photos, which must be those that the gallery models' features are of."""
    embedded = embed_images(photos, artifact, strict=True, name=artifact.path.name, reporter=reporter)
    read = zip(photos.ids, embedded.digests, strict=True)
    changed = [item for item, digest in read if digests.get(item) and digests[item] != digest]
    if changed:
        raise BadInputError(
            f"{photos.root}: {changed[0]} is not the photo that its reference features are of ({len(changed)} such "
            "photos); give the photos they were made of, or extract again"
        )
    return embedded.vectors[:, 0]


def _judge(index: GalleryIndex, photos: ImageSet, truth: Floats, known: dict[str, str] | None) -> Judged:
    if known is None:
        return Judged(index, photos.ids, truth, None, None)
    labels = photos.labels or tuple(known.get(item, "") for item in photos.ids)
    present = {known.get(item, "") for item in index.ids} - {""}
    if not present & set(labels):
        raise BadInputError(
            f"`labels`: no query photo has a label that an item of {index.path} has; give a list with the columns path "
            "and label that names the gallery's items and the photos by their ids"
        )
    return Judged(index, photos.ids, truth, known, labels)


def read_labels(source: Path) -> dict[str, str]:
    """Item id -> label, from a feature store with labels or a CSV list with the columns path and label."""
    if (source / "manifest.json").is_file():
        items = FeatureStore.open(source).items
        ids, labels = items.ids, items.labels
    else:
        listed = find_images(source)
        ids, labels = listed.ids, listed.labels
    if labels is None:
        raise BadInputError(f"`labels` {source}: has no labels; a CSV list needs a column 'label'")
    return dict(zip(ids, labels, strict=True))


def _updates(pairings: Sequence[Pairing], indexes: Sequence[str], ids: Sequence[str]) -> list[Update]:
    """In each index every step from an older artifact to a newer one, among those that may be searched in it."""
    found = []
    for index in indexes:
        able = [pairing for pairing in pairings if pairing.index == index and pairing.compatible]
        found += [update_between(old, new, ids) for old, new in itertools.combinations(able, 2)]
    return found
