"""Query models: the fp16-safe head against plain formulas in float64, and the folder a model is saved in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgecsd.backbones import to_input
from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.head_kinds import Pooling, ProjectionKind
from edgecsd.pooling import scaled_gem, scaled_l2
from edgecsd.preprocess import Interpolation, Preprocess, Resize
from edgecsd.query_models import QueryModel, create_query_model, load_query_model, read_config, save_query_model
from edgecsd.space import EmbeddingSpace

SPACE = EmbeddingSpace(gallery_model="acme-v7", preprocess=Preprocess(size=300), dim=24)
TINY = "test_efficientnet"  # timm's network for tests: 0.36 M parameters


def plain_l2(vectors: Tensor) -> Tensor:
    """v / sqrt(sum v^2), as written."""
    return vectors / (vectors * vectors).sum(dim=1, keepdim=True).sqrt()


def plain_gem(maps: Tensor, power: float) -> Tensor:
    """Radenovic et al. (TPAMI 2018), equation 3: (mean of x^p)^(1/p) over the positions, x >= 0."""
    return maps.clamp_min(0).pow(power).mean(dim=(2, 3)).pow(1 / power)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --------------------------------------------------------------------------------------------------------- L2


@pytest.mark.parametrize("scale", [1e-3, 0.05, 1.0, 6.5, 400.0, 5000.0])
@pytest.mark.parametrize("dim", [2, 256, 2048, 4096])
def test_l2_is_right_in_half_precision_where_the_plain_formula_is_not(dim: int, scale: float) -> None:
    vectors = (normal(8, dim) * scale).half()
    exact = plain_l2(vectors.double())
    result = scaled_l2(vectors)
    assert result.dtype == torch.float16
    assert (result.double() - exact).abs().max() < 2e-3
    assert torch.nn.functional.cosine_similarity(result.double(), exact).min() > 0.99999
    assert (result.double().norm(dim=1) - 1).abs().max() < 5e-3


def test_the_plain_formula_gives_silent_zeros_there() -> None:
    """Why scaled_l2 exists: rms 6.5 x 2048 dimensions is an everyday pooled feature."""
    vectors = (normal(4, 2048) * 6.5).half()
    assert plain_l2(vectors).abs().max() == 0
    assert scaled_l2(vectors).abs().max() > 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_l2_in_single_precision(scale: float) -> None:
    vectors = (normal(8, 2048) * scale).float()
    assert (scaled_l2(vectors).double() - plain_l2(vectors.double())).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("dim", [16, 2048, 8192])
def test_a_zero_vector_stays_zero_and_a_single_spike_stays_one(dtype: torch.dtype, dim: int) -> None:
    vectors = torch.zeros(2, dim, dtype=dtype)
    vectors[1, 3] = -200.0
    result = scaled_l2(vectors)
    assert (result[0] == 0).all()
    assert result[1, 3] == pytest.approx(-1, abs=2e-3)
    assert (result[1].abs() > 0).sum() == 1


def test_l2_gradients_are_those_of_the_plain_formula() -> None:
    vectors, direction = normal(3, 32).requires_grad_(), normal(3, 32, seed=1)
    (scaled,) = torch.autograd.grad((scaled_l2(vectors) * direction).sum(), vectors)
    (plain,) = torch.autograd.grad((plain_l2(vectors) * direction).sum(), vectors)
    assert (scaled - plain).abs().max() < 1e-12


# -------------------------------------------------------------------------------------------------------- GeM


@pytest.mark.parametrize("power", [2.0, 3.0, 4.5])
@pytest.mark.parametrize("scale", [0.01, 1.0, 40.0, 300.0, 20000.0])
def test_gem_is_right_in_half_precision_where_the_plain_formula_is_not(scale: float, power: float) -> None:
    maps = (normal(2, 16, 7, 7).abs() * scale / 4).half()
    exact = plain_gem(maps.double(), power)
    result = scaled_gem(maps, power)
    assert result.dtype == torch.float16
    assert torch.isfinite(result).all()
    assert ((result.double() - exact).abs() / exact).max() < 5e-3


def test_the_plain_formula_overflows_above_40_point_3() -> None:
    maps = torch.full((1, 1, 7, 7), 40.5, dtype=torch.float16)
    assert torch.isinf(plain_gem(maps, 3.0)).all()
    assert scaled_gem(maps, 3.0).item() == pytest.approx(40.5, rel=2e-3)


@pytest.mark.parametrize("power", [1.5, 2.0, 3.0, 4.5])
def test_gem_in_single_precision(power: float) -> None:
    maps = (normal(2, 16, 9, 5) * 10).float()
    exact = plain_gem(maps.double(), power)
    assert ((scaled_gem(maps, power).double() - exact).abs() / exact).max() < 1e-4


@pytest.mark.parametrize("power", [3.0, 2.5])
def test_gem_of_dead_and_of_single_peaked_channels(power: float) -> None:
    maps = torch.zeros(1, 3, 16, 16)
    maps[0, 1] = -5.0  # negative values count as 0
    maps[0, 2, 4, 4] = 8.0
    result = scaled_gem(maps.half(), power)[0]
    assert result[:2].abs().max() < 1e-4
    assert result[2].item() == pytest.approx(8.0 * (1 / 256) ** (1 / power), rel=5e-3)


def test_gem_gradients_are_finite_where_the_map_is_zero() -> None:
    for power in (1.5, 3.0):
        maps = torch.zeros(1, 2, 4, 4, requires_grad=True)
        (gradient,) = torch.autograd.grad(scaled_gem(maps, power).sum(), maps)
        assert torch.isfinite(gradient).all()


# ------------------------------------------------------------------------------------------------------ model


def tiny(**options: object) -> QueryModel:
    torch.manual_seed(5)
    return create_query_model(TINY, SPACE, size=64, pretrained=False, **options)  # type: ignore[arg-type]


def pixels(count: int = 3) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("pooling", list(Pooling))
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
        ({"schema_version": 4}, "schema_version 3 is expected"),
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
