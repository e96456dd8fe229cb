"""Precisions, and the pixels that calibrate them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError

if TYPE_CHECKING:
    from PIL import Image

    from edgecsd.photos.contract import Preprocess
    from edgecsd.photos.images import ImageSet


MINIMUM_CALIBRATION = 8  # below it a 99.99th percentile is one photo's accident
Pixels = NDArray[np.uint8]


def calibration_split(
    images: ImageSet, preprocess: Preprocess, count: int = 64, seed: int = 0
) -> tuple[Pixels, str, ImageSet]:
    """(n, S, S, 3) uint8 of `count` images chosen by `seed` alone, the SHA-256 of those pixels, and the other images.

    Unreadable images are skipped and the next in the seeded order takes their place; a set smaller than `count` gives
    all it has. The other images are those behind in that order: they calibrate nothing. Raises BadInputError if fewer
    than 8 can be read.
    """
    if count < MINIMUM_CALIBRATION:
        raise BadInputError(f"{count} calibration images are too few: at least {MINIMUM_CALIBRATION} are needed")
    order = [int(position) for position in np.random.default_rng(seed).permutation(len(images))]
    chosen, gone_through, problem = _read(images.subset(order), preprocess, count)
    if len(chosen) < MINIMUM_CALIBRATION:
        reason = f"; the last unreadable one: {problem}" if problem else ""
        raise BadInputError(
            f"{images.root}: {MINIMUM_CALIBRATION} or more readable images are needed, it has {len(chosen)}{reason}"
        )
    pixels = np.stack(chosen)
    return pixels, pixels_digest(pixels), images.subset(order[gone_through:])


def pixels_digest(pixels: Pixels) -> str:
    """Hex SHA-256 of (n, S, S, 3) pixels and their shape."""
    return hashlib.sha256(f"{pixels.shape}\0".encode() + pixels.tobytes()).hexdigest()


def first_pixels(images: ImageSet, preprocess: Preprocess, count: int, but: Pixels) -> Pixels:
    """(n, S, S, 3) uint8 of the first `count` images that can be read, or of all, copies of `but` apart; n may be 0."""
    chosen, _, _ = _read(images, preprocess, count, frozenset(map(one_digest, but)))
    return np.stack(chosen) if chosen else np.empty((0, preprocess.size, preprocess.size, 3), np.uint8)


def one_digest(photo: Pixels) -> bytes:
    """SHA-256 of one photo's pixels, by which copies of it under other ids are known."""
    return hashlib.sha256(photo.tobytes()).digest()


def _read(
    images: ImageSet, preprocess: Preprocess, count: int, but: frozenset[bytes] = frozenset()
) -> tuple[list[Pixels], int, str]:
    """The first `count` that can be read, how many were gone through, and what the last unreadable one lacks."""
    from edgecsd.photos.images import load_in_order

    def transform(position: int, image: Image.Image) -> tuple[Pixels, ...]:
        del position
        return (preprocess.pixels(image),)

    chosen: list[Pixels] = []
    problem, gone_through = "", 0
    for loaded in load_in_order(images, range(len(images)), transform, ahead=4):
        gone_through += 1
        if loaded.problem:
            problem = loaded.problem
            continue
        if but and one_digest(loaded.arrays[0]) in but:
            continue
        chosen.append(loaded.arrays[0])
        if len(chosen) == count:
            break
    return chosen, gone_through, problem


def synthetic_pixels(size: int, count: int = 8, seed: int = 0) -> Pixels:
    """(count, size, size, 3) uint8 images whose spectrum falls like a photo's (1/f): for parity without photos.

    White noise would not do: a convolution averages it to grey, so that every image gets nearly the same embedding.
    """
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :])
    falling = 1.0 / np.maximum(frequency, 1.0 / size)
    images = np.empty((count, size, size, 3), np.uint8)
    for number in range(count):
        spectrum = np.fft.fft2(random.standard_normal((size, size, 3)), axes=(0, 1)) * falling[:, :, None]
        waves = np.fft.ifft2(spectrum, axes=(0, 1)).real
        mixed = waves @ (0.7 + 0.3 * np.eye(3))  # the channels of a photo go together
        contrast, brightness = 60.0, random.uniform(90.0, 165.0)  # of 255, as photos have
        spread = (mixed - mixed.mean()) / mixed.std() * contrast + brightness
        images[number] = spread.round().clip(0, 255)
    return images
