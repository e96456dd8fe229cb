"""The photos of an export: those that give ranges, and those that the written file is compared with torch on.

With `bake` resize the file takes whole photos; which targets can, and which photos it then takes, stands here too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecsd.errors import BadInputError, ImageReadError
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.images import ImageSet
from edgecsd.photos.whole_photo import ANY_SIZE, PhotoSize, WholePhoto, photo_size
from edgecsd.progress import Reporter
from edgecsd.quantisation.calibration import calibration_split, first_pixels, synthetic_pixels
from edgecsd.targets.artifact import BAKES_ANY_SIZE, BAKES_ONE_SIZE, Runner
from edgecsd.targets.metadata import ArtifactMetadata, Target

if TYPE_CHECKING:
    from edgecsd.models.query import QueryModel


Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ExportPhotos:
    """pixels of the photos that an export goes by, and of those that its file is compared with the query model on.

    pixels     (n, S, S, 3) uint8: w8a8 takes its ranges from them; made up where no images were given
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


RESIZE = "resize"
PHOTOS = 8  # compared: each is held whole
# Height and width of made-up photos where an artifact takes any: a phone's either way, a square, small and odd ones
SYNTHETIC = ((480, 640), (640, 480), (512, 512), (90, 61), (333, 127), (127, 333), (17, 640), (640, 17))
Pixels = NDArray[np.uint8]


def baked_size(target: Target, bake: str | None, size: str | None) -> PhotoSize | None:
    """What `bake` and `bake_size` ask for; None for nothing. BadInputError for what the target cannot do."""
    if bake is None:
        if size is not None:
            raise BadInputError(f"`bake_size` {size} goes with `bake` {RESIZE}")
        return None
    if bake != RESIZE:
        raise BadInputError(f"`bake` {bake}: only {RESIZE} can be inside a file, with the crop that belongs to it")
    if target not in BAKES_ONE_SIZE:
        raise BadInputError(
            f"`bake` {RESIZE}: target {target} cannot; {_named(BAKES_ANY_SIZE)} can for photos of any size, "
            f"{_named(BAKES_ONE_SIZE)} for those of one size (`bake_size` HEIGHTxWIDTH)"
        )
    if size is not None:
        return photo_size(size, "`bake_size`")
    if target not in BAKES_ANY_SIZE:
        raise BadInputError(
            f"`bake` {RESIZE}: a {target} file has one input size: add `bake_size` HEIGHTxWIDTH of the upright photos "
            f"or frames that the app has, such as 640x480; {_named(BAKES_ANY_SIZE)} can for photos of any size"
        )
    return ANY_SIZE


def _named(targets: frozenset[Target]) -> str:
    return " and ".join(sorted(targets))


def photos_to_compare(images: ImageSet | None, contract: WholePhoto, seed: int) -> list[Pixels]:
    """(h, w, 3) photos that the artifact takes: of the images (brought to its size, if it has one), or made-up ones."""
    if images is None:
        return list(_synthetic(contract, seed))
    found: list[Pixels] = []
    for position in np.random.default_rng(seed).permutation(len(images)).tolist():
        try:
            image = images.read(position).image
        except ImageReadError:
            continue
        found.append(contract.framed(image) if contract.one_size else contract.pixels(image))
        if len(found) == PHOTOS:
            break
    return found or list(_synthetic(contract, seed))


def _synthetic(contract: WholePhoto, seed: int) -> list[Pixels]:
    squares = synthetic_pixels(640, PHOTOS, seed)
    if contract.one_size:
        return [contract.framed(Image.fromarray(square)) for square in squares]
    return [square[:height, :width] for square, (height, width) in zip(squares, SYNTHETIC, strict=True)]


def embed_both(
    runner: Runner, embed: Callable[[Pixels], Floats], photos: list[Pixels], contract: WholePhoto
) -> tuple[Floats, Floats]:
    """(n, dim) by the artifact from whole photos, and by the query model from what Pillow makes of them."""
    by_file = [runner.embed_one(photo[None]) for photo in photos]
    by_model = [embed(contract.within(photo[None])) for photo in photos]
    return np.concatenate(by_file), np.concatenate(by_model)
