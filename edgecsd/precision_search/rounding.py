"""A query model that computes as its 8-bit file will, and lets gradients through: fake quantisation.

Weights and what a convolution reads are rounded, and gradients pass as if they were not (the straight-through
estimator: Bengio, Leonard, Courville, arXiv 1308.3432; for 8-bit networks: Jacob et al., CVPR 2018).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgecsd.models.query import QueryModel
from edgecsd.precision_search.sensitivity import STEPS, find_gates, input_ranges
from edgecsd.quantisation.bias_correction import convolutions_in_order, correct_biases, rounded_weights, weights_rounded
from edgecsd.quantisation.precisions import EightBit
from edgecsd.targets.deploy import DeployModel


class _RoundedWeight(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + (rounded_weights(weight) - weight).detach()


def rounded_values(values: Tensor, ends: tuple[float, float]) -> Tensor:
    """`values` as 8 bit holds them in the range (lowest, highest); the gradient is 1 within it and 0 outside."""
    low, high = ends
    step = max((high - low) / STEPS, 1e-12)
    zero = round(-low / step)
    inside = values.clamp(-zero * step, (STEPS - zero) * step)
    return inside + ((inside / step).round() * step - inside).detach()


class RoundedLayers:
    """Makes the convolutions of a query model compute in 8 bit, those that `how` does not leave in float.

    A bottleneck's behind the backbone is one of them, as in the exported files. Of those that are left in float the
    weights are rounded as in those files. The gates of squeeze-and-excite, which read one value a channel, stay float.
    `how.equalisation` is not looked at: an equalised model is given.
    calibration  (n, S, S, 3) uint8 photos, for ranges and bias correction, both of which `measure` takes anew
    names, stored   of the layers that compute in 8 bit, and of those whose weights alone are
    """

    def __init__(self, model: QueryModel, how: EightBit, calibration: NDArray[np.uint8]) -> None:
        self._model, self._how, self._calibration = model, how, calibration
        self._float = DeployModel(model)
        self._ranges: dict[str, tuple[float, float]] = {}
        self._corrections: dict[str, Tensor] = {}
        own = dict(model.named_modules())
        self.names, self.stored = self._chosen()
        for name in (*self.names, *self.stored):
            layer = own[name]
            parametrize.register_parametrization(layer, "weight", _RoundedWeight())
            layer.register_forward_hook(self._correct(name))
        for name in self.names:
            own[name].register_forward_pre_hook(self._round_input(name))

    def measure(self) -> None:
        """Ranges and bias corrections of the weights as they are now."""
        self._float.query_model.load_state_dict(plain_state(self._model))
        layers = [layer for layer, name in self._names.items() if name in self.names]
        ranges = input_ranges(self._float, layers, self._calibration, self._how.percentile)
        self._ranges = {self._names[layer]: ends for layer, ends in ranges.items()}
        self._corrections = {}
        if self._how.bias_correction:
            corrected = copy.deepcopy(self._float)
            correct_biases(corrected, self._calibration, self._how)
            after = dict(corrected.query_model.named_modules())
            for layer, name in self._names.items():
                self._corrections[name] = _bias(after[name]) - _bias(layer)

    def _chosen(self) -> tuple[list[str], list[str]]:
        names = {module: name for name, module in self._float.query_model.named_modules()}
        layers = convolutions_in_order(self._float, self._calibration[:1])
        gates = find_gates(self._float, layers, self._calibration[:1])
        self._names = {
            layer: names[layer]
            for place, layer in enumerate(layers)
            if layer not in gates and weights_rounded(place, layer, self._how)
        }
        stored = {layers[place] for place in self._how.float_convolutions if place < len(layers)}
        return (
            [name for layer, name in self._names.items() if layer not in stored],
            [name for layer, name in self._names.items() if layer in stored],
        )

    def _round_input(self, name: str) -> Callable[..., tuple[Tensor, ...]]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            del module
            return (rounded_values(inputs[0], self._ranges[name]), *inputs[1:])

        return hook

    def _correct(self, name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], made: Tensor) -> Tensor:
            del module, inputs
            correction = self._corrections.get(name)
            return made if correction is None else made + correction.view(1, -1, 1, 1)

        return hook


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights under the names that they have without rounding, unrounded."""
    return {
        name.replace(".parametrizations.weight.original", ".weight"): value
        for name, value in model.state_dict().items()
    }


def _bias(layer: nn.Module) -> Tensor:
    assert isinstance(layer, nn.Conv2d)
    return torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach()
