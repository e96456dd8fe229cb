"""How many directions a query model can use, and does: too few are a network that gives nothing to search by."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.models.query import QueryModel
from edgecsd.models.query_config import Pooling, ProjectionKind

FEW_DIRECTIONS = 8  # what an axis mistaken for channels gives: 7 or 8
NO_DIRECTION = 1e-3  # of the largest singular value
MOST_LOOKED_AT = 256  # photos
Floats = NDArray[np.float32]


def narrow(model: QueryModel) -> str | None:
    """What is lost where the pooled features have fewer values than the gallery's vectors, and the way out; or None."""
    config = model.config
    if config.pooled_width >= config.dim or config.projection is ProjectionKind.BOTTLENECK:
        return None
    lost = f"{config.backbone} gives {config.pooled_width} values, and the gallery has {config.dim} dimensions"
    own = 0 if config.pooling is Pooling.PRETRAINED else _own_width(model)
    if own > config.pooled_width:
        return f"{lost}: `pooling` pretrained gives {own} values"
    return f"{lost}: a wider backbone keeps more"


def _own_width(model: QueryModel) -> int:
    """Values that the network itself pools into, with what stands between its pooling and its classifier."""
    size = model.config.preprocess.size
    with torch.inference_mode():
        return int(model.backbone(torch.zeros(1, 3, size, size)).shape[-1])


def require_directions(embeddings: Floats, backbone: str) -> None:
    """Raise BadInputError where the (n, dim) embeddings of many photos lie along a few directions only."""
    photos, dim = min(len(embeddings), MOST_LOOKED_AT), embeddings.shape[1]
    few = min(FEW_DIRECTIONS, dim // 2)
    if photos < 2 * FEW_DIRECTIONS:
        return
    values = np.linalg.svd(embeddings[:photos] - embeddings[:photos].mean(axis=0), compute_uv=False)
    found = int((values > NO_DIRECTION * values[0]).sum())
    if found <= few:
        raise BadInputError(
            f"the embeddings of {photos} photos differ along {found} directions only: {backbone} gives no features to "
            f"search by; are its `weights` trained? Else choose another `query_model`, or `pooling` pretrained"
        )
