"""A gallery model that is a torch network: what timm, open_clip and transformers have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgecsd.errors import BadInputError, first_line
from edgecsd.features.space import Maker
from edgecsd.models.backbones import to_input
from edgecsd.models.frozen_forward import Engine, frozen_forward
from edgecsd.models.gallery.model import Floats, Pixels, named_space, normalise, probe_pixels
from edgecsd.models.multi_scale import SINGLE_SCALE, multi_scale, scaled_sides
from edgecsd.models.weights import weights_digest
from edgecsd.photos.contract import Preprocess
from edgecsd.progress import SILENT, Reporter


class TorchGalleryModel:
    """What a torch network gives, L2-normalised; at several scales, the mean of theirs.

    network     in eval mode; forward: (B, 3, S, S) normalised float -> (B, dim), or (B, dim, 1, 1)
    preprocess  its pixel contract
    output      which of its vectors that is (EmbeddingSpace.output)
    library     what made it, with its version

    Raises BadInputError where photos give no single vector each, or the network takes none of these sizes.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        preprocess: Preprocess,
        scales: tuple[float, ...],
        output: str,
        library: str,
    ) -> None:
        self._name, self._network, self._scales, self.preprocess = name, network, scales, preprocess
        self._images, self._engine = 0, Engine.AUTO
        self._reporter: Reporter = SILENT
        self._forward: Callable[[Tensor], Tensor] | None = None
        size = preprocess.size
        scaled_sides(size, scales, name)
        probe(network, name, size, size if preprocess.one_size else size * 3 // 4)
        digest = weights_digest(network.state_dict())
        vectors = normalise(self._vectors(network, probe_pixels(preprocess)), name)
        maker = Maker.of(library, vectors)
        self.space = named_space(name, digest, preprocess, vectors.shape[1], scales, output, maker)

    def prepare(self, images: int, engine: Engine, reporter: Reporter = SILENT) -> None:
        """Choose the engine for `images` images: many are worth another one than torch (models/frozen_forward.py)."""
        one_size = self._scales == SINGLE_SCALE and self.preprocess.one_size
        if engine is Engine.ONNXRUNTIME and not one_size:
            raise BadInputError("`engine` onnxruntime: one input size only; leave it out with several scales or sizes")
        self._images, self._engine, self._reporter = images, engine if one_size else Engine.TORCH, reporter
        self._forward = None

    def _vectors(self, forward: Callable[[Tensor], Tensor], pixels: Pixels) -> Floats:
        batch = to_input(pixels, self.preprocess)
        with torch.inference_mode():
            if self._scales == SINGLE_SCALE:
                pooled = self._one_each(forward(batch)).float()
            else:
                pooled = multi_scale(lambda scaled: self._one_each(forward(scaled)), batch, self._scales)
        vectors: Floats = pooled.numpy()
        return vectors

    def _one_each(self, given: Tensor) -> Tensor:
        """(B, dim); BadInputError where the network gives more than one vector for a photo."""
        if sum(side > 1 for side in given.shape[1:]) > 1:
            raise BadInputError(
                f"{self._name}: gives {tuple(given.shape[1:])} for a photo, no single vector; choose `gallery_pooling`"
            )
        return given.flatten(1)

    def embed(self, pixels: Pixels) -> Floats:
        if self._forward is None:  # not before it is needed: what is whole already needs none
            size = self.preprocess.size
            self._forward = frozen_forward(
                self._network, size, self._images, engine=self._engine, reporter=self._reporter
            )
        return normalise(self._vectors(self._forward, pixels), self._name)


def probe(network: Callable[[Tensor], Any], name: str, height: int, width: int | None = None) -> Any:
    """What the network gives for noise of this size; BadInputError where it takes none."""
    width = width or height
    noise = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            return network(noise.contiguous(memory_format=torch.channels_last))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise BadInputError(f"{name} takes no images of {height} x {width} px ({first_line(error)})") from None


def gives_head(name: str, projects: bool, pooling: str, head: bool | None) -> bool:
    """Whether the vector is what the projection behind the features gives: as asked for, else as published."""
    if head and not projects:
        raise BadInputError(f"`gallery_head`: {name} has no projection: its vectors are its features")
    if head and pooling:
        raise BadInputError(f"`gallery_pooling` {pooling}: goes with features, and `gallery_head` is what follows them")
    return bool(head) or (head is None and projects and not pooling)
