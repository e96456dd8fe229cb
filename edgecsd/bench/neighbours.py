"""What wrong embeddings cost: how many of the reference's nearest gallery items a device's embeddings find too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecsd.bench.schema import Neighbours
from edgecsd.errors import BadInputError
from edgecsd.space import require_same_space
from edgecsd.targets.artifact import ArtifactMetadata

Floats = NDArray[np.float32]


class NeighbourIndex:
    """A gallery index, a folder or milvus:URI#COLLECTION, searched with its own parameters for k items."""

    def __init__(self, place: Path | str, k: int) -> None:
        from edgecsd.index_places import index_name, open_index

        self._index, self._k = open_index(place), k
        self.name = f"{index_name(place)}, k {k}, {len(self._index.ids)} items"
        self._place = str(place)
        if not 1 <= k <= len(self._index.ids):
            raise BadInputError(f"--k {k}: the index {place} holds {len(self._index.ids)} items; give 1 to that many")

    def require_space(self, metadata: ArtifactMetadata, file: Path) -> None:
        """Raise IncompatibleError for an artifact of another embedding space."""
        require_same_space(self._index.space, metadata.space, self._place, str(file))

    def compare(self, embeddings: Floats, expected: Floats) -> Neighbours:
        """Of (n, D) embeddings and what they should be."""
        from edgecsd.metrics import overlap_at

        found, wanted = (self._index.search(each, self._k)[1] for each in (embeddings, expected))
        overlap = overlap_at(found, wanted, self._k)
        return Neighbours(
            index=self.name, k=self._k, overlap_mean=float(overlap.mean()), overlap_min=float(overlap.min())
        )
