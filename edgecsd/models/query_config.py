"""The kinds of heads, what stands between a feature map and the embedding: names alone, without the networks."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecsd.errors import BadInputError, DamagedFileError, validation_text
from edgecsd.features.space import EmbeddingSpace
from edgecsd.files.whole import read_json
from edgecsd.photos.contract import Preprocess


class Pooling(StrEnum):
    """How a (C, h, w) feature map becomes (C,), or (2C,)."""

    AVERAGE = "average"
    GEM = "gem"
    GEM_AVERAGE = "gem+average"  # both, each divided by its root mean square, one behind the other
    PRETRAINED = "pretrained"  # the network's own, and what stands between that and its classifier

    @property
    def has_power(self) -> bool:
        """Whether there is an exponent p in it."""
        return self in (Pooling.GEM, Pooling.GEM_AVERAGE)

    def width(self, channels: int) -> int:
        """How many values a map of so many channels becomes."""
        return 2 * channels if self is Pooling.GEM_AVERAGE else channels


class ProjectionKind(StrEnum):
    """What stands between the backbone's feature map and the embedding."""

    LINEAR = "linear"  # pooling, linear C -> D
    BOTTLENECK = "bottleneck"  # 1x1 convolution C -> D, ReLU, pooling, L2, linear D -> D
    NONE = "none"  # pooling only: C must be D


SCHEMA_VERSION = 4
READABLE_VERSIONS = (1, 2, 3, 4)  # 1: linear projections only; 2: one kind of pooling at a time; 3: not the pretrained


class QueryModelConfig(BaseModel):
    """What a query model is made of, and the space it embeds into: query_model.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    backbone: str
    pooling: Pooling = Pooling.GEM
    gem_p: Annotated[float, Field(ge=1, le=10)] = 3.0
    projection: ProjectionKind = ProjectionKind.LINEAR
    width: Annotated[int, Field(ge=1)]  # channels of the backbone's feature map; of its own vector where that is pooled
    preprocess: Preprocess
    space: EmbeddingSpace
    weights_digest: str = ""

    @property
    def dim(self) -> int:
        return self.space.dim

    @property
    def pooled_width(self) -> int:
        """Values that the backbone's feature map is pooled into."""
        return self.pooling.width(self.width)


def read_config(folder: Path) -> QueryModelConfig:
    """query_model.json of a run folder."""
    if not (folder / "query_model.json").is_file():
        hint = "; its training did not end: run distill again to go on" if (folder / "run.json").is_file() else ""
        raise BadInputError(f"{folder}: no query model in it (query_model.json is missing){hint}")
    data = read_json(folder / "query_model.json")
    if not isinstance(data, dict) or data.get("schema_version") not in READABLE_VERSIONS:
        raise DamagedFileError(f"{folder}/query_model.json: schema_version {SCHEMA_VERSION} is expected")
    try:
        return QueryModelConfig.model_validate(data)
    except ValidationError as error:
        raise DamagedFileError(f"{folder}/query_model.json: {validation_text(error)}") from None
