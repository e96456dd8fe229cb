"""What every index engine offers to GalleryIndex."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

INNER_PRODUCT, L2 = 0, 1  # metrics, by faiss's numbers

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class SearchEngine(Protocol):
    """Vectors (N, dim) in an engine, searched and read by row."""

    @property
    def ntotal(self) -> int:
        """How many vectors there are."""
        ...

    @property
    def metric_type(self) -> int:
        """INNER_PRODUCT, L2, or another number."""
        ...

    def search(self, queries: Floats, k: int) -> tuple[Floats, Rows]:
        """(Q, dim) -> inner products (Q, k), rows (Q, k), best first; row -1 where nothing more was found."""
        ...

    def read(self, rows: Rows) -> Floats:
        """(n,) rows -> (n, dim) vectors: those added, or what their codes decode to."""
        ...
