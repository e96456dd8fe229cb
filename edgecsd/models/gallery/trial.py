"""A gallery model tried on three photos: what it is, and what would spoil a gallery made with it."""

from __future__ import annotations

from time import perf_counter

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from edgecsd.features.space import SAME_VECTORS
from edgecsd.models.gallery.model import Floats, GalleryModel, Pixels
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.probe import probe_photos

ALIKE = 0.999  # a cosine of two different photos above it: the model hardly looks at them


class GalleryTrial(BaseModel):
    """What was seen.

    seconds_per_photo   of a batch of three, the second time
    again, alone        lowest cosine of a photo's vector to that of the same batch once more, and of the photo alone
    most_alike          highest cosine of two of the photos
    problems            in words; empty for a model that can be used
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gallery_model: str
    made_by: str
    output: str
    dim: int
    fingerprint: str
    preprocess: Preprocess
    seconds_per_photo: float
    again: float
    alone: float
    most_alike: float
    problems: tuple[str, ...]


def try_gallery_model(model: GalleryModel) -> GalleryTrial:
    """Embed the two built-in test photos, and the first turned by 90 degrees."""
    first, second = probe_photos()
    turned = first.transpose(Image.Transpose.ROTATE_90)
    pixels = [model.preprocess.pixels(photo) for photo in (first, second, turned)]
    vectors = _embed(model, pixels)
    start = perf_counter()
    again = _lowest_cosine(vectors, _embed(model, pixels))
    seconds = (perf_counter() - start) / len(pixels)
    alone = _lowest_cosine(vectors, np.concatenate([model.embed(photo[None]) for photo in pixels]))
    most_alike = float(max((vectors[i] * vectors[i - 1]).sum() for i in range(len(vectors))))
    space = model.space
    return GalleryTrial(
        gallery_model=space.gallery_model,
        made_by=space.maker.library if space.maker else "",
        output=space.output,
        dim=space.dim,
        fingerprint=space.fingerprint,
        preprocess=model.preprocess,
        seconds_per_photo=seconds,
        again=again,
        alone=alone,
        most_alike=most_alike,
        problems=tuple(_problems(again, alone, most_alike)),
    )


def _embed(model: GalleryModel, pixels: list[Pixels]) -> Floats:
    """(n, dim): in one batch where the photos have one shape."""
    if len({photo.shape for photo in pixels}) == 1:
        return model.embed(np.stack(pixels))
    return np.concatenate([model.embed(photo[None]) for photo in pixels])


def _lowest_cosine(a: Floats, b: Floats) -> float:
    return float((a.astype(np.float64) * b).sum(axis=1).min())


def _problems(again: float, alone: float, most_alike: float) -> list[str]:
    found = []
    if again < SAME_VECTORS:
        found.append(
            f"the same photos give other vectors the second time (cosine {again:.4f}): something in it is random"
        )
    if alone < SAME_VECTORS <= again:
        found.append(
            f"a photo gives another vector alone than beside others (cosine {alone:.4f}): is it in training mode?"
        )
    if most_alike > ALIKE:
        found.append(
            f"two different photos give nearly the same vector (cosine {most_alike:.4f}): are its weights trained, and "
            f"is its pixel contract right?"
        )
    return found
