"""Photos whose embeddings the host knows: the phone embeds the same bytes, and is right if it gets the same vectors."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.files.whole import sha256_file
from edgecsd.photos.decoding import decode_image
from edgecsd.photos.images import ImageSet
from edgecsd.quantisation.calibration import synthetic_pixels
from edgecsd.serve.memory_files import MemoryFile, media_type_of
from edgecsd.targets.artifact import load_runner
from edgecsd.targets.metadata import ArtifactMetadata

COUNT = 8
BROWSER_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
MOST_BYTES = 6_000_000  # of one photo; larger ones are passed over
MADE_UP_SIDES = ((400, 300), (300, 400))  # pixels: both are resized on the way, as photos are


@dataclass(frozen=True)
class GoldenPhotos:
    """files: encoded photos; embeddings (n, dim): what the same artifact makes of them in the host process."""

    kind: Literal["photos", "synthetic"]
    files: tuple[MemoryFile, ...] = field(repr=False)
    embeddings: NDArray[np.float32] = field(repr=False)
    digest: str  # of all the files
    reference: str


def golden_photos(
    model: Path, metadata: ArtifactMetadata, images: ImageSet | None, positions: list[int]
) -> GoldenPhotos:
    """Up to 8 of the gallery's photos, spread evenly, or made-up ones where there is none that a browser can show."""
    chosen = _chosen(images, positions) if images is not None else []
    files = chosen or [MemoryFile(data, "image/png") for data in _made_up()]
    pixels = [
        metadata.preprocess.pixels(decode_image(file.content, f"golden photo {n}")) for n, file in enumerate(files)
    ]
    return GoldenPhotos(
        kind="photos" if chosen else "synthetic",
        files=tuple(files),
        embeddings=load_runner(model).embed(np.stack(pixels)),
        digest=hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest(),
        reference=f"same file {model.name}, run in the host process",
    )


def photos_of_pack(folder: Path, model: Path) -> GoldenPhotos:
    """Up to 8 photos of a golden pack, with the embeddings that it expects.

    Raises IncompatibleError for a pack of another file, BadInputError for one without a photo that a browser shows.
    """
    from edgecsd.golden.pack import read_embedding, read_pack  # imports torch with the package

    pack = read_pack(folder)
    if pack.artifact.sha256 != sha256_file(model):
        raise IncompatibleError(
            f"{folder}: was made with {pack.artifact.name}, SHA-256 {pack.artifact.sha256[:16]}, which is another file "
            f"than {model}; make one with `edgecsd golden {model}`"
        )
    items = [item for item in pack.items if Path(item.photo).suffix.lower() in BROWSER_SUFFIXES][:COUNT]
    if not items:
        raise BadInputError(f"{folder}: has no photo that a browser can show ({', '.join(sorted(BROWSER_SUFFIXES))})")
    files = tuple(MemoryFile((folder / each.photo).read_bytes(), media_type_of(each.photo.lower())) for each in items)
    return GoldenPhotos(
        kind="photos",
        files=files,
        embeddings=np.stack([read_embedding(folder, pack, item) for item in items]),
        digest=hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest(),
        reference=f"golden pack {folder.name}",
    )


def _chosen(images: ImageSet, positions: list[int]) -> list[MemoryFile]:
    """Whole photos alone: a photo with a box would have to be cropped on the phone."""
    whole = [p for p in positions if images.path(p).suffix.lower() in BROWSER_SUFFIXES]
    if images.boxes is not None:
        whole = [p for p in whole if images.boxes[p] is None]
    spread = np.unique(np.linspace(0, len(whole) - 1, min(COUNT, len(whole))).astype(int))
    paths = [images.path(whole[i]) for i in spread.tolist()]
    return [
        MemoryFile(path.read_bytes(), media_type_of(path.name.lower()))
        for path in paths
        if path.stat().st_size <= MOST_BYTES
    ]


def _made_up() -> list[bytes]:
    encoded = []
    for number, image in enumerate(synthetic_pixels(400, COUNT)):
        width, height = MADE_UP_SIDES[number % 2]
        buffer = io.BytesIO()
        Image.fromarray(image[:height, :width]).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded
