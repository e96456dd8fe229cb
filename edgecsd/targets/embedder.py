"""An exported file as an Embedder, so that it can stand wherever a model can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecsd.targets.artifact import load_runner, read_metadata


class ArtifactEmbedder:
    """Runs an artifact in its own runtime, one image at a time, as a phone does."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self.path, self.metadata = path, read_metadata(path)
        self.preprocess, self.dim = self.metadata.input, self.metadata.dim
        self._runner = load_runner(path, threads=threads)

    @property
    def runtime(self) -> str:
        """What computes the embeddings, in words."""
        return self._runner.kind

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, S, S, 3) uint8, or (B, h, w, 3) where the resize is inside -> (B, dim) float32."""
        return self._runner.embed(pixels)
