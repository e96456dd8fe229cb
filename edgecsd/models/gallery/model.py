"""Gallery models: timm:NAME, onnx:FILE or module:function, all embedding (B, H, W, 3) uint8 batches."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgecsd.errors import BadInputError, validation_text
from edgecsd.features.space import EmbeddingSpace, require_same_space
from edgecsd.features.whitening import Whitening
from edgecsd.models.frozen_forward import Engine
from edgecsd.photos.contract import Preprocess
from edgecsd.progress import SILENT, Reporter

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


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


def named_space(
    name: str, weights: str | None, preprocess: Preprocess, dim: int, scales: tuple[float, ...] = (1.0,)
) -> EmbeddingSpace:
    """The space of a gallery model; BadInputError, naming the model, where it gives none that can be used."""
    try:
        return EmbeddingSpace(gallery_model=name, weights_digest=weights, preprocess=preprocess, dim=dim, scales=scales)
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
        raise BadInputError(f"`engine` {engine}: goes with timm:NAME only, not with {model.space.gallery_model}")


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
