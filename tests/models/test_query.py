"""Query models: the whole network and its heads, and the folder a model is saved in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_pooling import plain_gem, plain_l2
from safetensors.torch import load_file, save_file

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.backbones import to_input
from edgecsd.models.query import QueryModel, create_query_model, load_query_model, save_query_model
from edgecsd.models.query_config import Pooling, ProjectionKind, read_config
from edgecsd.photos.contract import Interpolation, Preprocess, Resize

SPACE = EmbeddingSpace(gallery_model="acme-v7", preprocess=Preprocess(size=300), dim=24)
TINY = "test_efficientnet"  # timm's network for tests: 0.36 M parameters


# ------------------------------------------------------------------------------------------------------ model


def tiny(**options: object) -> QueryModel:
    torch.manual_seed(5)
    return create_query_model(TINY, SPACE, size=64, pretrained=False, **options)  # type: ignore[arg-type]


def pixels(count: int = 3) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("pooling", [Pooling.AVERAGE, Pooling.GEM, Pooling.GEM_AVERAGE])
def test_a_model_is_backbone_pooling_projection_l2(pooling: Pooling) -> None:
    model = tiny(pooling=pooling)
    images = (torch.from_numpy(pixels()).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    contract = model.config.preprocess
    assert contract.mean != (0.5, 0.5, 0.5)  # the network's own: so bring the batch to it
    images = (images * 0.5 + 0.5 - torch.tensor(contract.mean).view(3, 1, 1)) / torch.tensor(contract.std).view(3, 1, 1)
    with torch.inference_mode():
        maps = model.backbone.forward_features(images).double()  # type: ignore[operator]
        gem, average = plain_gem(maps, 3.0), maps.mean(dim=(2, 3))
        joined = torch.cat([part / part.square().mean(dim=1, keepdim=True).sqrt() for part in (gem, average)], dim=1)
        pooled = {Pooling.GEM: gem, Pooling.AVERAGE: average, Pooling.GEM_AVERAGE: joined}[pooling]
        weight, bias = model.projection.weight.double(), model.projection.bias.double()
        wanted = plain_l2(pooled @ weight.T + bias)
    result = model.embed(pixels())
    assert result.dtype == np.float32
    assert result.shape == (3, 24)
    assert np.abs(result - wanted.numpy()).max() < 1e-4


def test_the_contract_takes_the_gallerys_geometry_and_the_backbones_colours() -> None:
    space = SPACE.model_copy(
        update={"preprocess": Preprocess(size=300, resize=Resize.SHORTER_SIDE, crop_pct=0.9, mean=(0, 0, 0))}
    )
    contract = create_query_model(TINY, space, pretrained=False).config.preprocess
    assert (contract.resize, contract.crop_pct) == (Resize.SHORTER_SIDE, 0.9)
    assert contract.size == 160
    assert contract.mean == (0.485, 0.456, 0.406)
    own = Preprocess(size=48, interpolation=Interpolation.BICUBIC)
    assert create_query_model(TINY, space, preprocess=own, pretrained=False).config.preprocess == own


def test_embedding_leaves_the_training_mode_as_it_was() -> None:
    model = tiny()
    model.train()
    before = model.backbone.bn1.running_mean.clone()  # type: ignore[union-attr]
    model.embed(pixels())
    assert model.training
    assert torch.equal(model.backbone.bn1.running_mean, before)  # type: ignore[union-attr]


def test_the_whole_model_runs_in_half_precision() -> None:
    model = tiny()
    exact = model.embed(pixels())
    images = to_input(pixels(), model.config.preprocess).half()
    with torch.inference_mode():
        result = model.half()(images).float().numpy()
    assert (exact * result).sum(axis=1).min() > 0.999


def test_a_bottleneck_is_convolution_relu_pooling_l2_projection() -> None:
    """The authors' head: 1x1 convolution to D, ReLU, GeM, L2, linear D to D, L2."""
    model = tiny(projection=ProjectionKind.BOTTLENECK)
    torch.nn.init.normal_(model.bottleneck.weight, std=0.1)
    images = to_input(pixels(), model.config.preprocess)
    with torch.inference_mode():
        maps = model.backbone.forward_features(images).double()  # type: ignore[operator]
        weight = model.bottleneck.weight.double()[:, :, 0, 0]
        mapped = torch.einsum("bchw,dc->bdhw", maps, weight) + model.bottleneck.bias.double().view(1, -1, 1, 1)
        hidden = plain_l2(plain_gem(mapped, 3.0))
        wanted = plain_l2(hidden @ model.projection.weight.double().T + model.projection.bias.double())
    assert model.head_takes_maps and model.pooled(images).ndim == 4
    assert np.abs(model.embed(pixels()) - wanted.numpy()).max() < 1e-4


def test_no_projection_is_pooling_and_l2() -> None:
    width = tiny().config.width
    space = SPACE.model_copy(update={"dim": width})
    model = create_query_model(TINY, space, size=64, pretrained=False, projection=ProjectionKind.NONE)
    with torch.inference_mode():
        wanted = plain_l2(model.pooled(to_input(pixels(), model.config.preprocess)))
    assert np.abs(model.embed(pixels()) - wanted.numpy()).max() < 1e-6
    with pytest.raises(BadInputError, match=f"gives {width} pooled values and the gallery has 24 dimensions"):
        tiny(projection=ProjectionKind.NONE)


@pytest.mark.parametrize("pooling", [Pooling.GEM, Pooling.GEM_AVERAGE])
def test_a_learnt_power_is_saved_as_the_number_it_became(pooling: Pooling, tmp_path: Path) -> None:
    model = tiny(pooling=pooling, learn_power=True)
    images = to_input(pixels(), model.config.preprocess)
    (gradient,) = torch.autograd.grad(model(images)[:, 0].sum(), [model.pool.power])
    assert gradient.abs().item() > 0
    model.pool.power.data.fill_(2.25)
    save_query_model(model, tmp_path)
    loaded = load_query_model(tmp_path)
    assert loaded.config.gem_p == 2.25 and not loaded.head_takes_maps
    assert np.abs(loaded.embed(pixels()) - model.embed(pixels())).max() < 1e-6


def test_a_folder_of_the_first_schema_is_read(tmp_path: Path) -> None:
    save_query_model(tiny(), tmp_path)
    description = json.loads((tmp_path / "query_model.json").read_text())
    del description["projection"]
    (tmp_path / "query_model.json").write_text(json.dumps({**description, "schema_version": 1}))
    assert np.array_equal(load_query_model(tmp_path).embed(pixels()), tiny().embed(pixels()))


# ------------------------------------------------------------------------------------------------- run folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_query_model(tiny(), tmp_path / "run")
    return tmp_path / "run"


def test_a_saved_model_embeds_as_before(run: Path) -> None:
    model, loaded = tiny(), load_query_model(run)
    assert np.array_equal(loaded.embed(pixels()), model.embed(pixels()))
    assert not loaded.training
    assert loaded.config.space == SPACE
    assert loaded.config == read_config(run)
    assert len(loaded.config.weights_digest) == 64
    assert sorted(p.name for p in run.iterdir()) == ["query_model.json", "query_model.safetensors"]


def test_changed_weights_are_refused(run: Path) -> None:
    state = load_file(run / "query_model.safetensors")
    state["projection.bias"][0] += 1e-3
    save_file(state, run / "query_model.safetensors")
    with pytest.raises(DamagedFileError, match=r"not the weights that query_model\.json names"):
        load_query_model(run)


def test_weights_without_their_new_json_are_refused(run: Path) -> None:
    """What an interrupted second save leaves."""
    torch.manual_seed(6)
    other = create_query_model(TINY, SPACE, size=64, pretrained=False)
    save_file({n: t.contiguous() for n, t in other.state_dict().items()}, run / "query_model.safetensors")
    with pytest.raises(DamagedFileError, match="not the weights"):
        load_query_model(run)


@pytest.mark.parametrize("content", [None, b"", b"words"])
def test_absent_or_broken_weights_are_named(run: Path, content: bytes | None) -> None:
    (run / "query_model.safetensors").unlink()
    if content is not None:
        (run / "query_model.safetensors").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"query_model\.safetensors"):
        load_query_model(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 5}, "schema_version 4 is expected"),
        ({"gem_p": 0.5}, "gem_p = 0.5"),
        ({"pooling": "max"}, "pooling = 'max'"),
        ({"unknown": 1}, "unknown = 1"),
        ({"width": 0}, "width = 0"),
        ({"width": 77}, "another network than its weights"),
        ({"backbone": "mobilenetv3_small_050"}, "another network than its weights"),
        ({"backbone": "no_such_network"}, "timm has no model 'no_such_network'"),
        ({"weights_digest": "0" * 64}, "not the weights"),
    ],
)
def test_a_changed_description_is_refused(run: Path, change: dict[str, object], message: str) -> None:
    description = json.loads((run / "query_model.json").read_text())
    (run / "query_model.json").write_text(json.dumps({**description, **change}))
    with pytest.raises(BadInputError, match=message):
        load_query_model(run)


def test_a_folder_without_a_model_says_what_to_do(run: Path) -> None:
    (run / "query_model.json").unlink()
    with pytest.raises(BadInputError, match=r"no query model in it .query_model\.json is missing.$"):
        read_config(run)
    (run / "run.json").touch()
    with pytest.raises(BadInputError, match="its training did not end: run distill again to go on"):
        read_config(run)
