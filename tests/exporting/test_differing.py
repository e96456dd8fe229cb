"""The module that a converter gets wrong is named."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgecsd.exporting import differing
from edgecsd.exporting.differing import Prefix, first_differing
from edgecsd.exporting.export import export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.query import QueryModel, create_query_model, save_query_model
from edgecsd.targets.artifact import read_metadata
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.metadata import ArtifactMetadata, Target

SIZE = 32
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def model() -> QueryModel:
    torch.manual_seed(0)
    return create_query_model("test_byobnet", EmbeddingSpace(gallery_model="g", dim=16), size=SIZE, pretrained=False)


@pytest.fixture(scope="module")
def photo() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def metadata(model: QueryModel, tmp_path_factory: pytest.TempPathFactory) -> ArtifactMetadata:
    run = tmp_path_factory.mktemp("run")
    save_query_model(model.eval(), run)
    return read_metadata(export(run, "onnx", "fp32").path)


@pytest.fixture
def deploy(model: QueryModel) -> DeployModel:
    return DeployModel(model)


def test_a_prefix_gives_what_the_module_gives(deploy: DeployModel, photo: Pixels) -> None:
    prefix = Prefix(deploy, "backbone.stages.1")
    seen: list[Tensor] = []
    deploy.query_model.get_submodule("backbone.stages.1").register_forward_hook(lambda _, __, out: seen.append(out))
    deploy(torch.from_numpy(photo))
    assert torch.equal(prefix(torch.from_numpy(photo)), seen[0].flatten(1))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["backbone.stages.2.0.shortcut.conv.conv", "projection"])
def test_the_module_that_is_converted_wrongly_is_found(
    deploy: DeployModel, metadata: ArtifactMetadata, photo: Pixels, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = differing.convert

    def spoilt(target: Target, model: DeployModel, *rest: Any) -> None:
        copied = copy.deepcopy(model)
        with torch.no_grad():
            copied.query_model.get_submodule(wrong).weight.mul_(1.5)  # type: ignore[operator]
        real(target, copied, *rest)

    monkeypatch.setattr(differing, "convert", spoilt)
    found = first_differing(deploy, metadata, photo)
    assert found is not None and found.name == wrong
    kind = type(deploy.query_model.get_submodule(wrong)).__name__
    assert str(found).startswith(f"{wrong} ({kind}), by ") and found.share > 0.01


def test_nothing_is_found_where_the_converter_is_right(
    deploy: DeployModel, metadata: ArtifactMetadata, photo: Pixels
) -> None:
    assert first_differing(deploy, metadata, photo) is None


class SharedKeys(nn.Module):
    """Attention whose heads share keys and values: litert-torch computes something else for torch's fused one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries, self.keys, self.values = (nn.Conv2d(width, side, 1) for side in (width, width // 4, width // 4))

    def forward(self, maps: Tensor) -> Tensor:
        queries = self.queries(maps).reshape(len(maps), 4, maps.shape[1] // 4, -1).transpose(-1, -2).contiguous()
        keys, values = (
            layer(maps).flatten(2).transpose(1, 2).unsqueeze(1).contiguous() for layer in (self.keys, self.values)
        )
        found = nn.functional.scaled_dot_product_attention(queries, keys, values)
        return found.transpose(2, 3).reshape(maps.shape)


@pytest.mark.slow
def test_a_module_that_litert_torch_converts_wrongly_is_found(
    deploy: DeployModel, metadata: ArtifactMetadata, photo: Pixels
) -> None:
    deploy.query_model.backbone.stem = nn.Sequential(deploy.query_model.backbone.stem, SharedKeys(24))  # type: ignore
    found = first_differing(deploy, metadata.model_copy(update={"target": Target.TFLITE}), photo)
    assert found is not None and (found.name, found.kind) == ("backbone.stem.1", "SharedKeys")
