"""Which pixel mistake explains vectors: photos are embedded with every one, and the vectors compared."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecsd.errors import ImageReadError
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.images import ImageSet
from edgecsd.photos.pixel_mistakes.mistakes import MISTAKES, Pixels, Shot, right_pixels

Floats = NDArray[np.float32]
Embed = Callable[[Pixels], Floats]

REPRODUCED = 0.999  # cosine of vectors that are the same but for a decoder's or float16's rounding
CLEARLY_BETTER = 0.25  # a mistake explains the vectors only if it leaves at most this share of the distance
PHOTOS = 8  # enough to separate mistakes: chance agreement on all of them is out of the question


@dataclass(frozen=True)
class Explanation:
    """How near vectors come to the expected ones: mean cosine with one mistake, and with the right pixels."""

    name: str
    cosine: float
    right: float


def diagnose_pixels(
    embed: Embed,
    expected: NDArray[Any],
    photos: ImageSet,
    contract: Preprocess,
    *,
    renormalised: Callable[[Preprocess], Embed] | None = None,
    reproduced: float = REPRODUCED,
    sample: int = PHOTOS,
) -> str | None:
    """The name of the mistake with which `embed` gives the expected vectors; None where there is none.

    embed         (B, S, S, 3) uint8 -> (B, D), the model that the vectors ought to be of
    expected      (len(photos), D), what was found: the vectors of a store, or of a defective file
    renormalised  an `embed` that normalises by another contract's mean and std (`renormalising`); without it mistakes
                  of normalisation are not tried
    reproduced    the mean cosine at which vectors count as the same; lower it for 8-bit files
    sample        so many of the photos, spread evenly, are used
    """
    found = explain_pixels(embed, expected, photos, contract, renormalised=renormalised, sample=sample)
    if found is None or found.cosine < reproduced:
        return None
    return found.name if 1 - found.cosine <= CLEARLY_BETTER * (1 - found.right) else None


def explain_pixels(
    embed: Embed,
    expected: NDArray[Any],
    photos: ImageSet,
    contract: Preprocess,
    *,
    renormalised: Callable[[Preprocess], Embed] | None = None,
    sample: int = PHOTOS,
) -> Explanation | None:
    """The mistake that comes nearest, near or not; None where no photo can be read. Arguments as in diagnose_pixels."""
    chosen, shots = _shots(photos, sample)
    if not shots:
        return None
    wanted = np.asarray(expected, np.float32)[chosen]
    correct = [right_pixels(shot, contract) for shot in shots]
    right = _cosine(embed, correct, wanted)
    best: Explanation | None = None
    for mistake in MISTAKES:
        model = embed
        if mistake.seen_as is None:
            made = [mistake.pixels(shot, contract) for shot in shots]
            if all(np.array_equal(a, b) for a, b in zip(made, correct, strict=True)):
                continue
        elif renormalised is not None and (seen := mistake.seen_as(contract)) != contract:
            made, model = correct, renormalised(seen)
        else:
            continue
        cosine = _cosine(model, made, wanted)
        if best is None or cosine > best.cosine:
            best = Explanation(mistake.name, cosine, right)
    return best


def renormalising(model: Any) -> Callable[[Preprocess], Embed] | None:
    """How to make `model` (a gallery model or a query model) normalise by another contract; None where it cannot.

    The copy shares the model's weights. A model whose file normalises by itself gives the same vectors as before.
    """

    def copied(contract: Preprocess) -> Embed:
        twin = copy.copy(model)
        if hasattr(model, "config"):
            twin.config = model.config.model_copy(update={"preprocess": contract})
        else:
            twin.preprocess = contract
        embed: Embed = twin.embed
        return embed

    try:
        copied(model.config.preprocess if hasattr(model, "config") else model.preprocess)
    except (AttributeError, TypeError):  # a frozen model
        return None
    return copied


def _shots(photos: ImageSet, sample: int) -> tuple[list[int], list[Shot]]:
    """Positions and photos of those that can be read."""
    chosen, shots = [], []
    for position in np.unique(np.linspace(0, len(photos) - 1, min(sample, len(photos))).round().astype(int)).tolist():
        try:
            photo = photos.read(position)
        except ImageReadError:
            continue
        box = None if photos.boxes is None else photos.boxes[position]
        stored = photo.image if box is not None else _as_it_lies(photos, position)
        chosen.append(position)
        shots.append(Shot(photo.image, stored, photo.scale))
    return chosen, shots


def _as_it_lies(photos: ImageSet, position: int) -> Image.Image:
    """The photo without its EXIF orientation; boxes are drawn on the upright photo, so crops have none."""
    with Image.open(photos.path(position)) as image:
        return image.convert("RGB")


def _cosine(embed: Embed, pixels: Sequence[Pixels], expected: Floats) -> float:
    """The mean cosine of the embeddings to the expected vectors; -1 where some cannot be made or are not finite."""
    try:
        vectors = np.concatenate([embed(one[None]) for one in pixels]).astype(np.float64)
    except Exception:  # a model of the user's own, given what it was not made for, may raise anything
        return -1.0
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected.astype(np.float64), axis=1)
    cosine = float(((vectors * expected).sum(1) / np.maximum(norms, 1e-12)).mean())
    return cosine if np.isfinite(cosine) else -1.0
