"""What it costs in retrieval to compute one convolution in 8 bit: its weights and what it reads, rounded in torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecsd.files.json_lines import JsonLog
from edgecsd.precision_search.held_out import BATCH, HeldOut
from edgecsd.progress import Reporter
from edgecsd.quantisation.bias_correction import convolutions_in_order, hooked, rounded_weights
from edgecsd.targets.activation_ranges import Range, activation_ranges
from edgecsd.targets.deploy import DeployModel

STEPS = 255  # of an activation in 8 bit


@dataclass(frozen=True)
class LayerCost:
    """One convolution alone in 8 bit. place: in the order of execution; loss: of overlap@10, relative to torch's."""

    place: int
    name: str
    weights: int
    loss: float
    cosine: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def layer_costs(
    deploy: DeployModel,
    calibration: NDArray[np.uint8],
    held_out: HeldOut,
    percentile: float,
    reporter: Reporter,
    log: Path,
    header: dict[str, Any],
) -> list[LayerCost]:
    """The cost of each convolution, a bottleneck's behind the backbone included, in the order of execution.

    The gates of squeeze-and-excite, which see a single pixel, stay float in every w8a8 file: they are left out.

    calibration   (n, S, S, 3) uint8, for the ranges of what the layers read
    log, header   the file that keeps them line by line, and what they belong to; they are not measured twice
    """
    kept = JsonLog(log, header)
    known = {line["place"]: LayerCost(**line) for line in kept.lines}
    layers = convolutions_in_order(deploy, calibration[:1])
    names = {module: name.removeprefix("backbone.") for name, module in deploy.query_model.named_modules()}
    ranges = input_ranges(deploy, layers, calibration, percentile)
    costs = []
    gates = find_gates(deploy, layers, calibration[:1])
    costed = [(place, layer) for place, layer in enumerate(layers) if layer not in gates]
    with reporter.task("what each layer costs in 8 bit", len(costed)) as advance:
        for place, layer in costed:
            advance(1)
            if place not in known:
                vectors = _with_one_rounded(deploy, layer, ranges[layer], held_out.pixels)
                known[place] = LayerCost(
                    place,
                    names[layer],
                    layer.weight.numel(),
                    float(held_out.lost(vectors).mean()),
                    held_out.cosine(vectors),
                )
                kept.add(known[place].as_dict())
            costs.append(known[place])
    return costs


def find_gates(deploy: nn.Module, layers: list[nn.Conv2d], photo: NDArray[np.uint8]) -> frozenset[nn.Conv2d]:
    """Those of the layers that read maps of one pixel, as in squeeze-and-excite; photo: (1, S, S, 3) uint8."""
    found: set[nn.Conv2d] = set()

    def look(layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].shape[-2:] == (1, 1):
            found.add(layer)

    with torch.inference_mode(), hooked(layers, look):
        deploy(torch.from_numpy(photo))
    return frozenset(found)


def input_ranges(
    deploy: nn.Module, layers: list[nn.Conv2d], calibration: NDArray[np.uint8], percentile: float
) -> dict[nn.Conv2d, Range]:
    """(lowest, highest) of what each layer reads, measured as for the exported files.

    deploy: (1, S, S, 3) uint8 -> embedding
    """
    names = {layer: str(place) for place, layer in enumerate(layers)}

    def values(photo: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        seen: dict[str, list[Tensor]] = {name: [] for name in names.values()}
        with (
            torch.inference_mode(),
            hooked(list(names), lambda layer, inputs: seen[names[layer]].append(inputs[0].flatten().clone())),
        ):
            deploy(torch.from_numpy(photo))
        return {name: torch.cat(parts).numpy() for name, parts in seen.items()}

    ranges = activation_ranges(values, calibration, percentile)
    return {layer: ranges[name] for layer, name in names.items()}


def _with_one_rounded(
    deploy: DeployModel, layer: nn.Conv2d, ends: Range, pixels: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """The embeddings (n, D) with this layer's weights and input rounded to 8 bit."""
    low, high = ends
    step = max((high - low) / STEPS, 1e-12)
    zero = round(-low / step)

    def rounded(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        del module
        return (((inputs[0] / step).round().clamp(-zero, STEPS - zero)) * step,)

    weight = layer.weight.data
    handle = layer.register_forward_pre_hook(rounded)
    try:
        layer.weight.data = rounded_weights(weight)
        with torch.inference_mode():
            parts = [deploy(torch.from_numpy(pixels[i : i + BATCH])) for i in range(0, len(pixels), BATCH)]
    finally:
        layer.weight.data = weight
        handle.remove()
    return torch.cat(parts).numpy()
