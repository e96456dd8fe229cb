"""What tests of open_clip's and transformers' gallery models share: photos of all shapes, and vectors of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edgecsd.models.embedding import embed_images
from edgecsd.models.gallery.model import GalleryEmbedder, GalleryModel
from edgecsd.photos.finding import find_images

SHAPES = {"wide": (210, 105), "tall": (77, 154), "tiny": (9, 7), "large": (1503, 998), "odd": (131, 97)}


def picture(width: int, height: int) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / period) + np.cos(columns * 3 / period) for period in (3.0, 11.0, 37.0)]
    noise = np.random.default_rng(width).normal(0, 0.4, (height, width, 3))
    return Image.fromarray(((np.stack(waves, 2) + noise + 2.5) / 5 * 255).clip(0, 255).astype(np.uint8))


def write_photos(folder: Path) -> Path:
    folder.mkdir()
    for name, shape in SHAPES.items():
        picture(*shape).save(folder / f"{name}.jpg", quality=92)
    return folder


def vectors_of(model: GalleryModel, photos: Path) -> np.ndarray:
    """(N, dim), from files to vectors as `extract` makes them."""
    embedded = embed_images(find_images(photos), GalleryEmbedder(model), workers=1)
    assert not embedded.problems
    return np.asarray(embedded.vectors[:, 0], np.float64)


def library_vectors(photos: Path, prepare: Callable[[Image.Image], Tensor], encode: Callable[[Tensor], Any]) -> Any:
    """(N, dim), unit length, of the same files in the same order, prepared and encoded by the library itself."""
    files = [photos / item for item in find_images(photos).ids]
    with torch.inference_mode():
        batch = torch.stack([prepare(Image.open(file).convert("RGB")) for file in files])
        vectors = encode(batch).flatten(1).double().numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def awake(network: torch.nn.Module) -> torch.nn.Module:
    """With weights whose vectors of two photos differ: those that libraries begin with are small."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 1 / parameter[0].numel() ** 0.5, generator=generator)
    return network.eval()
