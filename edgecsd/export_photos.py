"""The photos of an export: those that give ranges, and those that the written file is compared with torch on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecsd.baking import embed_both, photos_to_compare
from edgecsd.errors import BadInputError
from edgecsd.images import ImageSet, find_images
from edgecsd.preprocess import Preprocess
from edgecsd.progress import Reporter
from edgecsd.quantization import calibration_pixels, synthetic_pixels
from edgecsd.targets.artifact import ArtifactMetadata, Runner
from edgecsd.whole_photo import WholePhoto

if TYPE_CHECKING:
    from edgecsd.query_models import QueryModel

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ExportPhotos:
    """(n, S, S, 3) uint8 pixels, and their digest; None where no images were given and the pixels are synthetic."""

    pixels: NDArray[np.uint8]
    digest: str | None


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


def read_photos(images: ImageSet | None, preprocess: Preprocess, count: int, seed: int) -> ExportPhotos:
    """`count` of the images, chosen by `seed`, or made-up ones."""
    if images is None:
        return ExportPhotos(synthetic_pixels(preprocess.size, seed=seed), None)
    return ExportPhotos(*calibration_pixels(images, preprocess, count, seed))


def embed_by_both(
    runner: Runner, metadata: ArtifactMetadata, model: QueryModel, images: ImageSet | None, photos: ExportPhotos,
    seed: int, reporter: Reporter,
) -> tuple[Floats, Floats]:  # fmt: skip
    """(n, dim) embeddings of the written artifact, and of the query model."""
    said, contract = "comparing the written file with the query model on", metadata.input
    if isinstance(contract, WholePhoto):
        whole = photos_to_compare(images, contract, seed)
        reporter.message(f"{said} {len(whole)} whole images")
        return embed_both(runner, model.embed, whole, contract)
    reporter.message(f"{said} {len(photos.pixels)} images")
    one_by_one = [model.embed(photos.pixels[i : i + 1]) for i in range(len(photos.pixels))]
    return runner.embed(photos.pixels), np.concatenate(one_by_one)
