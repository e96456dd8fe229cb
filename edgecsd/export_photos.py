"""The photos of an export: those that give ranges, and those that the written file is compared with torch on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecsd.baking import embed_both, photos_to_compare
from edgecsd.errors import BadInputError
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.photos.whole_photo import WholePhoto
from edgecsd.progress import Reporter
from edgecsd.quantisation.calibration import calibration_split, first_pixels, synthetic_pixels
from edgecsd.targets.artifact import Runner
from edgecsd.targets.metadata import ArtifactMetadata

if TYPE_CHECKING:
    from edgecsd.models.query import QueryModel

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ExportPhotos:
    """pixels of the photos that an export goes by, and of those that its file is compared with the query model on.

    pixels     (n, S, S, 3) uint8, of which w8a8 takes its ranges; made up where no images were given
    digest     of them; None of made-up ones
    compared   (m, S, S, 3) uint8
    whole      the images to compare a file on whose resize is inside; None: made-up ones
    words      what `compared` and `whole` are
    """

    pixels: NDArray[np.uint8]
    digest: str | None
    compared: NDArray[np.uint8]
    whole: ImageSet | None
    words: str


def find_photos(calibration: Path | ImageSet | None, split: str | None) -> ImageSet | None:
    """The images that were given; BadInputError for a split of what has none."""
    if calibration is None:
        if split is not None:
            raise BadInputError(f"--split {split} needs --calibration with a CSV list")
        return None
    if isinstance(calibration, ImageSet):
        if split is not None:
            raise BadInputError(f"split {split!r} goes with a CSV list; these images are chosen already")
        return calibration
    return find_images(calibration, split=split)


def read_photos(
    images: ImageSet | None, preprocess: Preprocess, count: int, seed: int, *, calibrate: bool
) -> ExportPhotos:
    """`count` of the images, chosen by `seed`, or made-up ones.

    calibrate: they give ranges, so that up to `count` others are compared on; where there are none, they themselves
    """
    if images is None:
        pixels = synthetic_pixels(preprocess.size, seed=seed)
        return ExportPhotos(pixels, None, pixels, None, "made-up images")
    pixels, digest, others = calibration_split(images, preprocess, count, seed)
    if not calibrate:
        return ExportPhotos(pixels, digest, pixels, images, "photos")
    compared = first_pixels(others, preprocess, count, but=pixels)
    if not len(compared):
        return ExportPhotos(pixels, digest, pixels, images, "photos, the calibration photos")
    return ExportPhotos(pixels, digest, compared, others, "photos that did not calibrate it")


def embed_by_both(
    runner: Runner, metadata: ArtifactMetadata, model: QueryModel, photos: ExportPhotos, seed: int, reporter: Reporter
) -> tuple[Floats, Floats]:
    """(n, dim) embeddings of the written artifact, and of the query model."""
    said, contract = "comparing the written file with the query model on", metadata.input
    if isinstance(contract, WholePhoto):
        whole = photos_to_compare(photos.whole, contract, seed)
        reporter.message(f"{said} {len(whole)} whole {photos.words}")
        return embed_both(runner, model.embed, whole, contract)
    reporter.message(f"{said} {len(photos.compared)} {photos.words}")
    one_by_one = [model.embed(photos.compared[i : i + 1]) for i in range(len(photos.compared))]
    return runner.embed(photos.compared), np.concatenate(one_by_one)
