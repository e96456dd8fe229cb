"""The images that a measurement cycles: photos by the artifact's own pixel contract, or made-up ones."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecsd.errors import BadInputError, ImageReadError
from edgecsd.measuring.schema import DecodeFigures
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.decoding import decode_image
from edgecsd.photos.images import ImageSet
from edgecsd.photos.whole_photo import WholePhoto
from edgecsd.quantisation.calibration import synthetic_pixels

IMAGES = 32  # enough that no cache holds them all, few enough (5 MB at 224 px) to leave the peak memory alone
WHOLE_IMAGES = 8  # of whole photos, which are large
DECODE_PASSES = 3


@dataclass(frozen=True)
class BenchInput:
    """pixels (n, S, S, 3) uint8, or (n, h, w, 3) where the artifact resizes; decode_ms (n,) of each photo, empty for
    synthetic images."""

    kind: Literal["photos", "synthetic"]
    pixels: NDArray[np.uint8]
    digest: str
    decode_ms: NDArray[np.float64]
    decode: DecodeFigures | None

    def totals_ms(self, wall_ns: NDArray[np.int64], first: int) -> NDArray[np.float64] | None:
        """Decode + resize + inference of each run i, of image (first + i) mod n; None if nothing was decoded."""
        if not len(self.decode_ms):
            return None
        return wall_ns / 1e6 + self.decode_ms[(first + np.arange(len(wall_ns))) % len(self.decode_ms)]


def prepare_input(images: ImageSet | None, preprocess: Preprocess) -> BenchInput:
    """Up to 32 images spread evenly over the set, or seeded synthetic ones where there is no set.

    An artifact that resizes inside is measured on photos of one size: its own, or MEASURED where it takes any; others
    are brought to it, which counts as decoding. Unreadable images are skipped; BadInputError if none can be read.
    """
    if images is None:
        pixels = synthetic_pixels(preprocess.size, IMAGES)
        if isinstance(preprocess, WholePhoto):
            pixels = np.stack([preprocess.framed(Image.fromarray(image)) for image in pixels[:WHOLE_IMAGES]])
        return BenchInput("synthetic", pixels, _digest(pixels), np.empty(0), None)
    wall: list[float] = []
    cpu: list[float] = []
    chosen: list[NDArray[np.uint8]] = []
    for pixel, wall_ms, cpu_ms in _decode_each(images, preprocess):
        chosen.append(pixel)
        wall.append(wall_ms)
        cpu.append(cpu_ms)
    if not chosen:
        raise BadInputError(f"{images.root}: none of the chosen images can be read; try another folder with `images`")
    pixels = np.stack(chosen)
    return BenchInput("photos", pixels, _digest(pixels), np.array(wall), _decode_figures(wall, cpu))


def _decode_each(images: ImageSet, preprocess: Preprocess) -> Iterator[tuple[NDArray[np.uint8], float, float]]:
    """(pixels, wall ms, CPU ms) of each readable image: the median of three passes, after one that warms Pillow up."""
    count = WHOLE_IMAGES if isinstance(preprocess, WholePhoto) else IMAGES
    positions = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int))
    for position in positions.tolist():
        path = images.path(position)
        try:
            data = path.read_bytes()
            passes = [_decode_once(data, path, preprocess) for _ in range(DECODE_PASSES + 1)][1:]
        except (OSError, ImageReadError):
            continue
        wall, cpu = np.median([[p[1], p[2]] for p in passes], axis=0)
        yield passes[0][0], float(wall), float(cpu)


def _decode_once(data: bytes, path: Path, preprocess: Preprocess) -> tuple[NDArray[np.uint8], float, float]:
    cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
    photo = decode_image(data, str(path))
    pixels = preprocess.framed(photo) if isinstance(preprocess, WholePhoto) else preprocess.pixels(photo)
    wall, cpu = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
    return pixels, wall / 1e6, cpu / 1e6


def _decode_figures(wall: list[float], cpu: list[float]) -> DecodeFigures:
    from importlib.metadata import version

    p50, p90 = np.percentile(wall, [50, 90])
    decoder = f"Pillow {version('Pillow')}"
    return DecodeFigures(
        decoder=decoder, images=len(wall), p50_ms=float(p50), p90_ms=float(p90), cpu_p50_ms=float(np.median(cpu))
    )


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(f"{pixels.shape}\0".encode() + pixels.tobytes()).hexdigest()
