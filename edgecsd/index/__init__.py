"""The gallery index: a faiss index over a feature store, with its search parameters.

kinds.py     what can be built, its parameters, and which of them a search may change
engine.py    the only importer of faiss here: trained indexes, their parts, files
opened.py    GalleryIndex, opened and searched
building.py  from a feature store, in bounded memory and resumable
merging.py   several indexes of one trained quantiser into one
"""

from edgecsd.index.building import build_index
from edgecsd.index.engine import INNER_PRODUCT, L2, vectors_of_faiss_file
from edgecsd.index.kinds import SEARCH_PARAMETER, IndexType, index_parameters
from edgecsd.index.merging import merge_indexes
from edgecsd.index.opened import KIND, GalleryIndex

__all__ = [
    "INNER_PRODUCT", "KIND", "L2", "SEARCH_PARAMETER", "GalleryIndex", "IndexType", "build_index", "index_parameters",
    "merge_indexes", "vectors_of_faiss_file",
]  # fmt: skip
