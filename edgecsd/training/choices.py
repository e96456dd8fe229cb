"""Names that settings, options and files of a distillation share: losses, terms, anchors, held-out photos. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class AnchorKind(StrEnum):
    """Where an image's anchors come from."""

    TOPK = "topk"  # its K nearest gallery features, without the image itself
    RANDOM = "random"  # K gallery features drawn for each image, without the image itself
    FIXED = "fixed"  # one random draw for all images; each leaves itself out
    CODEBOOK = "codebook"  # K spherical k-means centroids of the gallery, the same for all images


class Mining(StrEnum):
    """How the nearest gallery features are found."""

    EXACT = "exact"  # every vector against the whole gallery, in blocks
    IVF = "ivf"  # through inverted lists (faiss); the recall is measured and reported
    IVF_PQ = "ivf-pq"  # the same with compressed vectors, whose best are compared anew: a 16th of the disk


class Order(StrEnum):
    """The terms of csd_kl, csd_l2 and csd_l1, as section 3.3 of their paper splits them."""

    BOTH = "both"
    FIRST = "first"  # the entry of g itself: q stays near g
    SECOND = "second"  # the K neighbours: q sees them as g does

    @property
    def entries(self) -> slice:
        """The columns of a (B, K + 1) matrix of similarities that this order uses in the distance losses."""
        return {Order.BOTH: slice(None), Order.FIRST: slice(0, 1), Order.SECOND: slice(1, None)}[self]


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


class HeldOutBy(StrEnum):
    """What is held out from training, and so what a run is judged by (docs/decisions/0013)."""

    KINDS = "kinds"  # whole clusters of the gallery space: queries may show what no training photo does
    PHOTOS = "photos"  # single photos: the training photos are the gallery, or of all the kinds that it holds


class Init(StrEnum):
    """How the projection starts."""

    CLOSED_FORM = "closed-form"  # Procrustes or ridge regression, chosen by retrieval on held-out images
    RANDOM = "random"


class Loss(StrEnum):
    """The label-free losses: one file each in edgecsd/losses/."""

    CSD_KL = "csd-kl"
    CSD_L2 = "csd-l2"
    CSD_L1 = "csd-l1"
    REGRESSION = "regression"
    SSP = "ssp"
    ROP = "rop"
    D3STILL = "d3still"
    RAML = "raml"


CONTEXTUAL_LOSSES = frozenset({Loss.CSD_KL, Loss.CSD_L2, Loss.CSD_L1})
ANCHORED_LOSSES = CONTEXTUAL_LOSSES | {Loss.ROP, Loss.D3STILL}


class TrainPrecision(StrEnum):
    """Arithmetic of the training loop (Lightning Fabric's names)."""

    FP32 = "32-true"
    BF16 = "bf16-mixed"
