"""The vectors that an index holds, read back out of it in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecsd.features.exact import BLOCK_ROWS
from edgecsd.index.gallery_index import GalleryIndex

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class StoredVectors:
    """What the rows of an index hold. Of a compressed index (`exact` False) they are what its codes decode to."""

    index: GalleryIndex

    @property
    def exact(self) -> bool:
        return self.index.exact

    def blocks(self, most: int | None = None, size: int | None = None) -> Iterator[tuple[Rows, Floats]]:
        """(rows, vectors) of all rows, or of blocks spread evenly over them that hold about `most` rows together.

        size: rows a block, by default BLOCK_ROWS.
        """
        held, size = self.index.held, size or BLOCK_ROWS
        starts = list(range(0, held, size))
        if most is not None and held > most:
            chosen = np.linspace(0, len(starts) - 1, max(1, most // size)).round().astype(int)
            starts = [starts[i] for i in np.unique(chosen)]
        for start in starts:
            rows = np.arange(start, min(start + size, held), dtype=np.int64)
            yield rows, self.index.read(rows)
