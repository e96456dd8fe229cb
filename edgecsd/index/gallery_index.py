"""GalleryIndex: an opened gallery index, whatever engine holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import IncompatibleError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.files.columns import DigestOf, RowOf
from edgecsd.index.engine import SearchEngine
from edgecsd.index.kinds import FULL_BITS, IndexType

if TYPE_CHECKING:
    from edgecsd.index.addresses import MilvusAddress


Floats = NDArray[np.float32]


@dataclass(frozen=True)
class GalleryIndex:
    """An opened index, searched with the parameters in its manifest."""

    path: Path | MilvusAddress
    type: IndexType
    space: EmbeddingSpace
    parameters: dict[str, int]
    ids: Sequence[str]
    digests: Mapping[str, str] = field(repr=False)  # of the photos, by id; of those that are known
    engine: SearchEngine = field(repr=False)

    def search(self, queries: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
        """(Q, dim) unit vectors -> cosines (Q, k) and rows (Q, k), best first, equal cosines by row.

        k is cut to the gallery's size. An approximate index may find fewer than k: row -1, cosine -inf; so does a query
        that is not finite.
        """
        if queries.ndim != 2 or queries.shape[1] != self.space.dim:
            raise IncompatibleError(
                f"{self.path}: holds {self.space.dim}-d vectors, the queries have shape {queries.shape}"
            )
        k = min(k, len(self.ids))
        lost = np.asarray(~np.isfinite(queries).all(axis=1))
        asked = np.where(lost[:, None], 0, queries) if lost.any() else queries
        scores, rows = self.engine.search(np.ascontiguousarray(asked, np.float32), k)
        rows = np.where(lost[:, None], -1, rows)
        scores = np.where(rows < 0, -np.inf, scores)
        order = np.lexsort((rows, -scores), axis=1)
        return np.take_along_axis(scores, order, 1).astype(np.float32), np.take_along_axis(rows, order, 1)

    @property
    def held(self) -> int:
        """How many vectors the engine holds."""
        return int(self.engine.ntotal)

    @property
    def exact(self) -> bool:
        """Whether the index holds vectors as they were added, rather than codes of them."""
        kept = self.parameters.get("bits", FULL_BITS)
        return self.type is not IndexType.IVFPQ and kept == FULL_BITS

    @property
    def metric(self) -> int:
        """What the engine compares by: INNER_PRODUCT, L2 or another of its metrics."""
        return int(self.engine.metric_type)

    def read(self, rows: NDArray[np.int64]) -> Floats:
        """(n,) rows -> (n, dim) vectors: what was added, or what its codes decode to where the index is not `exact`."""
        return self.engine.read(np.ascontiguousarray(rows, np.int64))

    @cached_property
    def row_of(self) -> RowOf:
        """Item id -> row."""
        return self.digests.row_of if isinstance(self.digests, DigestOf) else RowOf(self.ids)
