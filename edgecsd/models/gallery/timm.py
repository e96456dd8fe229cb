"""A gallery model from timm."""

from __future__ import annotations

from typing import Any

from edgecsd.errors import BadInputError, first_line
from edgecsd.models.backbones import Backbone, create_backbone, timm_version
from edgecsd.models.gallery.model import HEAD, GalleryOptions
from edgecsd.models.gallery.torch_network import TorchGalleryModel, gives_head


class TimmGalleryModel(TorchGalleryModel):
    """What a timm network gives.

    Any image network: convolutional, vision transformer or hybrid. The vector is the features as timm pools them
    (`num_classes=0`). The towers of CLIP, MobileCLIP and PE-Core keep their projection in the classifier: theirs is
    what it gives, as published.
    """

    def __init__(self, name: str, options: GalleryOptions) -> None:
        backbone = create_backbone(name, weights=options.weights, classifier=True)
        output = _choose_output(backbone, options.pooling, options.head)
        preprocess = options.preprocess or backbone.contract(options.size)
        size = preprocess.size
        backbone.require_size(size, size if preprocess.one_size else size * 3 // 4)
        library = f"timm {timm_version()}"
        super().__init__(f"timm:{name}", backbone.network, preprocess, options.scales, output, library)


def _choose_output(backbone: Backbone, pooling: str, head: bool | None) -> str:
    """Change the network so that it gives the vectors asked for; what the embedding space keeps of that."""
    name = f"timm:{backbone.name}"
    if gives_head(name, backbone.projects, pooling, head):
        return HEAD
    return pool_features(backbone.network, name, pooling)


def pool_features(network: Any, name: str, pooling: str) -> str:
    """Take the classifier from a timm network and pool its features so; "" where it does by itself, else `pooling`."""
    own = _own_pooling(network)
    try:
        network.reset_classifier(0, *filter(None, [pooling]))
    except Exception as error:
        raise BadInputError(f"`gallery_pooling` {pooling}: {name} cannot pool so: {first_line(error)}") from None
    return "" if pooling == own else pooling


def _own_pooling(network: Any) -> str:
    """timm's name of the pooling that the network comes with; "" where it has none."""
    for holder in (network, getattr(network, "head", None)):
        pooling = getattr(holder, "global_pool", None)
        if pooling is not None:
            return pooling if isinstance(pooling, str) else str(getattr(pooling, "pool_type", ""))
    return ""
