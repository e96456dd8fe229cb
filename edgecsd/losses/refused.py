"""Methods of the field that are not offered, and why: they need more than gallery features. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "hvs": (
            "needs labelled images and the gallery model's classifier, whose weights it freezes "
            "(Duggal et al.: Compatibility-aware Heterogeneous Visual Search, CVPR 2021)"
        ),
        "lce": (
            "needs labelled images and the class centres of the gallery model's classifier "
            "(Meng et al.: Learning Compatible Embeddings, ICCV 2021)"
        ),
        "bct": (
            "needs labelled images and the gallery model's classifier for its influence loss "
            "(Shen et al.: Towards Backward-Compatible Representation Learning, CVPR 2020, arXiv 2003.11942)"
        ),
        "aff": (
            "needs labelled images for its classifier, and re-indexes the gallery with a learned mixture of several "
            "features (Wu et al.: Asymmetric Feature Fusion for Image Retrieval, CVPR 2023, arXiv 2403.00671)"
        ),
        "ugd": (
            "needs labelled images, the gallery model's classifier and its feature maps while training "
            "(Unambiguous granularity distillation for asymmetric image retrieval, Neural Networks 2025)"
        ),
    }
)
"""Name of the method -> what it needs that edgecsd does not have, with its paper."""
