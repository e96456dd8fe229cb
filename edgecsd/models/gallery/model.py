"""What all gallery models have in common: (B, H, W, 3) uint8 batches in, vectors out, and the choices one has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgecsd.errors import BadInputError, validation_text
from edgecsd.features.space import EmbeddingSpace, Maker, require_same_space
from edgecsd.features.whitening import Whitening
from edgecsd.models.frozen_forward import Engine
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.probe import probe_photos
from edgecsd.progress import SILENT, Reporter

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


KINDS = "timm:NAME, open_clip:NAME, transformers:NAME, onnx:FILE or module:function"
TORCH_KINDS = "timm:NAME, open_clip:NAME and transformers:NAME"
HEAD = "head"  # EmbeddingSpace.output where the vector is what a network's classifier gives
_GOES_WITH = {
    "weights": ("weights", TORCH_KINDS),
    "pooling": ("gallery_pooling", TORCH_KINDS),
    "head": ("gallery_head", TORCH_KINDS),
    "output": ("gallery_output", "onnx:FILE"),
}


@dataclass(frozen=True)
class GalleryOptions:
    """What a user may choose about a gallery model; each kind takes some of it.

    weights     a state dict in place of the pretrained ones; the file or folder that a name stands for
    size        input side in pixels, in place of the model's own
    preprocess  pixel contract, in place of the model's own
    scales      input scales whose vectors are averaged
    pooling     how the vector is pooled, by the library's name; "": as its own
    head        whether the vector is what the classifier gives; None: as published
    output      which of several outputs is the vector, by its name; "": the first
    """

    weights: Path | None = None
    size: int | None = None
    preprocess: Preprocess | None = None
    scales: tuple[float, ...] = (1.0,)
    pooling: str = ""
    head: bool | None = None
    output: str = ""

    def refuse(self, spec: str, *names: str) -> None:
        """Raise BadInputError where one of these was chosen: `spec` has no such choice."""
        for name in names:
            parameter, kinds = _GOES_WITH[name]
            if getattr(self, name):
                raise BadInputError(f"`{parameter}` goes with {kinds} only, not with {spec}")


class GalleryModel(Protocol):
    """What every gallery model offers, ours or the user's."""

    @property
    def space(self) -> EmbeddingSpace: ...

    @property
    def preprocess(self) -> Preprocess: ...

    def embed(self, pixels: Pixels) -> Floats:
        """(B, size, size, 3) uint8, RGB, made by `preprocess` -> (B, dim) float32, L2-normalised."""
        ...


def usable_scales(scales: tuple[float, ...], option: str = "`scales`") -> tuple[float, ...]:
    """The scales in the order that the embedding space keeps them in; refused as it would refuse them."""
    try:
        return EmbeddingSpace(gallery_model="any", dim=2, scales=scales).scales
    except ValidationError as error:
        raise BadInputError(f"{option} {','.join(map(str, scales))}: {validation_text(error)}") from None


def normalise(vectors: NDArray[Any], name: str) -> Floats:
    """Unit-length float32 rows; a zero or non-finite embedding is refused, naming the model."""
    result = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(result, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise BadInputError(f"{name} gave a zero or non-finite embedding: its weights or its pixel contract are wrong")
    unit: Floats = result / norms
    return unit


def probe_pixels(preprocess: Preprocess) -> Pixels:
    """The built-in test photos as a gallery model sees them: (2, h, w, 3)."""
    return np.stack([preprocess.pixels(photo) for photo in probe_photos()])


def named_space(
    name: str,
    weights: str | None,
    preprocess: Preprocess,
    dim: int,
    scales: tuple[float, ...] = (1.0,),
    output: str = "",
    maker: Maker | None = None,
) -> EmbeddingSpace:
    """The space of a gallery model; BadInputError, naming the model, where it gives none that can be used."""
    try:
        return EmbeddingSpace(
            gallery_model=name,
            weights_digest=weights,
            preprocess=preprocess,
            dim=dim,
            scales=scales,
            output=output,
            maker=maker,
        )
    except ValidationError as error:
        raise BadInputError(f"gallery model {name!r} gives no usable space: {validation_text(error)}") from None


def prepare(model: GalleryModel, images: int, engine: Engine, reporter: Reporter = SILENT) -> None:
    """Let `model` make itself ready for so many images by an engine; BadInputError where it has an engine of its own.

    Models of the user's own may offer `prepare` too, with the same arguments.
    """
    own = getattr(model, "prepare", None)
    if own is not None:
        own(images, engine, reporter)
    elif engine is not Engine.AUTO:
        raise BadInputError(f"`engine` {engine}: goes with {TORCH_KINDS} only, not with {model.space.gallery_model}")


class WhitenedGalleryModel:
    """A gallery model whose vectors are whitened as they come out.

    `whitened` is the space of the store that holds the transform. Raises IncompatibleError if the model's own space is
    not the one that the transform was learnt in.
    """

    def __init__(self, model: GalleryModel, whitening: Whitening, whitened: EmbeddingSpace, where: str) -> None:
        require_same_space(model.space, whitening.original(whitened), "the gallery model", f"the whitening in {where}")
        self.space, self.preprocess, self._model, self._whitening = whitened, model.preprocess, model, whitening

    def embed(self, pixels: Pixels) -> Floats:
        return self._whitening.apply(self._model.embed(pixels), self.space.gallery_model)


class GalleryEmbedder:
    """A gallery model as an Embedder."""

    def __init__(self, model: GalleryModel) -> None:
        self.preprocess, self.dim, self.embed = model.preprocess, model.space.dim, model.embed
