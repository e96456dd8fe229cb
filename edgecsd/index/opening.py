"""Open a gallery index, wherever it lies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgecsd.index.addresses import MilvusAddress, index_place

if TYPE_CHECKING:
    from edgecsd.index.gallery_index import GalleryIndex


def open_index(place: Path | str | MilvusAddress) -> GalleryIndex:
    """Open a gallery index, wherever it lies; whoever searches it need not know."""
    found = index_place(place)
    if isinstance(found, MilvusAddress):
        from edgecsd.index.engines.milvus.collection import open_collection

        return open_collection(found)
    from edgecsd.index.engines.faiss.folder import open_folder

    return open_folder(found)
