"""Batch norms are gone before a converter traces, and the network answers as before."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgecsd.models.backbones import create_backbone
from edgecsd.targets.folding import ALIKE, folded

IMAGE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def with_statistics(network: nn.Module) -> nn.Module:
    """The network with norms that are not near the identity, as trained ones are not."""
    generator = torch.Generator().manual_seed(4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low in ((module.running_var, 0.5), (module.weight, 0.5), (module.running_mean, -0.5)):
                assert values is not None
                values.data = low + torch.rand(values.shape, generator=generator)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_large_100", "efficientnet_b0", "ghostnet_050"])
def test_no_norm_is_left_of_a_backbone(name: str) -> None:
    network = create_backbone(name, pretrained=False).network.eval()
    before, count = network(IMAGE), norms(network)
    found = folded(network, IMAGE)
    assert count > 30 and norms(found) == 0
    assert (found(IMAGE) - before).abs().max() <= ALIKE
    assert norms(network) == count and torch.equal(network(IMAGE), before)  # the original is as it was


class Pair(nn.Module):
    """A convolution and its norm; `twice`: what the convolution gives is read a second time."""

    def __init__(self, twice: bool = False, again: bool = False) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.twice, self.again = twice, again

    def forward(self, image: Tensor) -> Tensor:
        given = self.convolution(image)
        result = self.norm(given)
        if self.again:
            result = self.norm(self.convolution(result))
        return result + given if self.twice else result


def test_a_pair() -> None:
    network = with_statistics(Pair())
    found = folded(network, IMAGE)
    assert norms(found) == 0 and (found(IMAGE) - network(IMAGE)).abs().max() <= ALIKE


@pytest.mark.parametrize("how", [{"twice": True}, {"again": True}])
def test_what_cannot_be_folded_stays(how: dict[str, bool]) -> None:
    network = with_statistics(Pair(**how))
    found = folded(network, IMAGE)
    assert norms(found) == 1 and torch.equal(found(IMAGE), network(IMAGE))


def test_numbers_that_are_none_stay_as_they_are() -> None:
    network = with_statistics(Pair())
    assert isinstance(network, Pair)
    network.convolution.weight.data[0, 0, 0, 0] = float("nan")
    assert folded(network, IMAGE) is network
