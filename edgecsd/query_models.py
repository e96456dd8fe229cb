"""Query models: backbone -> pooling -> projection -> L2, and the folder they are saved in."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgecsd.backbones import create_backbone, to_input
from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.files import read_json, replace_whole, write_json
from edgecsd.gallery_models import Floats, Pixels
from edgecsd.preprocess import Interpolation, Preprocess, Resize, validation_text
from edgecsd.space import EmbeddingSpace
from edgecsd.weights import weights_digest

SCHEMA_VERSION = 1
EPSILON = 1e-4  # after scaling by the maximum: the smallest value that fp16 does not lose (1e-6 becomes 0 when squared)


class Pooling(StrEnum):
    """How a (C, h, w) feature map becomes (C,)."""

    AVERAGE = "average"
    GEM = "gem"


class QueryModelConfig(BaseModel):
    """What a query model is made of, and the space it embeds into: query_model.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    backbone: str
    pooling: Pooling = Pooling.GEM
    gem_p: Annotated[float, Field(ge=1, le=10)] = 3.0
    width: Annotated[int, Field(ge=1)]
    preprocess: Preprocess
    space: EmbeddingSpace
    weights_digest: str = ""

    @property
    def dim(self) -> int:
        return self.space.dim


def scaled_l2(vectors: Tensor) -> Tensor:
    """(B, D) -> (B, D) unit length, safe in fp16.

    Squares of a 2048-d vector overflow 65504 or vanish; so divide by the largest magnitude first and take the mean of
    squares, not their sum: |v| = max * sqrt(D * mean((v / max)^2)).
    """
    largest = vectors.abs().amax(dim=1, keepdim=True).clamp_min(EPSILON)
    scaled = vectors / largest
    # One entry is 1, so the mean is at least 1 / D. The floor keeps a zero vector zero, even without subnormals.
    root = (scaled * scaled).mean(dim=1, keepdim=True).clamp_min(0.25 / vectors.shape[1]).sqrt()
    length: Tensor = root * vectors.shape[1] ** 0.5
    return scaled / length


def scaled_gem(maps: Tensor, power: float) -> Tensor:
    """(B, C, h, w) -> (B, C): generalised mean (Radenovic et al., TPAMI 2018), safe in fp16.

    x^3 overflows above 40.3 in fp16; each channel is divided by its own maximum first. Negative values count as 0.
    """
    positive = maps.clamp_min(0.0)
    largest = positive.amax(dim=(2, 3), keepdim=True).clamp_min(EPSILON)
    scaled = positive / largest
    raised = scaled * scaled * scaled if power == 3.0 else scaled.clamp_min(EPSILON).pow(power)
    mean = raised.mean(dim=(2, 3)).clamp_min(EPSILON)
    return mean.pow(1.0 / power) * largest.flatten(1)


class QueryModel(nn.Module):
    """(B, 3, S, S) normalised float -> (B, dim), L2-normalised.

    `pooled` gives the (B, width) features in front of the projection; `project` turns those into embeddings.
    """

    def __init__(self, backbone: nn.Module, config: QueryModelConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Linear(config.width, config.dim)
        self.config = config

    def pooled(self, images: Tensor) -> Tensor:
        maps: Tensor = self.backbone.forward_features(images)  # type: ignore[operator]
        if self.config.pooling is Pooling.GEM:
            return scaled_gem(maps, self.config.gem_p)
        return maps.mean(dim=(2, 3))

    def project(self, pooled: Tensor) -> Tensor:
        return scaled_l2(self.projection(pooled))

    def forward(self, images: Tensor) -> Tensor:
        return self.project(self.pooled(images))

    def embed(self, pixels: Pixels) -> Floats:
        """(B, S, S, 3) uint8 made by config.preprocess -> (B, dim) float32, in eval mode."""
        training = self.training
        self.eval()
        with torch.inference_mode():
            images = to_input(pixels, self.config.preprocess).to(self.projection.weight.device)
            vectors: Floats = self(images).float().cpu().numpy()
        self.train(training)
        return vectors


class QueryModelEmbedder:
    """A query model as an Embedder: its pixel contract, dimension and `embed`."""

    def __init__(self, model: QueryModel) -> None:
        self.preprocess, self.dim, self.embed = model.config.preprocess, model.config.dim, model.embed


def create_query_model(
    name: str,
    space: EmbeddingSpace,
    *,
    weights: Path | None = None,
    pooling: Pooling = Pooling.GEM,
    gem_p: float = 3.0,
    preprocess: Preprocess | None = None,
    size: int | None = None,
    resize: Resize | None = None,
    pretrained: bool = True,
) -> QueryModel:
    """A new query model for `space`: pretrained backbone, untrained projection (seed torch first).

    preprocess: its pixel contract; by default the geometry of the gallery model's contract, so that both see the same
    part of a photo, at the backbone's own size (or `size`), mean and std, with the bilinear filter phones have.
    """
    backbone = create_backbone(name, weights=weights, pretrained=pretrained)
    contract = preprocess or _matching_contract(backbone.natural, space.preprocess)
    if size is not None:
        contract = contract.at_size(size)
    if resize is not None:
        contract = contract.model_copy(update={"resize": resize})
    config = QueryModelConfig(
        backbone=name, pooling=pooling, gem_p=gem_p, width=backbone.width, preprocess=contract, space=space
    )
    return QueryModel(backbone.network, config).eval()


def _matching_contract(natural: Preprocess, gallery: Preprocess | None) -> Preprocess:
    geometry = gallery or natural
    bilinear = Interpolation.BILINEAR
    return natural.model_copy(
        update={"resize": geometry.resize, "crop_pct": geometry.crop_pct, "interpolation": bilinear}
    )


def save_query_model(model: QueryModel, folder: Path) -> QueryModelConfig:
    """Write query_model.safetensors and query_model.json (last, so that its presence means both are whole)."""
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    config = model.config.model_copy(update={"weights_digest": weights_digest(state)})
    with replace_whole(folder / "query_model.safetensors") as temporary:
        save_file(state, temporary)
    write_json(folder / "query_model.json", config.model_dump(mode="json"))
    return config


def read_config(folder: Path) -> QueryModelConfig:
    """query_model.json of a run folder."""
    if not (folder / "query_model.json").is_file():
        hint = "; its training did not end: run distill again to go on" if (folder / "run.json").is_file() else ""
        raise BadInputError(f"{folder}: no query model in it (query_model.json is missing){hint}")
    data = read_json(folder / "query_model.json")
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
        raise DamagedFileError(f"{folder}/query_model.json: schema_version {SCHEMA_VERSION} is expected")
    try:
        return QueryModelConfig.model_validate(data)
    except ValidationError as error:
        raise DamagedFileError(f"{folder}/query_model.json: {validation_text(error)}") from None


def load_query_model(folder: Path) -> QueryModel:
    """The query model of a run folder, in eval mode; its weights are compared with their digest."""
    config = read_config(folder)
    try:
        state = load_file(folder / "query_model.safetensors")
    except Exception as error:  # safetensors raises its own type
        raise DamagedFileError(f"{folder}/query_model.safetensors: {error}") from None
    if weights_digest(state) != config.weights_digest:
        raise DamagedFileError(f"{folder}/query_model.safetensors: not the weights that query_model.json names")
    backbone = create_backbone(config.backbone, pretrained=False)
    model = QueryModel(backbone.network, config)
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise DamagedFileError(f"{folder}: query_model.json describes another network than its weights") from None
    return model.eval()
