"""A gallery model from timm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgecsd.errors import BadInputError, first_line
from edgecsd.features.space import Maker
from edgecsd.models.backbones import Backbone, create_backbone, timm_version, to_input
from edgecsd.models.frozen_forward import Engine, frozen_forward
from edgecsd.models.gallery.model import HEAD, Floats, GalleryOptions, Pixels, named_space, normalise, probe_pixels
from edgecsd.models.multi_scale import SINGLE_SCALE, multi_scale, scaled_sides
from edgecsd.models.weights import weights_digest
from edgecsd.progress import SILENT, Reporter


class TimmGalleryModel:
    """What a timm network gives, L2-normalised; at several scales, the mean of theirs.

    Any image network: convolutional, vision transformer or hybrid. The vector is the features as timm pools them
    (`num_classes=0`). The towers of CLIP, MobileCLIP and PE-Core keep their projection in the classifier: theirs is
    what it gives, as published.
    """

    def __init__(self, name: str, options: GalleryOptions) -> None:
        backbone = create_backbone(name, weights=options.weights, classifier=True)
        self._name, self._network, self._scales = name, backbone.network, options.scales
        self._images, self._engine = 0, Engine.AUTO
        self._reporter: Reporter = SILENT
        self._forward: Callable[[Tensor], Tensor] | None = None
        output = _choose_output(backbone, options.pooling, options.head)
        self.preprocess = options.preprocess or backbone.contract(options.size)
        scaled_sides(self.preprocess.size, options.scales, f"timm:{name}")
        size = self.preprocess.size
        backbone.require_size(size, size if self.preprocess.one_size else size * 3 // 4)
        digest = weights_digest(self._network.state_dict())
        vectors = normalise(self._vectors(self._network, probe_pixels(self.preprocess)), f"timm:{name}")
        maker = Maker.of(f"timm {timm_version()}", vectors)
        self.space = named_space(
            f"timm:{name}", digest, self.preprocess, vectors.shape[1], options.scales, output, maker
        )

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
                f"timm:{self._name}: gives {tuple(given.shape[1:])} for a photo, no single vector; choose "
                f"`gallery_pooling`"
            )
        return given.flatten(1)

    def embed(self, pixels: Pixels) -> Floats:
        if self._forward is None:  # not before it is needed: what is whole already needs none
            size = self.preprocess.size
            self._forward = frozen_forward(
                self._network, size, self._images, engine=self._engine, reporter=self._reporter
            )
        return normalise(self._vectors(self._forward, pixels), self.space.gallery_model)


def _choose_output(backbone: Backbone, pooling: str, head: bool | None) -> str:
    """Change the network so that it gives the vectors asked for; what the embedding space keeps of that."""
    network: Any = backbone.network
    if head and not backbone.projects:
        raise BadInputError(f"`gallery_head`: timm:{backbone.name} has no projection: its vectors are its features")
    if head and pooling:
        raise BadInputError(f"`gallery_pooling` {pooling}: goes with features, and `gallery_head` is what follows them")
    if head or (head is None and backbone.projects and not pooling):
        return HEAD
    own = _own_pooling(network)
    try:
        network.reset_classifier(0, *filter(None, [pooling]))
    except Exception as error:
        raise BadInputError(
            f"`gallery_pooling` {pooling}: timm:{backbone.name} cannot pool so: {first_line(error)}"
        ) from None
    return "" if pooling == own else pooling


def _own_pooling(network: Any) -> str:
    """timm's name of the pooling that the network comes with; "" where it has none."""
    for holder in (network, getattr(network, "head", None)):
        pooling = getattr(holder, "global_pool", None)
        if pooling is not None:
            return pooling if isinstance(pooling, str) else str(getattr(pooling, "pool_type", ""))
    return ""
