"""What wrong embeddings cost: how many of the reference's nearest gallery items a device's embeddings find too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecsd.bench.schema import Neighbours
from edgecsd.errors import BadInputError
from edgecsd.features.space import require_same_space
from edgecsd.targets.metadata import ArtifactMetadata

if TYPE_CHECKING:
    from edgecsd.index.opened import GalleryIndex

Floats = NDArray[np.float32]


class NeighbourIndex:
    """An opened gallery index, searched with its own parameters for k items. place: where it is, for messages."""

    def __init__(self, index: GalleryIndex, place: str, k: int) -> None:
        from edgecsd.index.addresses import index_name

        self._index, self._place, self._k = index, place, k
        self.name = f"{index_name(place)}, k {k}, {len(index.ids)} items"
        if not 1 <= k <= len(index.ids):
            raise BadInputError(f"--k {k}: the index {place} holds {len(index.ids)} items; give 1 to that many")

    @staticmethod
    def open(place: Path | str, k: int) -> NeighbourIndex:
        """A folder or milvus:URI#COLLECTION."""
        from edgecsd.index.opening import open_index

        return NeighbourIndex(open_index(place), str(place), k)

    def require_space(self, metadata: ArtifactMetadata, file: Path) -> None:
        """Raise IncompatibleError for an artifact of another embedding space."""
        require_same_space(self._index.space, metadata.space, self._place, str(file))

    def compare(self, embeddings: Floats, expected: Floats) -> Neighbours:
        """Of (n, D) embeddings and what they should be."""
        from edgecsd.metrics.retrieval import overlap_at

        found, wanted = (self._index.search(each, self._k)[1] for each in (embeddings, expected))
        overlap = overlap_at(found, wanted, self._k)
        return Neighbours(
            index=self.name, k=self._k, overlap_mean=float(overlap.mean()), overlap_min=float(overlap.min())
        )
