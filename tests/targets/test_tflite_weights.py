"""Every layer keeps its own weights in a written TFLite file, whatever order torch holds them in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.artifact import INPUT_NAME
from edgecsd.targets.tflite import convert as tflite_convert

SIDE, CHANNELS, LAYERS = 8, 16, 8


class Alike(nn.Module):
    """(1, S, S, 3) uint8 -> (1, S, S, C): convolutions of one shape, their weights channels last."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(3 if n == 0 else CHANNELS, CHANNELS, 3, padding=1) for n in range(LAYERS)]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        maps: Tensor = self.layers(image.float().permute(0, 3, 1, 2) / 255)
        return maps.permute(0, 2, 3, 1)

    def example(self) -> Tensor:
        return torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8)


class NoMetadata:
    baked = None

    def model_dump_json(self) -> str:
        return "{}"


def test_weights_of_one_shape_are_not_exchanged(tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    torch.manual_seed(0)
    model = Alike().eval()
    image = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = model(torch.from_numpy(image)).numpy()
    tflite_convert.convert(model, tmp_path / "alike.tflite", Precision.FP32, None, NoMetadata())  # type: ignore[arg-type]
    run = Interpreter(str(tmp_path / "alike.tflite"), num_threads=1).get_signature_runner()
    (found,) = run(**{INPUT_NAME: image}).values()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
