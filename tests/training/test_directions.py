"""Too few directions: what is refused, and what is warned of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgecsd.errors import BadInputError
from edgecsd.features.exact import unit
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.query import create_query_model
from edgecsd.models.query_config import Pooling, ProjectionKind
from edgecsd.training.directions import narrow, require_directions


def embeddings(rank: int, count: int = 300, dim: int = 64) -> np.ndarray:
    random = np.random.default_rng(0)
    return unit((random.normal(size=(count, rank)) @ random.normal(size=(rank, dim))).astype(np.float32))


def test_embeddings_along_a_few_directions_are_refused() -> None:
    with pytest.raises(BadInputError, match="of 256 photos differ along 7 directions only: swin gives no features"):
        require_directions(embeddings(7), "swin")
    require_directions(embeddings(12), "swin")
    require_directions(embeddings(7, count=12), "swin")  # too few photos to know
    require_directions(embeddings(6, dim=8), "swin")  # most of the directions that there are


def test_features_narrower_than_the_gallery_are_warned_of_with_the_way_out() -> None:
    torch.manual_seed(0)
    space = EmbeddingSpace(gallery_model="g", dim=600)

    def problem(name: str, **options: object) -> str | None:
        return narrow(create_query_model(name, space, size=64, pretrained=False, **options))  # type: ignore[arg-type]

    said = problem("mobilenetv3_small_050")
    assert str(said).startswith("mobilenetv3_small_050 gives 288 values, and the gallery has 600 dimensions: ")
    assert str(said).endswith("`pooling` pretrained gives 1024 values")
    assert str(problem("test_byobnet")).endswith("a wider backbone keeps more")
    assert problem("mobilenetv3_small_050", pooling=Pooling.PRETRAINED) is None
    assert problem("mobilenetv3_small_050", projection=ProjectionKind.BOTTLENECK) is None
