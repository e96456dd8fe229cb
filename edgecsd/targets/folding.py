"""Batch norms folded into the convolutions before them, ahead of tracing, whose time goes with the operators."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgecsd.models.backbones import BATCH_NORMS, behind_norm

# Largest difference of an embedding's values, which are at most 1
ALIKE = 1e-5


def folded(network: nn.Module, example: Tensor) -> nn.Module:
    """A copy of the network with every batch norm folded away that reads what one convolution gives.

    Converters do the same to the operators; done here, a batch norm's dozen is never traced. Which norm reads which
    convolution is seen by running the network on `example`. A network that answers otherwise afterwards (a convolution
    that others read beside its norm) is returned as it was given.

    network   in eval mode, one tensor in and one out
    """
    copied = copy.deepcopy(network)
    names = {module: name for name, module in copied.named_modules()}
    with torch.no_grad():
        before, pairs = _pairs(copied, example)
        for convolution, norm in pairs:
            fused = fuse_conv_bn_eval(convolution, norm)
            convolution.weight, convolution.bias = fused.weight, fused.bias
            copied.set_submodule(names[norm], behind_norm(norm))
        unlike = float((copied(example) - before).abs().max())
    return copied if unlike <= ALIKE else network  # a NaN is unlike


def _pairs(network: nn.Module, example: Tensor) -> tuple[Tensor, list[tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """What the network gives, and its convolutions and the norms that read them; each of them is run once."""
    runs: list[tuple[nn.Module, Tensor | None, Tensor]] = []

    def look(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        runs.append((module, inputs[0] if inputs else None, output))  # kept, so that no other tensor takes its id

    watched = [m for m in network.modules() if isinstance(m, nn.Conv2d) or type(m) in BATCH_NORMS]
    handles = [module.register_forward_hook(look) for module in watched]
    try:
        result: Tensor = network(example)
    finally:
        for handle in handles:
            handle.remove()
    times = Counter(module for module, _, _ in runs)
    readers = Counter(id(given) for _, given, _ in runs)
    makers = {id(output): module for module, _, output in runs if isinstance(module, nn.Conv2d)}
    found = []
    for module, given, _ in runs:
        maker = makers.get(id(given))
        alone = readers[id(given)] == 1 and times[module] == 1 and maker is not None and times[maker] == 1
        if isinstance(module, nn.BatchNorm2d) and maker is not None and alone:
            found.append((maker, module))
    return result, found
