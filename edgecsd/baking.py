"""export --bake resize: which photos an artifact takes whose resize is inside it, and photos to compare it on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecsd.errors import BadInputError, ImageReadError
from edgecsd.photos.images import ImageSet
from edgecsd.photos.whole_photo import ANY_SIZE, PhotoSize, WholePhoto, photo_size
from edgecsd.quantisation.calibration import synthetic_pixels
from edgecsd.targets.artifact import BAKES_ANY_SIZE, BAKES_ONE_SIZE, Runner
from edgecsd.targets.metadata import Target

RESIZE = "resize"
PHOTOS = 8  # compared: each is held whole
# Height and width of made-up photos where an artifact takes any: a phone's either way, a square, small and odd ones
SYNTHETIC = ((480, 640), (640, 480), (512, 512), (90, 61), (333, 127), (127, 333), (17, 640), (640, 17))
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def baked_size(target: Target, bake: str | None, size: str | None) -> PhotoSize | None:
    """What --bake and --bake-size ask for; None for nothing. BadInputError for what the target cannot do."""
    if bake is None:
        if size is not None:
            raise BadInputError(f"--bake-size {size} goes with --bake {RESIZE}")
        return None
    if bake != RESIZE:
        raise BadInputError(f"--bake {bake}: only {RESIZE} can be inside a file, with the crop that belongs to it")
    if target not in BAKES_ONE_SIZE:
        raise BadInputError(
            f"--bake {RESIZE}: target {target} cannot; {_named(BAKES_ANY_SIZE)} can for photos of any size, "
            f"{_named(BAKES_ONE_SIZE)} for those of one size (--bake-size HEIGHTxWIDTH)"
        )
    if size is not None:
        return photo_size(size, "--bake-size")
    if target not in BAKES_ANY_SIZE:
        raise BadInputError(
            f"--bake {RESIZE}: a {target} file has one input size: add --bake-size HEIGHTxWIDTH of the upright photos "
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
