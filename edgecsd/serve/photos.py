"""The gallery's photos as the page shows them: small JPEGs by row number, from a table that is made at the start."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock

from PIL import Image

from edgecsd.errors import BadInputError
from edgecsd.photos.images import ImageSet

SIDE = 320  # pixels of the longer side: a third of a phone's width, at three physical pixels each
QUALITY = 80
KEPT = 1024  # thumbnails in memory, about 15 MB


class ServedThumbnails:
    """Row -> JPEG. What a request names is a number in a table, never a path."""

    def __init__(self, images: ImageSet, row_of: Mapping[str, int]) -> None:
        self._images = images
        self._position = {row_of[item]: p for p, item in enumerate(images.ids) if item in row_of}
        if not self._position:
            raise BadInputError(
                f"{images.root}: none of its {len(images)} photos is an item of the index (the first is called "
                f"{images.ids[0]}): give the folder or list that the gallery was extracted from"
            )
        self._made: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._position)

    def __contains__(self, row: int) -> bool:
        return row in self._position

    @property
    def positions(self) -> list[int]:
        """Of the gallery's photos in the image set, by row."""
        return [self._position[row] for row in sorted(self._position)]

    def jpeg(self, row: int) -> bytes:
        """The thumbnail of a row that is in the table. Raises ImageReadError if the photo cannot be read any more."""
        with self._lock:
            if row in self._made:
                self._made.move_to_end(row)
                return self._made[row]
        image = self._images.read(self._position[row]).image
        image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=QUALITY)
        with self._lock:
            self._made[row] = buffer.getvalue()
            if len(self._made) > KEPT:
                self._made.popitem(last=False)
        return buffer.getvalue()
