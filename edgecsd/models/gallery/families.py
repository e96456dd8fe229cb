"""Families of gallery models in timm's own registry, and what is known of a model before its weights are fetched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch

from edgecsd.errors import missing_extra
from edgecsd.models.catalogue import NOT_STATED

try:
    import timm
except ImportError:
    raise missing_extra("timm", "train") from None

IMAGENET_CLASSES, MOST_PROJECTED = 1000, 2048  # timm's projections have 384 to 1280 outputs
# By name and tag; a model belongs to the first that it matches. Classifiers made of them (_ft_) are no gallery models.
FAMILIES = {
    "SigLIP 2": r"siglip.*\.v2_webli",
    "SigLIP": r"siglip",
    "MobileCLIP": r"mclip|mobileclip",
    "PE-Core": r"^vit_pe_core",
    "DINOv3": r"dinov3",
    "DINOv2": r"dinov2\.lvd142m",
    "AIMv2": r"^aimv2",
    "EVA": r"^eva",
    "CLIP": r"clip|\.(openai|laion|datacomp|dfn|metaclip)|_laion",
    "ConvNeXt": r"^convnext",
}


@dataclass(frozen=True)
class GalleryFamily:
    """names: NAME.TAG of timm, as `gallery_model` timm:NAME.TAG takes them; licences: of their weights."""

    name: str
    names: tuple[str, ...]
    licences: tuple[str, ...]


@dataclass(frozen=True)
class GalleryFacts:
    """What timm knows of a model without its weights.

    dim         of the vector that timm pools
    projected   dimensions of the space shared with text, of a tower of CLIP; None of others
    size        side of its input, pixels
    parameters  without a classifier
    licence     of the weights, as timm states it
    """

    name: str
    family: str
    dim: int
    projected: int | None
    size: int
    parameters: int
    licence: str


def gallery_families() -> list[GalleryFamily]:
    """The families of which timm has pretrained weights, each with its models."""
    left = [name for name in timm.list_pretrained() if "_ft_" not in name]
    found = []
    for family, pattern in FAMILIES.items():
        names = tuple(name for name in left if re.search(pattern, name))
        left = [name for name in left if name not in names]
        if names:
            found.append(GalleryFamily(family, names, _licences(names)))
    return found


def gallery_facts(family: GalleryFamily) -> list[GalleryFacts]:
    """Of each of its models, the smallest first. The networks are built, without memory for weights (0.3 s each)."""
    found = []
    for name in family.names:
        config = _config(name)
        with torch.device("meta"):
            network: Any = timm.create_model(name, num_classes=0)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        classes = int(config.num_classes or 0)
        found.append(
            GalleryFacts(
                name=name,
                family=family.name,
                dim=int(network.num_features),
                projected=classes if 0 < classes < MOST_PROJECTED and classes != IMAGENET_CLASSES else None,
                size=int(config.input_size[-1]),
                parameters=parameters,
                licence=config.license or NOT_STATED,
            )
        )
    return sorted(found, key=lambda facts: facts.parameters)


def _licences(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({_config(name).license or NOT_STATED for name in names}))


def _config(name: str) -> Any:  # one there is: timm lists the name
    return timm.get_pretrained_cfg(name)
