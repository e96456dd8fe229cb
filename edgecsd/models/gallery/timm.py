"""A gallery model from timm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgecsd.errors import BadInputError
from edgecsd.models.backbones import create_backbone, to_input
from edgecsd.models.frozen_forward import Engine, frozen_forward
from edgecsd.models.gallery.model import Floats, Pixels, named_space, normalise
from edgecsd.models.multi_scale import SINGLE_SCALE, multi_scale, scaled_sides
from edgecsd.models.weights import weights_digest
from edgecsd.photos.contract import Preprocess
from edgecsd.progress import SILENT, Reporter


class TimmGalleryModel:
    """What a timm network gives without its classifier, L2-normalised; at several scales, the mean of theirs.

    Any image network: convolutional, vision transformer or hybrid, pooled as timm pools it (`num_classes=0`). The
    towers of CLIP keep their projection in the classifier: these vectors are those in front of it.
    """

    def __init__(
        self,
        name: str,
        weights: Path | None,
        size: int | None,
        preprocess: Preprocess | None,
        scales: tuple[float, ...] = SINGLE_SCALE,
    ) -> None:
        backbone = create_backbone(name, weights=weights)
        if preprocess is None and backbone.unlike:
            raise BadInputError(f"timm:{name}: {backbone.unlike}, which no pixel contract does; give `preprocess`")
        self._network, self._scales = backbone.network, scales
        self._images, self._engine = 0, Engine.AUTO
        self._reporter: Reporter = SILENT
        self._forward: Callable[[Tensor], Tensor] | None = None
        self.preprocess = preprocess or backbone.natural.at_size(size or backbone.natural.size)
        scaled_sides(self.preprocess.size, scales, f"timm:{name}")
        size = self.preprocess.size
        backbone.require_size(size, size if self.preprocess.one_size else size * 3 // 4)
        probe = np.zeros((1, size, size, 3), np.uint8)
        digest = weights_digest(self._network.state_dict())
        self.space = named_space(
            f"timm:{name}", digest, self.preprocess, self._vectors(self._network, probe).shape[1], scales
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
                pooled = forward(batch).float().flatten(1)
            else:
                pooled = multi_scale(forward, batch, self._scales)
        vectors: Floats = pooled.numpy()
        return vectors

    def embed(self, pixels: Pixels) -> Floats:
        if self._forward is None:  # not before it is needed: what is whole already needs none
            size = self.preprocess.size
            self._forward = frozen_forward(
                self._network, size, self._images, engine=self._engine, reporter=self._reporter
            )
        return normalise(self._vectors(self._forward, pixels), self.space.gallery_model)
