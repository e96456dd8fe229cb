"""Means in two steps: the same mean, only of large maps, and in a written file nearer to the exact one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.artifact import INPUT_NAME
from edgecsd.targets.tflite import convert as tflite_convert
from edgecsd.targets.tflite.convert import MOST_AT_ONCE, MeansInSteps

SIDE = 160
assert SIDE * SIDE > MOST_AT_ONCE


class Counting(torch.overrides.TorchFunctionMode):
    """How many means are taken inside."""

    def __init__(self) -> None:
        super().__init__()
        self.means = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.means += func in (torch.mean, Tensor.mean)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "mean",
    [
        lambda maps: maps.mean((2, 3)),
        lambda maps: maps.mean((-1, -2), keepdim=True),
        lambda maps: maps.mean((2, 3), True),
        lambda maps: torch.mean(maps, dim=[2, 3], keepdim=True),
    ],
)
def test_a_large_map_in_two_steps(mean: Any) -> None:
    maps = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with Counting() as counting, MeansInSteps():
        found = mean(maps)
    assert counting.means == 2
    assert found.shape == mean(maps).shape
    torch.testing.assert_close(found, mean(maps), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "mean",
    [
        lambda maps: maps[:, :, :32, :32].mean((2, 3)),  # a small map
        lambda maps: maps.mean((1, 2)),
        lambda maps: maps.mean(3),
        lambda maps: maps.mean(),
        lambda maps: maps[0].mean((1, 2)),
        lambda maps: maps.mean((2, 3), dtype=torch.float64),
    ],
)
def test_other_means_are_left_alone(mean: Any) -> None:
    maps = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    with Counting() as counting, MeansInSteps():
        found = mean(maps)
    assert counting.means == 1
    assert torch.equal(found, mean(maps))


class Gate(nn.Module):
    """(1, S, S, 3) uint8 -> the mean of each plane, (1, 3): squeeze-and-excite's beginning, and nothing else."""

    def forward(self, image: Tensor) -> Tensor:
        return (image.float() / 255).permute(0, 3, 1, 2).mean((2, 3))

    def example(self) -> Tensor:
        return torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8)


class NoMetadata:
    baked = None

    def model_dump_json(self) -> str:
        return "{}"


@pytest.mark.slow
def test_the_mean_of_a_written_file(tmp_path: Path) -> None:
    """One value after the other in float32, as TFLite adds, is off by 1e-5 and more."""
    from ai_edge_litert.interpreter import Interpreter

    image = np.random.default_rng(0).integers(200, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    exact = (image.astype(np.float64) / 255).mean((1, 2))
    in_turn = np.cumsum(image[0].astype(np.float32) / 255, axis=None, dtype=np.float32)[-1] / image.size
    assert abs(in_turn - exact.mean()) > 2e-6
    tflite_convert.convert(Gate(), tmp_path / "gate.tflite", Precision.FP32, None, NoMetadata())  # type: ignore[arg-type]
    run = Interpreter(str(tmp_path / "gate.tflite"), num_threads=1).get_signature_runner()
    (found,) = run(**{INPUT_NAME: image}).values()
    assert np.abs(found.reshape(1, 3) - exact).max() < 5e-7
