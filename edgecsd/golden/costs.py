"""What each known pixel mistake costs: the file's results in the index with it, against its own right ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from edgecsd.errors import BadInputError, ImageReadError
from edgecsd.features.exact import without_own
from edgecsd.golden.choosing import STORED
from edgecsd.golden.signatures import INPUT_MISTAKES, mistaken_tensors
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.metrics.bootstrap import Interval, bootstrap_interval
from edgecsd.metrics.retrieval import share_kept
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.images import ImageSet
from edgecsd.photos.pixel_mistakes.mistakes import Shot, right_pixels
from edgecsd.progress import Reporter

COST_IMAGES = 100
POINTS = 100  # a share in points
SIDEWAYS = 6  # the orientation of a phone held upright
CHUNK = 8  # photos whose mistaken tensors are held at once
ALL_ALIKE = {name for name, _ in INPUT_MISTAKES}  # these leave nothing to search for, and cost as much as noise
Rows = NDArray[np.int64]
Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class MistakeCost(BaseModel):
    """Points lost by one mistake, of the 100 that right pixels have by definition, and their 95 % intervals.

    changed   share of the photos whose tensor the mistake changes
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    changed: float
    overlap_lost: float
    overlap_interval: tuple[float, float] | None  # None: of one photo there is none
    recall_lost: float
    recall_interval: tuple[float, float] | None


class Costs(BaseModel):
    """mistakes: the dearest first. overlap@k and recall@1 are against what right pixels find; every photo is taken to
    be stored sideways (EXIF orientation 6) where the orientation is ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: int
    k: int
    mistakes: tuple[MistakeCost, ...]


def measure_costs(
    photos: ImageSet, contract: Preprocess, embed: Embed, index: GalleryIndex, k: int, limit: int, reporter: Reporter
) -> Costs:
    """Over up to `limit` of the photos, spread evenly; a photo of the gallery itself is left out of what it finds."""
    positions = np.unique(np.linspace(0, len(photos) - 1, min(limit, len(photos))).round().astype(int)).tolist()
    right: list[Rows] = []
    wrong: dict[str, dict[int, Rows]] = {}
    with reporter.task("what mistakes cost", len(positions)) as advance:
        for first in range(0, len(positions), CHUNK):
            chunk = list(_shots(photos, positions[first : first + CHUNK]))
            if chunk:
                _search_chunk(chunk, len(right), contract, embed, index, k, right, wrong)
            advance(len(positions[first : first + CHUNK]))
    if not right:
        raise BadInputError(f"{photos.root}: no photo in it can be read")
    found = [_cost(name, np.array(right), rows) for name, rows in wrong.items()]
    return Costs(photos=len(right), k=k, mistakes=tuple(sorted(found, key=lambda c: (-c.overlap_lost, c.name))))


def _shots(photos: ImageSet, positions: list[int]) -> Iterator[tuple[str, Shot]]:
    """Ids and whole photos of those that can be read, each as a camera stores it that is held upright."""
    for position in positions:
        try:
            upright = photos.read(position).image
        except ImageReadError:
            continue
        yield photos.ids[position], Shot(upright, upright.transpose(STORED[SIDEWAYS]))


def _search_chunk(
    chunk: list[tuple[str, Shot]],
    start: int,
    contract: Preprocess,
    embed: Embed,
    index: GalleryIndex,
    k: int,
    right: list[Rows],
    wrong: dict[str, dict[int, Rows]],
) -> None:
    """Adds the (k,) rows found for each photo with right pixels, and with each mistake that changes its tensor."""
    own = [index.row_of.get(item, -1) for item, _ in chunk]
    shots = [shot for _, shot in chunk]
    tensors = np.stack([right_pixels(shot, contract) for shot in shots])
    right.extend(_found(tensors, own, embed, index, k))
    for mistake in mistaken_tensors(shots, contract):
        if mistake.name in ALL_ALIKE:
            continue
        changed = [n for n in range(len(shots)) if not np.array_equal(mistake.tensors[n], tensors[n])]
        rows = _found(mistake.tensors[changed], [own[n] for n in changed], embed, index, k)
        wrong.setdefault(mistake.name, {}).update(zip((start + n for n in changed), rows, strict=True))


def _found(tensors: NDArray[np.uint8], own: list[int], embed: Embed, index: GalleryIndex, k: int) -> list[Rows]:
    """Of each photo the (k,) rows found without its own; -1 at the end where the index finds fewer."""
    depth = min(k, len(index.ids) - 1)
    return list(without_own(*index.search(embed(tensors), depth + 1), np.array(own), depth)[1])


def _cost(name: str, right: Rows, wrong: dict[int, Rows]) -> MistakeCost:
    """right (n, k); of photos that the mistake does not change nothing is lost."""
    mistaken = right.copy()
    for photo, rows in wrong.items():
        mistaken[photo] = rows
    overlap = bootstrap_interval(POINTS * (1 - share_kept(mistaken, right, right.shape[1])))
    recall = bootstrap_interval(POINTS * (mistaken[:, 0] != right[:, 0]).astype(np.float64))
    return MistakeCost(
        name=name,
        changed=len(wrong) / len(right),
        overlap_lost=overlap.mean,
        overlap_interval=_ends(overlap),
        recall_lost=recall.mean,
        recall_interval=_ends(recall),
    )


def _ends(interval: Interval) -> tuple[float, float] | None:
    return None if math.isnan(interval.low) else (interval.low, interval.high)
