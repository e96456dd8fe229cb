"""faiss's searches for mining: a block of a gallery by brute force, a whole one through inverted lists on disk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import missing_extra
from edgecsd.features.mapped import Queries, Vectors, fill
from edgecsd.files.whole import remove, replace_whole
from edgecsd.index.kinds import POINTS_PER_LIST, usual_lists
from edgecsd.quiet import quiet_conversion

try:
    import faiss
    from faiss.contrib.ondisk import merge_ondisk
except ImportError:
    raise missing_extra("faiss", "index") from None

POINTS_OF_A_LIST = 64  # vectors a list that its making looks at: lists need not be as good as a codebook
TRAINING_VALUES = 1 << 26  # that the making looks at, at most: 256 MB as float32
LEAST_PROBES = 8  # lists that a query looks at, where there are as many
ADDED_ROWS = 65_536  # at once, as float32: 128 MB at dimension 512
SLAB_BYTES = 1 << 28  # of lists that are held while they are made: then they go to disk
COMPRESSED_FROM = 10_000  # vectors: a product quantiser of fewer learns little and saves nothing
DIMENSIONS_PER_BYTE = 8  # of a compressed vector

Floats = NDArray[np.float32]


def nearest_in(block: Floats, queries: Floats, count: int) -> tuple[Floats, NDArray[np.int64]]:
    """Cosines and rows (Q, count) of the rows of block (N, D) nearest to queries (Q, D), by brute force."""
    cosines, rows = faiss.knn(queries, block, min(count, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
    return cosines, rows


class InvertedLists:
    """Approximate nearest neighbours of unit vectors by cosine. The lists are a file; a search reads parts of it.

    FOLDER/lists.faiss    centroids and where each list lies
    FOLDER/lists.ivfdata  the vectors by list: as they were, float16 where they were that or less, or codes
    """

    def __init__(self, folder: Path, depth: int) -> None:
        """Open what `make` wrote; `probes` lists are searched, to begin with what `depth` neighbours may need."""
        flags = faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_ONDISK_SAME_DIR  # with IO_FLAG_MMAP a search crashes (1.15)
        with quiet_conversion("opening inverted lists"):
            index: Any = faiss.read_index(str(folder / "lists.faiss"), flags)
        self._index, self.lists, count = index, int(index.nlist), int(index.ntotal)
        self.compressed = isinstance(self._index, faiss.IndexIVFPQ)
        # Lists with four times as many vectors as are asked for, and never only a few: whoever needs more doubles it.
        self.probes = min(self.lists, max(LEAST_PROBES, math.ceil(4 * depth * self.lists / count)))

    @staticmethod
    def make(folder: Path, gallery: Vectors, *, compressed: bool = False) -> None:
        """Write the lists over gallery (N, D); what is held meanwhile does not grow with N.

        compressed: a byte for every 8 dimensions, where there are enough vectors to learn it from.
        """
        count, dim = gallery.shape
        most = TRAINING_VALUES // dim // POINTS_PER_LIST
        lists = max(1, min(usual_lists(count), most))
        kept = "Flat" if gallery.dtype.itemsize > 2 else "SQfp16"
        if compressed and count >= COMPRESSED_FROM:
            kept = f"PQ{_sub_spaces(dim)}"
        index: Any = faiss.index_factory(dim, f"IVF{lists},{kept}", faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, POINTS_OF_A_LIST
        step = max(1, count // (lists * POINTS_OF_A_LIST), -(-count * dim // TRAINING_VALUES))
        index.train(np.ascontiguousarray(gallery[::step], np.float32))
        with replace_whole(folder) as place:
            place.mkdir()
            slabs = _add(index, gallery, place)
            with quiet_conversion("joining inverted lists"):
                merge_ondisk(index, [str(slab) for slab in slabs], str(place / "lists.ivfdata"))
            faiss.write_index(index, str(place / "lists.faiss"))
            for slab in slabs:
                remove(slab)

    def search(self, queries: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
        """(Q, count) gallery rows and cosines of queries (Q, D), nearest first; row -1 where the lists gave too few."""
        self._index.nprobe = self.probes
        cosines, rows = self._index.search(np.ascontiguousarray(queries, np.float32), count)
        return rows, cosines


def _add(index: Any, gallery: Queries, place: Path) -> list[Path]:
    """The vectors, sorted into lists, slab by slab in files; the index is left empty."""
    slabs: list[Path] = []
    count, begun = len(gallery), 0
    rows = max(ADDED_ROWS, SLAB_BYTES // index.code_size)
    buffer = np.empty((min(ADDED_ROWS, count), gallery.shape[1]), np.float32)
    for start in range(0, count, ADDED_ROWS):
        block = buffer[: min(ADDED_ROWS, count - start)]
        fill(block, gallery, start)
        index.add_with_ids(block, np.arange(start, start + len(block)))
        end = start + len(block)
        if end == count or end - begun >= rows:
            slabs.append(place / f"slab-{len(slabs):05d}.faiss")
            faiss.write_index(index, str(slabs[-1]))
            index.reset()
            begun = end
    return slabs


def _sub_spaces(dim: int) -> int:
    """The most parts of equal width that are no more than a byte for every 8 dimensions."""
    wanted = max(1, dim // DIMENSIONS_PER_BYTE)
    return max(parts for parts in range(1, wanted + 1) if dim % parts == 0)
