"""Query models: backbone -> pooling -> projection -> L2, and the folder they are saved in."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.files.whole import replace_whole, write_json
from edgecsd.models.backbones import create_backbone, feature_map, to_input
from edgecsd.models.gallery.model import Floats, Pixels
from edgecsd.models.multi_scale import SINGLE_SCALE, multi_scale, scaled_sides
from edgecsd.models.pooling import Pool, scaled_l2
from edgecsd.models.query_config import SCHEMA_VERSION, Pooling, ProjectionKind, QueryModelConfig, read_config
from edgecsd.models.weights import weights_digest
from edgecsd.photos.contract import Interpolation, Preprocess, Resize


class QueryModel(nn.Module):
    """(B, 3, S, S) normalised float -> (B, dim), L2-normalised.

    `pooled` gives what the head starts from, which the head stage caches: (B, pooled_width) features, or the whole
    feature map (B, width, h, w) where something learnt stands in front of the pooling (`head_takes_maps`). `project`
    turns it into embeddings.
    """

    def __init__(self, backbone: nn.Module, config: QueryModelConfig, *, learn_power: bool = False) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        self.bottleneck: nn.Conv2d | None = None
        inputs = config.pooled_width
        if config.projection is ProjectionKind.BOTTLENECK:
            self.bottleneck, inputs = nn.Conv2d(config.width, config.dim, 1), config.pooling.width(config.dim)
        self.pool = Pool(config.pooling, config.gem_p, learned=learn_power and config.pooling.has_power)
        none = config.projection is ProjectionKind.NONE
        self.projection: nn.Linear | nn.Identity = nn.Identity() if none else nn.Linear(inputs, config.dim)

    @property
    def head_takes_maps(self) -> bool:
        """Whether the head starts from the feature map rather than from pooled features."""
        return self.bottleneck is not None or isinstance(self.pool.power, nn.Parameter)

    def pooled(self, images: Tensor) -> Tensor:
        if self.config.pooling is Pooling.PRETRAINED:
            own: Tensor = self.backbone(images)
            return own
        maps = feature_map(self.backbone, images)
        return maps if self.head_takes_maps else self.pool(maps)

    def hidden(self, pooled: Tensor) -> Tensor:
        """What the linear projection is applied to: (B, pooled_width), or unit vectors behind a bottleneck."""
        if self.bottleneck is not None:
            return scaled_l2(self.pool(self.bottleneck(pooled).relu()))
        features: Tensor = self.pool(pooled) if self.head_takes_maps else pooled
        return features

    def project(self, pooled: Tensor) -> Tensor:
        return scaled_l2(self.projection(self.hidden(pooled)))

    def forward(self, images: Tensor) -> Tensor:
        return self.project(self.pooled(images))

    def head_parameters(self) -> list[nn.Parameter]:
        """Everything that is learnt behind the backbone."""
        return [p for name, p in self.named_parameters() if not name.startswith("backbone.")]

    def head_state(self) -> dict[str, Tensor]:
        """The weights of everything behind the backbone."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("backbone.")}

    def load_head_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `head_state` gave."""
        self.load_state_dict({**self.state_dict(), **state})

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def embed(self, pixels: Pixels, scales: tuple[float, ...] = SINGLE_SCALE) -> Floats:
        """(B, S, S, 3) uint8 made by config.preprocess -> (B, dim) float32, in eval mode.

        scales: the mean of the embeddings of the input at these scales (edgecsd.models.multi_scale), of unit length.
        """
        training = self.training
        self.eval()
        with torch.inference_mode():
            images = to_input(pixels, self.config.preprocess).to(self.device)
            embedded = self(images) if scales == SINGLE_SCALE else multi_scale(self, images, scales)
            vectors: Floats = embedded.float().cpu().numpy()
        self.train(training)
        return vectors


class QueryModelEmbedder:
    """A query model as an Embedder: its pixel contract, dimension and `embed`, at one scale or several."""

    def __init__(self, model: QueryModel, scales: tuple[float, ...] = SINGLE_SCALE) -> None:
        """Raises BadInputError for a scale that makes an input no network is meant for."""
        self.preprocess, self.dim = model.config.preprocess, model.config.dim
        scaled_sides(self.preprocess.size, scales, "the query model")
        self.embed = partial(model.embed, scales=scales)


def create_query_model(
    name: str,
    space: EmbeddingSpace,
    *,
    weights: Path | None = None,
    pooling: Pooling | None = None,
    gem_p: float | None = None,
    learn_power: bool = False,
    projection: ProjectionKind = ProjectionKind.LINEAR,
    preprocess: Preprocess | None = None,
    size: int | None = None,
    resize: Resize | None = None,
    pretrained: bool = True,
) -> QueryModel:
    """A new query model for `space`: pretrained backbone, untrained projection (seed torch first).

    pooling: by default average where the feature map is about as much negative as positive, of which GeM would lose the
    half; GeM for the others, and where its power p is given or learnt.
    gem_p: p of GeM, by default 3.
    preprocess: its pixel contract; by default the geometry of the gallery model's contract, so that both see the same
    part of a photo, at the backbone's own size (or `size`), mean and std, with the bilinear filter phones have.
    """
    backbone = create_backbone(name, weights=weights, pretrained=pretrained)
    contract = preprocess or _matching_contract(backbone.natural, space.preprocess)
    if size is not None:
        contract = contract.at_size(size)
    if resize is not None:
        contract = contract.model_copy(update={"resize": resize})
    contract.require_square("a query model")
    backbone.require_size(contract.size, contract.size)
    own = pooling is Pooling.PRETRAINED
    if own and projection is ProjectionKind.BOTTLENECK:
        raise BadInputError("`projection` bottleneck: begins at the feature map, and `pooling` pretrained leaves none")
    width = backbone.pooled_width if own else backbone.width
    if pooling is None:
        positive = projection is ProjectionKind.BOTTLENECK  # behind its ReLU
        average = gem_p is None and not learn_power and not positive and backbone.signed
        pooling = Pooling.AVERAGE if average else Pooling.GEM
    pooled = pooling.width(width)
    if projection is ProjectionKind.NONE and pooled != space.dim:
        raise BadInputError(
            f"`projection` none: {name} gives {pooled} pooled values and the gallery has {space.dim} dimensions; "
            f"use linear or bottleneck"
        )
    config = QueryModelConfig(
        backbone=name,
        pooling=pooling,
        gem_p=3.0 if gem_p is None else gem_p,
        projection=projection,
        width=width,
        preprocess=contract,
        space=space,
    )
    model = QueryModel(backbone.network, config, learn_power=learn_power).eval()
    if model.bottleneck is not None:
        _start_bottleneck(model.bottleneck)
    return model


def _start_bottleneck(convolution: nn.Conv2d) -> None:
    """Orthonormal rows or columns and no bias: the closed-form projection behind it starts from all that goes in.

    With as many channels as dimensions it is the identity, so that features of a ReLU network pass it unchanged.
    """
    with torch.no_grad():
        square = convolution.in_channels == convolution.out_channels
        (nn.init.dirac_ if square else nn.init.orthogonal_)(convolution.weight)
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]


def _matching_contract(natural: Preprocess, gallery: Preprocess | None) -> Preprocess:
    """The gallery's geometry in one step; under one that keeps the whole photo the phone squashes it."""
    geometry = gallery or natural
    resize = geometry.resize.for_phones
    return natural.model_copy(
        update={"resize": resize, "crop_pct": geometry.crop_pct, "interpolation": Interpolation.BILINEAR}
    )


def save_query_model(model: QueryModel, folder: Path) -> QueryModelConfig:
    """Write query_model.safetensors and query_model.json (last, so that its presence means both are whole)."""
    # A learnt p of GeM is saved as the number that it became, in the JSON.
    state = {n: t.detach().contiguous() for n, t in model.state_dict().items() if n != "pool.power"}
    learnt = {"gem_p": model.pool.current_power, "weights_digest": weights_digest(state)}
    config = model.config.model_copy(update={**learnt, "schema_version": SCHEMA_VERSION})
    with replace_whole(folder / "query_model.safetensors") as temporary:
        save_file(state, temporary)
    write_json(folder / "query_model.json", config.model_dump(mode="json"))
    return config


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
