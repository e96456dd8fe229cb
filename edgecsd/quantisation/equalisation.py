"""Cross-layer equalisation: channels that 8 bit would hold in one range are made alike; in float nothing changes.

Nagel, van Baalen, Blankevoort, Welling: Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV
2019, section 4.1: what makes a channel is divided by a factor and what reads it multiplied. There both are weights with
one range a layer; here weights have one a channel, and what is made alike is the value between them (as in SmoothQuant,
Xiao et al., ICML 2023). Factors are powers of two: the float network gives the same embeddings, to the bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from edgecsd.quantisation.bias_correction import hooked

BALANCE = 0.5  # 1: only the value's channels are made alike; 0: only the columns of the weights that read them
NARROWEST = 1e-3  # of the widest channel: what is narrower is taken for that wide
# What a factor passes through, by the names of torch's operators: scaled channels give scaled channels.
PASSES = frozenset(
    {
        "add.Tensor",
        "add_.Tensor",
        "relu.default",
        "relu_.default",
        "max_pool2d.default",
        "avg_pool2d.default",
        "dropout.default",
        "clone.default",
        "contiguous.default",
        "alias.default",
    }
)


@dataclass
class Tied:
    """Values that must have the same factors, for they are added or are one another behind a ReLU.

    makers    names of modules whose outputs they are: batch norms, or convolutions without one
    readers   names of the convolutions that read them
    """

    makers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)


def equalise(network: nn.Module, pixels: NDArray[np.uint8]) -> int:
    """Change the network's weights in place; how many sets of tied values were made alike: all but those always zero.

    network  (1, S, S, 3) uint8 -> embedding, as it is exported; what it computes in float does not change
    pixels   (n, S, S, 3) uint8 calibration photos
    """
    sets = tied_values(network, pixels[:1])
    modules = dict(network.named_modules())
    widest = _widest(network, [_convolution(modules, name) for tied in sets for name in tied.readers], pixels)
    made_alike = 0
    for tied in sets:
        readers = [_convolution(modules, name) for name in tied.readers]
        values = torch.stack([widest[reader] for reader in readers]).amax(dim=0)
        if not values.any():
            continue
        factors = _factors(readers, values)
        for name in tied.makers:
            _divide(modules[name], factors)
        for reader in readers:
            reader.weight.data = _by_input(reader) * factors.view(reader.groups, 1, -1, 1, 1)
            reader.weight.data = reader.weight.data.flatten(0, 1)
        made_alike += 1
    return made_alike


def _factors(readers: list[nn.Conv2d], widest: Tensor) -> Tensor:
    """(C,) powers of two that the values are divided by. widest: (C,) largest absolute value of each, not all zero."""
    columns = torch.stack([_columns(reader) for reader in readers]).amax(dim=0)
    value = widest.clamp(min=float(widest.max()) * NARROWEST) / widest.max()
    exact = value**BALANCE / columns.clamp(min=NARROWEST) ** (1 - BALANCE)
    return torch.exp2(torch.log2(exact).round())


def _columns(reader: nn.Conv2d) -> Tensor:
    """(C,) how much of the range of some row of the weight (one range an output channel) each input channel takes."""
    weight = _by_input(reader).abs().amax(dim=(3, 4))  # (groups, out, in)
    rows = weight.amax(dim=2, keepdim=True).clamp(min=1e-12)
    return (weight / rows).amax(dim=1).flatten()


def _by_input(reader: nn.Conv2d) -> Tensor:
    """(groups, out, in, h, w) of the weight (groups * out, in, h, w)."""
    return reader.weight.detach().reshape(reader.groups, -1, *reader.weight.shape[1:])


def _divide(maker: nn.Module, factors: Tensor) -> None:
    for name in ("weight", "bias"):
        values = getattr(maker, name)
        if values is not None:
            values.data = values.data / factors.view(-1, *[1] * (values.dim() - 1))


def _widest(network: nn.Module, layers: list[nn.Conv2d], pixels: NDArray[np.uint8]) -> dict[nn.Conv2d, Tensor]:
    """(C,) largest absolute value of each channel that the layers read."""
    seen = {layer: torch.zeros(layer.in_channels) for layer in layers}

    def look(layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        seen[layer] = torch.maximum(seen[layer], inputs[0].abs().amax(dim=(0, 2, 3)))

    with torch.inference_mode(), hooked(layers, look):
        for photo in pixels:
            network(torch.from_numpy(photo[None]))
    return seen


def _convolution(modules: dict[str, nn.Module], name: str) -> nn.Conv2d:
    layer = modules[name]
    assert isinstance(layer, nn.Conv2d)
    return layer


def tied_values(network: nn.Module, photo: NDArray[np.uint8]) -> list[Tied]:
    """The sets of values that can be scaled: made by convolutions or batch norms alone, read by convolutions alone.

    A value that anything else touches cannot: ReLU6 has a bound that does not scale, SiLU is not homogeneous, pooling
    with a power and L2 mix channels. What is left in a network of linear bottlenecks is each chain of blocks with
    additions, its first value included, up to the convolution that widens the next.
    photo: (1, S, S, 3) uint8
    """
    program = torch.export.export(network, (torch.from_numpy(photo),), strict=False)
    return _Ties(program, network).found()


class _Ties:
    """Which values of an exported program are tied, in one walk through its graph."""

    def __init__(self, program: torch.export.ExportedProgram, network: nn.Module) -> None:
        self._modules = dict(network.named_modules())
        given = program.graph_signature
        self._names = {**given.inputs_to_parameters, **given.inputs_to_buffers}
        self._parent: dict[fx.Node, fx.Node] = {}
        self._frozen: set[fx.Node] = set()
        self._makers: list[tuple[fx.Node, str]] = []
        self._readers: list[tuple[fx.Node, str]] = []
        for node in program.graph.nodes:
            if node.op == "call_function":
                self._see(node)
            else:  # what comes in, weights that are added, what goes out
                self._frozen |= {node, *node.all_input_nodes}

    def found(self) -> list[Tied]:
        frozen = {self._root(node) for node in self._frozen}
        sets: dict[fx.Node, Tied] = {}
        for value, name in self._makers:
            sets.setdefault(self._root(value), Tied()).makers.append(name)
        for value, name in self._readers:
            sets.setdefault(self._root(value), Tied()).readers.append(name)
        shared = _doubles(name for _, name in self._makers) | _doubles(name for _, name in self._readers)
        return [
            tied
            for root, tied in sets.items()
            if root not in frozen and tied.makers and tied.readers and not shared & {*tied.makers, *tied.readers}
        ]

    def _see(self, node: fx.Node) -> None:
        kind = getattr(node.target, "__name__", str(node.target))
        module = self._module(node, kind)
        if module:
            value: Any = node.args[0]
            if kind.startswith("conv"):
                self._readers.append((value, module))
            else:
                self._frozen.add(value)
            self._makers.append((node, module))
        elif kind in PASSES and self._alike(node, kind):
            for value in node.all_input_nodes:
                self._tie(value, node)
        else:
            self._frozen |= {node, *node.all_input_nodes}

    def _module(self, node: fx.Node, kind: str) -> str:
        """The name of the convolution or batch norm that the node is, with weights of its own; "" of anything else."""
        if kind not in ("conv2d.default", "conv2d.padding", "batch_norm.default"):
            return ""
        weight = node.args[1]
        name = self._names.get(weight.name, "").rpartition(".")[0] if isinstance(weight, fx.Node) else ""
        expected = nn.Conv2d if kind.startswith("conv") else nn.BatchNorm2d
        return name if isinstance(self._modules.get(name), expected) else ""

    def _alike(self, node: fx.Node, kind: str) -> bool:
        """Whether all that goes in is a value with as many channels as what comes out: nothing is a number or a row."""
        own = node.meta["val"].shape
        values = [value.meta["val"].shape for value in node.all_input_nodes]
        plain = [a for a in node.args if isinstance(a, int | float)] if kind.startswith("add") else []
        return not plain and len(own) == 4 and all(len(shape) == 4 and shape[:2] == own[:2] for shape in values)

    def _tie(self, one: fx.Node, other: fx.Node) -> None:
        self._parent[self._root(one)] = self._root(other)

    def _root(self, node: fx.Node) -> fx.Node:
        while node in self._parent:
            node = self._parent[node]
        return node


def _doubles(names: Iterable[str]) -> set[str]:
    """Modules that the network goes through more than once: one factor would have to serve several values."""
    return {name for name, count in Counter(names).items() if count > 1}
