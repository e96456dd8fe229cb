"""Cross-layer equalisation: the same embeddings in float, channels alike in what 8 bit holds in one range."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgecsd.exporting.export import export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.query import create_query_model, save_query_model
from edgecsd.photos.finding import find_images
from edgecsd.quantisation.bias_correction import hooked
from edgecsd.quantisation.calibration import synthetic_pixels
from edgecsd.quantisation.equalisation import Tied, equalise, tied_values
from edgecsd.quantisation.precisions import EightBit
from edgecsd.targets.artifact import load_runner
from edgecsd.targets.deploy import DeployModel

SPACE = EmbeddingSpace(gallery_model="g", dim=16)
PIXELS = synthetic_pixels(64, count=3)


def deployed(backbone: str) -> DeployModel:
    """With batch norms whose channels differ as trained ones' do: those that timm begins with are all alike."""
    torch.manual_seed(4)
    deploy = DeployModel(create_query_model(backbone, SPACE, size=64, pretrained=False))
    for module in deploy.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = torch.exp(torch.randn_like(module.weight))
            module.bias.data = torch.randn_like(module.bias) / 4
    return deploy


@pytest.mark.parametrize(("backbone", "sets"), [("mobilenetv2_100", 7), ("tf_efficientnet_lite0", 7), ("resnet18", 11)])
def test_the_embeddings_stay_the_same(backbone: str, sets: int) -> None:
    """To the bit, since factors are powers of two.

    7: six chains of linear bottlenecks and the first block's; resnet18: 8 values between the two layers of a block,
    and the sums of three stages, each with all that is added to it (the fourth goes to the pooling).
    """
    deploy = deployed(backbone)
    before = deploy(torch.from_numpy(PIXELS))
    weights = {name: value.clone() for name, value in deploy.state_dict().items()}
    assert equalise(deploy, PIXELS) == sets
    after = deploy(torch.from_numpy(PIXELS))
    assert (after - before).abs().max() <= 1e-5 and torch.equal(after, before)
    assert sum(not torch.equal(value, weights[name]) for name, value in deploy.state_dict().items()) > 2 * sets


def test_values_that_are_always_zero_are_left() -> None:
    """As pruning leaves them: a batch norm without gain and shift, whose channels have no width to be divided by."""
    deploy = deployed("mobilenetv2_035")
    sets = tied_values(deploy, PIXELS[:1])
    for name in sets[-1].makers:
        dead = deploy.get_submodule(name)
        assert isinstance(dead, nn.BatchNorm2d)
        dead.weight.data.zero_()
        dead.bias.data.zero_()
    before = deploy(torch.from_numpy(PIXELS))
    assert equalise(deploy, PIXELS) == len(sets) - 1
    assert torch.equal(deploy(torch.from_numpy(PIXELS)), before)
    assert all(torch.isfinite(value).all() for value in deploy.state_dict().values())


def test_channels_are_more_alike() -> None:
    """By the spread of what a convolution behind a linear bottleneck reads: standard deviation of log2 of maxima."""
    deploy = deployed("mobilenetv2_100")
    layer = deploy.get_submodule("query_model.backbone.blocks.3.0.conv_pw")
    assert isinstance(layer, nn.Conv2d)

    def spread() -> float:
        seen: list[Tensor] = []
        with hooked([layer], lambda layer, inputs: seen.append(inputs[0].abs().amax(dim=(0, 2, 3)))):
            deploy(torch.from_numpy(PIXELS))
        return float(torch.log2(seen[0]).std())

    before = spread()
    equalise(deploy, PIXELS)
    assert spread() < 0.8 * before


def network(forward: Callable[[nn.Module, Tensor], Tensor], **layers: nn.Module) -> nn.Module:
    made = nn.Module()
    for name, layer in layers.items():
        made.add_module(name, layer)
    made.forward = lambda image: forward(made, image.permute(0, 3, 1, 2).float() / 255)  # type: ignore[method-assign]
    return made.eval()


def three() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"a": nn.Conv2d(3, 8, 3), "b": nn.Conv2d(8, 8, 1), "c": nn.Conv2d(8, 4, 1)}


def test_what_is_added_is_tied() -> None:
    def forward(m: nn.Module, image: Tensor) -> Tensor:
        first = m.a(image)
        return m.c(first + m.b(first)).mean(dim=(2, 3))

    made = network(forward, **three())
    assert tied_values(made, PIXELS[:1]) == [Tied(["a", "b"], ["b", "c"])]
    before = made(torch.from_numpy(PIXELS))
    equalise(made, PIXELS)
    assert torch.equal(made(torch.from_numpy(PIXELS)), before)


def test_relu_lets_factors_through_and_what_is_not_homogeneous_does_not() -> None:
    def between(activation: Callable[[Tensor], Tensor]) -> list[Tied]:
        made = network(lambda m, image: m.c(activation(m.a(image))).mean(dim=(2, 3)), **three())
        return tied_values(made, PIXELS[:1])

    assert between(torch.relu) == [Tied(["a"], ["c"])]
    for activation in (
        nn.functional.relu6,
        nn.functional.silu,
        nn.functional.hardswish,
        torch.sigmoid,
        lambda x: x + 1,
        lambda x: x * x,
        lambda x: x.flip(1),
        lambda x: x.clamp(0, 3),
        lambda x: x + x.mean(dim=(2, 3), keepdim=True),
    ):
        assert between(activation) == [], activation


def test_what_is_read_by_something_else_or_used_twice_is_left() -> None:
    def read(m: nn.Module, image: Tensor) -> Tensor:
        first = m.a(image)
        return m.c(first).mean(dim=(2, 3)) + first.mean()

    def twice(m: nn.Module, image: Tensor) -> Tensor:
        return m.c(m.b(m.b(m.a(image)).sigmoid())).mean(dim=(2, 3))

    for forward in (read, twice):
        assert tied_values(network(forward, **three()), PIXELS[:1]) == []


def test_groups() -> None:
    torch.manual_seed(0)
    made = network(
        lambda m, image: m.c(m.b(m.a(image)).relu()).mean(dim=(2, 3)),
        a=nn.Conv2d(3, 8, 3),
        b=nn.Conv2d(8, 12, 3, groups=4),
        c=nn.Conv2d(12, 12, 3, groups=12),
    )
    made.a.weight.data *= torch.exp2(torch.arange(8.0)).view(-1, 1, 1, 1)
    before, weight = made(torch.from_numpy(PIXELS)), made.b.weight.clone()
    assert equalise(made, PIXELS) == 2
    assert torch.equal(made(torch.from_numpy(PIXELS)), before) and not torch.equal(made.b.weight, weight)


def test_an_equalised_file_says_so_and_finds_the_same(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    torch.manual_seed(1)
    save_query_model(create_query_model("test_efficientnet", SPACE, size=64, pretrained=False), run)
    files = []
    for how in (EightBit(), EightBit(equalisation=True)):
        out = tmp_path / f"{how.changes or 'plain'}.onnx"
        made = export(run, "onnx", "w8a8", out=out, calibration=find_images(photos), calibration_count=8, how=how)
        assert ("equalised" in made.metadata.recipe) is how.equalisation
        files.append(load_runner(out).embed(PIXELS))
    assert not np.array_equal(*files), "the weights in the files differ"
