"""Which anchors a distillation uses and how they are found: the names that settings, options and files share."""

from __future__ import annotations

from enum import StrEnum


class AnchorKind(StrEnum):
    """Where an image's anchors come from."""

    TOPK = "topk"  # its K nearest gallery features, without the image itself
    RANDOM = "random"  # K gallery features drawn for each image, without the image itself
    FIXED = "fixed"  # one random draw for all images; each leaves itself out
    CODEBOOK = "codebook"  # K spherical k-means centroids of the gallery, the same for all images


class Mining(StrEnum):
    """How the nearest gallery features are found."""

    EXACT = "exact"  # every vector against the whole gallery, in blocks
    IVF = "ivf"  # through inverted lists (faiss); the recall is measured and told
    IVF_PQ = "ivf-pq"  # the same with compressed vectors, whose best are compared anew: a 16th of the disk
