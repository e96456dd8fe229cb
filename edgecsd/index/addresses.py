"""Where a gallery index lies: a folder that edgecsd wrote, or a collection of a Milvus server by its address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgecsd.errors import BadInputError

SCHEME = "milvus:"
FORM = "milvus:URI#COLLECTION, such as milvus:http://localhost:19530#gallery or milvus:gallery.db#gallery"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")  # what Milvus takes
SERVER = re.compile(r"(https?|tcp|unix):/+(?=[^/])")  # a Path has turned // into /


@dataclass(frozen=True)
class MilvusAddress:
    """A collection. uri: of a server (http://host:port), or a file name that ends in .db: the embedded Milvus Lite."""

    uri: str
    collection: str

    def __post_init__(self) -> None:
        if not SERVER.match(self.uri) and not self.uri.endswith(".db"):
            raise BadInputError(
                f"`milvus` {self.uri}: neither a server (http://host:19530) nor a file of Milvus Lite (gallery.db)"
            )
        if "@" in self.uri:
            raise BadInputError("`milvus`: leave user and password out of the URI; set MILVUS_TOKEN=user:password")
        if not NAME.fullmatch(self.collection):
            raise BadInputError(
                f"collection {self.collection!r}: a name is letters, digits and '_', at most 255, and begins with no "
                f"digit; the address of an index is {FORM}"
            )

    def __str__(self) -> str:
        return f"{SCHEME}{self.uri}#{self.collection}"

    @property
    def name(self) -> str:
        """What it is called among the files that are written about it."""
        return self.collection

    @staticmethod
    def parse(place: str) -> MilvusAddress:
        uri, _, collection = place.removeprefix(SCHEME).rpartition("#")
        return MilvusAddress(SERVER.sub(r"\1://", uri), collection)


def index_place(place: Path | str | MilvusAddress) -> Path | MilvusAddress:
    """The folder or the address that a command line's word means."""
    if isinstance(place, MilvusAddress):
        return place
    text = str(place)
    return MilvusAddress.parse(text) if text.startswith(SCHEME) else Path(place)


def index_name(place: Path | str | MilvusAddress) -> str:
    """The collection's name, or the folder's without its suffix."""
    found = index_place(place)
    return found.name if isinstance(found, MilvusAddress) else found.stem
