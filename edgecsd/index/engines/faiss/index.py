"""faiss indexes: made, trained, added to, joined, and searched as a FaissIndex.

A FaissIndex is what faiss searches and, beside the codes of type ivfpq, the vectors that rank the results again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import missing_extra
from edgecsd.index.engine import INNER_PRODUCT
from edgecsd.index.kinds import FULL_BITS, IndexType

try:
    import faiss
except ImportError:
    raise missing_extra("faiss", "index") from None

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

VERSION = faiss.__version__
CODES = {8: "SQ8", 16: "SQfp16", FULL_BITS: "Flat"}
LEAST_SAMPLE = 65_536  # training vectors, where the gallery has as many: 256 for each of a sub-space's 256 centroids
LISTS_SAMPLE = 64  # training vectors an inverted list
OPQ_ITERATIONS = 10  # of learning the rotation: faiss's 50 take five times as long


@dataclass
class FaissIndex:
    """main: a faiss index. ranking: of the same rows, what the first candidates are ranked by again, or None."""

    main: Any
    ranking: Any = None
    factor: int = 1  # candidates a result that are ranked again

    @property
    def ntotal(self) -> int:
        return int(self.main.ntotal)

    @property
    def d(self) -> int:
        return int(self.main.d)

    @property
    def metric_type(self) -> int:
        return int(self.main.metric_type)

    def search(self, queries: Floats, k: int) -> tuple[Floats, Rows]:
        """(Q, dim) -> inner products (Q, k), rows (Q, k); row -1 where nothing more was found."""
        if self.ranking is None:
            scores, rows = self.main.search(queries, k)
            return scores, rows
        searched = faiss.IndexRefine(self.main, self.ranking)
        searched.k_factor = self.factor
        scores, rows = searched.search(queries, k)
        return scores, rows

    def read(self, rows: Rows) -> Floats:
        """(n,) rows -> (n, dim) vectors as they are kept: decoded where they are codes."""
        if self.ranking is None and has_lists(self):
            faiss.extract_index_ivf(self.main).make_direct_map()  # from row to place in its list
        vectors: Floats = (self.ranking or self.main).reconstruct_batch(rows)
        return vectors

    def set_search(self, kind: IndexType, parameters: Mapping[str, int]) -> None:
        """Search as the parameters say; KeyError names one that is missing."""
        if kind is IndexType.HNSW:
            self.main.hnsw.efSearch = parameters["ef_search"]
        elif kind in (IndexType.IVF, IndexType.IVFPQ):
            faiss.extract_index_ivf(self.main).nprobe = parameters["nprobe"]
        if self.ranking is not None:
            self.factor = parameters["refine_factor"]


def make_engine(kind: IndexType, parameters: Mapping[str, int], dim: int) -> FaissIndex:
    """An empty index, untrained where its type needs training."""
    codes = CODES[parameters.get("bits", FULL_BITS)]
    if kind is IndexType.HNSW:
        suffix = "" if codes == "Flat" else f"_{codes}"
        index: Any = faiss.index_factory(dim, f"HNSW{parameters['links']}{suffix}", INNER_PRODUCT)
        index.hnsw.efConstruction = parameters["ef_construction"]
        return FaissIndex(index)
    if kind is IndexType.FLAT:
        return FaissIndex(_kept(dim, parameters.get("bits", FULL_BITS)))
    if kind is IndexType.IVF:
        return FaissIndex(faiss.index_factory(dim, f"IVF{parameters['nlist']},{codes}", INNER_PRODUCT))
    turned = f"OPQ{parameters['pq_bytes']}," if parameters.get("opq") else ""
    # "np": without polysemous codes, which nothing here searches by and which take 2.5 s a byte to train.
    index = faiss.index_factory(dim, f"{turned}IVF{parameters['nlist']},PQ{parameters['pq_bytes']}np", INNER_PRODUCT)
    refine = parameters.get("refine")
    return FaissIndex(index, _kept(dim, refine) if refine else None)


def _kept(dim: int, bits: int) -> Any:
    """An index without structure; the class that reading one from a file gives, or the two could not be merged."""
    return faiss.IndexFlatIP(dim) if bits == FULL_BITS else faiss.index_factory(dim, CODES[bits], INNER_PRODUCT)


def sample_size(engine: FaissIndex) -> int:
    """How many vectors training looks at; 0 where there is nothing to train."""
    if engine.main.is_trained:
        return 0
    ivf = faiss.try_extract_index_ivf(engine.main)
    return LEAST_SAMPLE if ivf is None else max(LEAST_SAMPLE, LISTS_SAMPLE * ivf.nlist)


def train(engine: FaissIndex, sample: Floats) -> None:
    """Train on vectors (n, dim)."""
    if has_lists(engine):
        ivf: Any = faiss.downcast_index(faiss.extract_index_ivf(engine.main))
        ivf.cp.min_points_per_centroid = 1  # no warning on stderr for small galleries: kinds.py checks their number
        if hasattr(ivf, "pq"):
            ivf.pq.cp.min_points_per_centroid = 1
    if isinstance(engine.main, faiss.IndexPreTransform):
        chain: Any = engine.main.chain
        turning: Any = faiss.downcast_VectorTransform(chain.at(0))
        quantiser = faiss.ProductQuantizer(turning.d_out, turning.M, 8)
        quantiser.cp.min_points_per_centroid = 1
        turning.pq, turning.niter = quantiser, OPQ_ITERATIONS
        engine.main.train(sample)
        turning.pq = None  # Python frees it
    else:
        engine.main.train(sample)
    if engine.ranking is not None:
        engine.ranking.train(sample)


def has_lists(engine: FaissIndex) -> bool:
    """Whether the index consists of inverted lists, which can be filled in parts and joined."""
    return faiss.try_extract_index_ivf(engine.main) is not None


@contextmanager
def one_thread() -> Iterator[None]:
    """Let faiss use one thread, as a search among many does."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
