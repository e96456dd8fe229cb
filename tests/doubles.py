"""Gallery models small enough for tests: ordinary implementations of the GalleryModel protocol, in numpy."""

from __future__ import annotations

import time

import numpy as np

from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.gallery.model import normalise
from edgecsd.photos.contract import Preprocess


class PixelGallery:
    """Means over an 8 x 8 grid, projected at random to `dim` numbers. Batches change nothing."""

    def __init__(self, dim: int = 16, size: int = 32, seed: int = 7) -> None:
        self.preprocess = Preprocess(size=size)
        self.space = EmbeddingSpace(gallery_model=f"double:pixels-{seed}", preprocess=self.preprocess, dim=dim)
        self._projection = np.random.default_rng(seed).normal(size=(dim, 8 * 8 * 3))

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        side = self.preprocess.size // 8
        grid = pixels.astype(np.float64).reshape(len(pixels), 8, side, 8, side, 3).mean(axis=(2, 4)) - 127.5
        return normalise(np.stack([self._projection @ row.ravel() for row in grid]), "double")


class SlowGallery(PixelGallery):
    """Waits before each batch, so that a test can kill its process in the middle."""

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(0.2)
        return super().embed(pixels)


class FunctionDouble:
    """What a user's module:function returns."""

    identity = "acme-embedder-v7"
    preprocess = Preprocess(size=32)

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        return PixelGallery().embed(pixels) * 3.0


def make_function_double() -> FunctionDouble:
    return FunctionDouble()


def make_nothing() -> object:
    return object()


NOT_A_FUNCTION = 3
