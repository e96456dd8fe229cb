"""How far an app may be from the pack: measured on the file, and never so far that a known mistake would pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgecsd.gate.thresholds import DEFAULT_THRESHOLDS
from edgecsd.golden.pack import Tolerances
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.metrics.retrieval import share_kept
from edgecsd.quantisation.precisions import CLOSENESS, Precision

# Levels of 0 to 255. Over 20 photos Pillow, Chromium and Java's ImageIO decoded alike to the bit. A decoder without
# smooth chroma (jpeg-js) differed by 1.3 in the mean, its tensors by 0.8: as much as a wrong filter, so it is reported.
DECODER_MEAN = 1.0
TENSOR_MAX = 24
OF_SMALLEST_MISTAKE = 0.5  # a tolerance may be at most this share of what the smallest mistake in the pack changes
LEAST_MEAN = 0.1
DRAWS, SEED = 2, 0
ROOM = 2.0  # the app may lose so many times what the measured noise loses
LEAST_OVERLAP = 0.5
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def measure_tolerances(
    precision: Precision,
    embed: Callable[[Pixels], Floats],
    right: Pixels,
    embeddings: Floats,
    smallest: float,
    index: GalleryIndex | None,
    k: int,
) -> Tolerances:
    """From the file's own reaction to tensors (n, S, S, 3) that differ by as much as is tolerated.

    smallest   levels: the mean difference that the smallest mistake makes in this pack
    """
    mean = max(LEAST_MEAN, min(DECODER_MEAN, OF_SMALLEST_MISTAKE * smallest))
    random = np.random.default_rng(SEED)
    least = CLOSENESS[precision].same_file
    lowest, overlap = 1.0, 1.0
    for _ in range(DRAWS):
        found = embed(noisy(right, mean, random))
        lowest = min(lowest, float((found * embeddings).sum(1).min()))
        if index is not None:
            (_, expected), (_, now) = index.search(embeddings, k), index.search(found, k)
            overlap = min(overlap, float(share_kept(now, expected, k).mean()))
    return Tolerances(
        decoded_mean=DECODER_MEAN,
        tensor_mean=round(mean, 3),
        tensor_max=TENSOR_MAX,
        cosine=least,
        max_difference=DEFAULT_THRESHOLDS[precision].max_difference,
        norm_error=DEFAULT_THRESHOLDS[precision].max_norm_error,
        end_to_end_cosine=round(min(least, 1 - ROOM * (1 - lowest)), 5),
        overlap=round(max(LEAST_OVERLAP, min(0.95, 1 - ROOM * (1 - overlap))), 3),
    )


def noisy(pixels: Pixels, mean: float, random: np.random.Generator) -> Pixels:
    """The pixels changed by independent noise of this mean size, in levels, rounded to whole ones."""
    signs = random.choice(np.array([-1, 1], np.int16), pixels.shape)
    whole = np.int16(mean)
    sizes = whole + (random.random(pixels.shape) < mean - whole)
    return np.asarray((pixels + signs * sizes).clip(0, 255), np.uint8)
