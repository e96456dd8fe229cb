"""Bias correction: the mean error that 8-bit weights make in each output channel, taken off before the export.

Nagel, van Baalen, Blankevoort, Welling: Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV
2019, section 4.2. There the means come from batch-norm statistics; here from the calibration photos, in float.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecsd.errors import BadInputError
from edgecsd.quantisation.precisions import STANDARD, EightBit

LEVELS = 127  # of a weight in 8 bit, on either side of 0


def rounded_weights(weight: Tensor) -> Tensor:
    """A convolution's weight (out, in, h, w) as 8 bit holds it: symmetric, one scale an output channel.

    A scale of the channel, as a batch-norm behind it applies, does not change the relative error.
    """
    scale = weight.detach().abs().flatten(1).amax(dim=1).clamp(min=1e-12) / LEVELS
    scale = scale.view(-1, *[1] * (weight.dim() - 1))
    return (weight / scale).round().clamp(-LEVELS, LEVELS) * scale


def correct_biases(network: nn.Module, pixels: NDArray[np.uint8], how: EightBit = STANDARD) -> int:
    """Change the biases of the network's convolutions in place; how many were changed.

    network  (1, S, S, 3) uint8 -> embedding, as it is exported
    pixels   (n, S, S, 3) uint8 calibration photos
    how      whose weights are rounded (`weights_rounded`)
    """
    layers = convolutions_in_order(network, pixels[:1])
    chosen = [layer for place, layer in enumerate(layers) if weights_rounded(place, layer, how)]
    errors = {layer: torch.zeros(layer.out_channels) for layer in chosen}
    differences = {layer: rounded_weights(layer.weight) - layer.weight for layer in chosen}

    def measure(layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        errors[layer] += _without_bias(layer, differences[layer], inputs[0]).mean(dim=(0, 2, 3))

    with torch.inference_mode(), hooked(chosen, measure):
        for photo in pixels:
            network(torch.from_numpy(photo[None]))
    for layer in chosen:
        before = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach()
        layer.bias = nn.Parameter(before - errors[layer] / len(pixels), requires_grad=False)
    return len(chosen)


def weights_rounded(place: int, layer: nn.Conv2d, how: EightBit) -> bool:
    """Whether the exported file stores this convolution's weights in 8 bit.

    All that compute in 8 bit, and those left in float too, but for depthwise ones: 2 % of the weights, half the error.
    """
    depthwise = layer.weight.shape[1] == 1
    return place not in how.float_convolutions or not (depthwise or how.float_weights)


def _without_bias(layer: nn.Conv2d, weight: Tensor, values: Tensor) -> Tensor:
    """What the convolution makes of `values` with this weight and no bias.

    By its own `forward`, which may pad in its own way: timm's Conv2dSame, as TensorFlow does, below and to the right.
    """
    own, bias = layer.weight, layer.bias
    try:
        layer.weight, layer.bias = nn.Parameter(weight, requires_grad=False), None
        return layer.forward(values)
    finally:
        layer.weight, layer.bias = own, bias


def convolutions_in_order(network: nn.Module, photo: NDArray[np.uint8]) -> list[nn.Conv2d]:
    """The convolutions in the order of execution; photo: (1, S, S, 3) uint8."""
    found: list[nn.Conv2d] = []
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    with torch.inference_mode(), hooked(layers, lambda layer, inputs: found.append(layer)):
        network(torch.from_numpy(photo))
    return found


def require_places(network: nn.Module, photo: NDArray[np.uint8], places: Collection[int]) -> None:
    """BadInputError unless the network has a convolution at each of `places` in the order of execution."""
    count = len(convolutions_in_order(network, photo)) if places else 0
    if missing := sorted(place for place in places if place >= count):
        raise BadInputError(
            f"float_convolutions {missing}: this network has {count} convolutions, from 0 to {count - 1} in the order "
            "in which it runs them"
        )


@contextmanager
def hooked(layers: list[nn.Conv2d], seen: Callable[[nn.Conv2d, tuple[Tensor, ...]], None]) -> Iterator[None]:
    """`seen(layer, inputs)` is called before each of the layers runs."""

    def hook(wanted: nn.Conv2d, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        del module
        seen(wanted, inputs)

    handles = [layer.register_forward_pre_hook(partial(hook, layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
