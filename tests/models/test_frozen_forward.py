"""The engines that run a frozen network: the same numbers, chosen by how many images there are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from doubles import PixelGallery
from torch import nn

from edgecsd.errors import BadInputError, EdgecsdError, MissingBackendError
from edgecsd.gallery.extract import extract
from edgecsd.models import backbones
from edgecsd.models import frozen_forward as engine
from edgecsd.models.frozen_forward import WORTHWHILE, Engine, frozen_forward, parse_engine
from edgecsd.models.gallery.loading import load_gallery_model
from edgecsd.models.gallery.model import prepare
from edgecsd.photos.finding import find_images

SIZE = 32


class Small(nn.Module):
    """Convolution, batch norm with statistics of its own, SiLU, global average."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.convolution, self.norm = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.norm.running_mean, self.norm.running_var = torch.randn(8), torch.rand(8) + 0.5

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.silu(self.norm(self.convolution(images))).mean((2, 3))


class BatchSized(Small):
    """Not convertible for any batch: what it computes depends on a value."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * (2 if images.abs().max().item() > 3 else 1)


class Messages:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)

    task = engine.SILENT.task


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return Small().eval()


@pytest.fixture(scope="module")
def by_onnxruntime(network: nn.Module) -> engine.Forward:
    return frozen_forward(network, SIZE, 1, engine=Engine.ONNXRUNTIME)


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_onnxruntime_gives_what_torch_gives(
    network: nn.Module, by_onnxruntime: engine.Forward, batch: int, memory: torch.memory_format
) -> None:
    images = torch.randn(batch, 3, SIZE, SIZE).to(memory_format=memory)
    with torch.inference_mode():
        expected = network(images)
    torch.testing.assert_close(by_onnxruntime(images), expected, rtol=1e-5, atol=1e-6)


def test_torch_runs_few_images_and_onnxruntime_many(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[nn.Module] = []

    def spy(network: nn.Module, example: torch.Tensor) -> engine.Forward:
        converted.append(network)
        return lambda images: network(images).detach()

    monkeypatch.setattr(engine, "_by_onnxruntime", spy)
    frozen_forward(network, SIZE, WORTHWHILE - 1)
    frozen_forward(network, SIZE, 10 * WORTHWHILE, engine=Engine.TORCH)
    assert not converted
    frozen_forward(network, SIZE, WORTHWHILE)
    frozen_forward(network, SIZE, 1, engine=Engine.ONNXRUNTIME)
    assert len(converted) == 2


@pytest.mark.parametrize("wrong", [lambda y: y + 0.1, lambda y: y * float("nan")], ids=["shifted", "nan"])
def test_an_engine_that_differs_is_not_used(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, wrong: engine.Forward
) -> None:
    def broken(network: nn.Module, example: torch.Tensor) -> engine.Forward:
        return lambda images: wrong(network(images).detach())

    monkeypatch.setattr(engine, "_by_onnxruntime", broken)
    reporter, images = Messages(), torch.randn(3, 3, SIZE, SIZE)
    forward = frozen_forward(network, SIZE, WORTHWHILE, reporter=reporter)
    with torch.inference_mode():
        assert torch.equal(forward(images), network(images))
    assert "torch runs the network" in reporter.texts[0] and "differs from torch's by" in reporter.texts[0]
    with pytest.raises(EdgecsdError, match="differs from torch's"):
        frozen_forward(network, SIZE, WORTHWHILE, engine=Engine.ONNXRUNTIME)


def test_a_network_that_cannot_be_converted_runs_by_torch() -> None:
    network, reporter, images = BatchSized().eval(), Messages(), torch.full((2, 3, SIZE, SIZE), 4.0)
    forward = frozen_forward(network, SIZE, WORTHWHILE, reporter=reporter)
    with torch.inference_mode():
        assert torch.equal(forward(images), network(images))
    assert "torch runs the network, slower" in reporter.texts[0] and "conversion for onnxruntime" in reporter.texts[0]


def test_without_onnxruntime_torch_runs_silently_unless_asked(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    reporter = Messages()
    frozen_forward(network, SIZE, WORTHWHILE, reporter=reporter)(torch.zeros(1, 3, SIZE, SIZE))
    assert not reporter.texts
    with pytest.raises(MissingBackendError, match="onnx"):
        frozen_forward(network, SIZE, WORTHWHILE, engine=Engine.ONNXRUNTIME)


def test_an_unknown_engine_is_refused() -> None:
    assert parse_engine("torch") is Engine.TORCH
    with pytest.raises(BadInputError, match="`engine` tensorrt: use auto, torch, onnxruntime"):
        parse_engine("tensorrt")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a timm network whose batch norms do something."""
    torch.manual_seed(0)
    network = backbones.create_backbone("mobilenetv3_small_050", pretrained=False).network
    state = {k: torch.rand_like(v) + 0.5 if "running_var" in k else v for k, v in network.state_dict().items()}
    full = backbones._untrained("mobilenetv3_small_050").state_dict()
    file = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save({**full, **state}, file)
    return file


def test_both_engines_extract_the_same_features(photos: Path, weights: Path, tmp_path: Path) -> None:
    stores = [
        extract(
            find_images(photos),
            "timm:mobilenetv3_small_050",
            tmp_path / kind,
            weights=weights,
            gallery_size=64,
            views=1,
            dtype="float32",
            engine=kind,
        )
        for kind in (Engine.TORCH, Engine.ONNXRUNTIME)
    ]
    torch_vectors, other = (store.view_vectors() for store in stores)
    assert not np.array_equal(torch_vectors, other)  # two engines, indeed
    np.testing.assert_allclose(other, torch_vectors, atol=2e-5)
    assert stores[0].space == stores[1].space


def test_several_scales_and_other_models_have_no_other_engine(weights: Path, tmp_path: Path, photos: Path) -> None:
    name = "timm:mobilenetv3_small_050"
    model = load_gallery_model(name, weights=weights, size=64, scales=(1.0, 0.7071))
    prepare(model, 10 * WORTHWHILE, Engine.AUTO)
    assert model.embed(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, model.space.dim)
    with pytest.raises(BadInputError, match="one input size only"):
        prepare(model, 1, Engine.ONNXRUNTIME)
    with pytest.raises(BadInputError, match=r"`engine` torch: goes with timm:NAME, .* only, not with double:"):
        extract(find_images(photos), PixelGallery(), tmp_path / "out", engine=Engine.TORCH)
