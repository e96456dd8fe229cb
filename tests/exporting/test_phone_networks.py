"""One small network of each family that phones run, through every step of an export; all cells: benchmarks/zoo.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgecsd.exporting.export import export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.backbones import BATCH_NORMS, to_input
from edgecsd.models.query import QueryModel, create_query_model, save_query_model
from edgecsd.photos.decoding import read_image
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.quantisation.precisions import Precision

TARGETS = ("onnx", "tflite", "coreml")
SIDE = 96
FAMILIES = (
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_035",
    "mobileone_s0",
    "repvit_m0_9",
    "fastvit_t8",
    "ghostnetv3_050",
    "efficientvit_m0",
    "mobilevitv2_050",
    "edgenext_xx_small",
    "starnet_s050",
    "shvit_s1",
    "test_vit",
)


def settled(name: str, photos: ImageSet) -> QueryModel:
    """The network with weights at random whose norms have seen photos, and whose branches all count."""
    torch.manual_seed(0)
    model = create_query_model(name, EmbeddingSpace(gallery_model="g", dim=32), size=SIDE, pretrained=False)
    contract = model.config.preprocess
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            module.momentum = None
            module.reset_running_stats()
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, 0.5, 1.5)
    pixels = [contract.pixels(read_image(photos.path(row))[0]) for row in range(16)]
    model.train()
    with torch.no_grad():
        model(torch.cat([to_input(photo[None], contract) for photo in pixels]))
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_the_family_is_exported_exactly_and_in_8_bit(name: str, photos: Path, tmp_path: Path) -> None:
    found = find_images(photos)
    save_query_model(settled(name, found), tmp_path)
    target = TARGETS[FAMILIES.index(name) % 3]
    exact = export(tmp_path, target, Precision.FP32, calibration=found)
    assert exact.parity["max_difference"] < 1e-5
    eight = export(tmp_path, target, Precision.W8A8, calibration=found)
    assert eight.parity["cosine_mean"] > 0.95
    assert eight.size_bytes < 0.5 * exact.size_bytes
