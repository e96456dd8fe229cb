"""timm networks as query backbones: one feature map whatever their layout, and their form for inference."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import timm
import torch
from huggingface_hub import is_offline_mode
from torch import nn

from edgecsd.errors import BadInputError, EdgecsdError, MissingBackendError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.backbones import create_backbone, feature_map, for_inference
from edgecsd.models.frozen_forward import Engine, frozen_forward
from edgecsd.models.query import create_query_model
from edgecsd.models.query_config import Pooling, ProjectionKind
from edgecsd.progress import Silent
from edgecsd.targets.deploy import DeployModel


def test_maps_of_any_layout_become_channels_by_grid() -> None:
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    for name in ("test_byobnet", "test_mambaout", "test_vit", "test_vit3"):
        network = timm.create_model(name, num_classes=0).eval()
        with torch.inference_mode():
            given, maps = network.forward_features(images), feature_map(network, images)
        assert maps.shape[:2] == (2, network.num_features) and maps.shape[2] == maps.shape[3]
        if given.ndim == 3:  # tokens in rows of the grid, behind the class token and registers
            places = given[:, network.num_prefix_tokens :]
            assert torch.equal(maps[:, :, 3, 5], places[:, 3 * maps.shape[3] + 5])
        elif name == "test_mambaout":
            assert torch.equal(maps[0, :, 1, 2], given[0, 1, 2])
        else:
            assert torch.equal(maps, given)
        assert create_backbone(name, pretrained=False).width == network.num_features


def test_a_network_without_one_map_is_refused_by_name() -> None:
    with pytest.raises(BadInputError, match=r"crossvit_tiny_240: no feature map .*choose `pooling` pretrained"):
        create_query_model("crossvit_tiny_240", EmbeddingSpace(gallery_model="g", dim=8), pretrained=False)


def test_pretrained_pooling_takes_what_the_network_itself_gives() -> None:
    """Also of a network without one map; and with what stands behind the pooling, 576 -> 1024 here."""
    for name, width in (("crossvit_tiny_240", 288), ("mobilenetv3_small_050", 1024)):
        torch.manual_seed(0)
        space = EmbeddingSpace(gallery_model="g", dim=8)
        model = create_query_model(name, space, pooling=Pooling.PRETRAINED, pretrained=False)
        assert model.config.width == model.config.pooled_width == width
        own = timm.create_model(name, num_classes=0).eval()
        own.load_state_dict(model.backbone.state_dict())
        images = torch.randn(2, 3, model.config.preprocess.size, model.config.preprocess.size)
        with torch.inference_mode():
            assert torch.allclose(model.pooled(images), own(images), atol=1e-5)
            assert torch.allclose(DeployModel(model).embedding(images), model(images), atol=1e-5)
    with pytest.raises(BadInputError, match="`projection` bottleneck: begins at the feature map"):
        create_query_model(
            "test_vit", space, pooling=Pooling.PRETRAINED, projection=ProjectionKind.BOTTLENECK, pretrained=False
        )


@pytest.mark.parametrize(
    ("name", "pooling"), [("resnet10t", Pooling.GEM), ("test_vit", Pooling.AVERAGE), ("test_convnext", Pooling.AVERAGE)]
)
def test_maps_of_both_signs_are_averaged_unless_a_pooling_is_asked_for(name: str, pooling: Pooling) -> None:
    torch.manual_seed(0)
    space = EmbeddingSpace(gallery_model="g", dim=8)
    made = create_query_model(name, space, pretrained=False)
    assert (made.config.pooling, made.config.gem_p) == (pooling, 3.0)
    for asked in ({"gem_p": 4.0}, {"learn_power": True}, {"projection": ProjectionKind.BOTTLENECK}):
        model = create_query_model(name, space, pretrained=False, **cast(Any, asked))
        assert model.config.pooling is Pooling.GEM


def test_a_name_or_tag_that_timm_has_not_is_answered_with_those_it_has() -> None:
    with pytest.raises(BadInputError, match=r"'mobilenet_v3'; it has for example: mobilenetv3_large_100, mobilenetv3_"):
        create_backbone("mobilenet_v3", pretrained=False)
    with pytest.raises(BadInputError, match=r"'no_such_network'; it has for example: \w+, .*mobilenetv2_100"):
        create_backbone("no_such_network", pretrained=False)
    for pretrained in (True, False):
        with pytest.raises(BadInputError, match=r"timm has no weights 'foo' of resnet18; it has: .*a1_in1k"):
            create_backbone("resnet18.foo", pretrained=pretrained)
    with pytest.raises(BadInputError, match="timm has no weights 'foo' of test_mambaout; it has none"):
        create_backbone("test_mambaout.foo", pretrained=False)


def test_an_input_size_that_the_network_does_not_take_is_refused_before_any_work() -> None:
    with pytest.raises(BadInputError, match=r"test_vit3 takes no images of 96 x 96 px .* its own size is 160"):
        create_query_model("test_vit3", EmbeddingSpace(gallery_model="g", dim=8), size=96, pretrained=False)


def test_branches_are_fused_in_what_is_exported_and_stay_in_what_is_trained() -> None:
    torch.manual_seed(0)
    model = create_query_model("repvit_m0_9", EmbeddingSpace(gallery_model="g", dim=8), size=64, pretrained=False)
    deploy = DeployModel(model)
    fused = timm.models.reparameterize_model(copy.deepcopy(model.backbone))
    assert _convolutions(deploy) == _convolutions(fused) < _convolutions(model)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert (deploy.embedding(images) - model(images)).abs().max() < 1e-5


def test_fusing_that_changes_the_features_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    network = create_backbone("repghostnet_050", pretrained=False).network

    def spoilt(given: nn.Module) -> nn.Module:
        changed = copy.deepcopy(given)
        with torch.no_grad():
            for parameter in changed.parameters():
                parameter.mul_(1.1)
        return changed

    monkeypatch.setattr("edgecsd.models.backbones.reparameterize_model", spoilt)
    with pytest.raises(EdgecsdError, match="with its branches fused the network differs by"):
        for_inference(network, 64)
    said: list[str] = []
    reporter = Silent()
    monkeypatch.setattr(reporter, "message", said.append)
    assert frozen_forward(network, 64, 1, reporter=reporter)(torch.ones(1, 3, 64, 64)).equal(
        network(torch.ones(1, 3, 64, 64))
    )
    assert said[0].startswith("the network runs with its branches: fused it differs by")


def test_a_frozen_network_runs_with_its_branches_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = create_backbone("mobileone_s0", pretrained=False).network
    ran: list[nn.Module] = []

    def keep(fused: nn.Module, _: torch.Tensor) -> Any:
        ran.append(fused.requires_grad_(False))
        return fused

    monkeypatch.setattr("edgecsd.models.frozen_forward._by_onnxruntime", keep)
    images = torch.randn(2, 3, 64, 64)
    frozen_forward(network, 64, 1, engine=Engine.ONNXRUNTIME)
    frozen = frozen_forward(network, 64, 1)
    with torch.inference_mode():
        expected = network(images)
    assert 4 * _convolutions(ran[0]) < _convolutions(network)
    assert (frozen(images) - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("resolves", "proxies", "cache_only"), [(False, {}, True), (True, {}, False), (False, {"https": "p"}, False)]
)
def test_without_a_network_the_hub_is_not_asked(
    resolves: bool, proxies: dict[str, str], cache_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def addresses(*given: Any) -> list[Any]:
        if not resolves:
            raise OSError("Name or service not known")
        return [given]

    seen = []

    def fetched(name: str, pretrained: bool) -> Any:
        seen.append(is_offline_mode())
        raise RuntimeError("no such file")

    monkeypatch.setattr("edgecsd.models.hub.getaddrinfo", addresses)
    monkeypatch.setattr("edgecsd.models.hub.getproxies", lambda: proxies)
    monkeypatch.setattr(timm, "create_model", fetched)
    before = is_offline_mode()
    with pytest.raises(MissingBackendError, match="no pretrained weights for test_vit"):
        create_backbone("test_vit")
    assert seen == [cache_only or before] and is_offline_mode() is before


def _convolutions(network: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in network.modules())
