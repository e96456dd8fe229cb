"""The range guard: seeded networks that half precision breaks are named, operator and value; healthy ones pass."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgecsd.errors import GateFailedError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.pooling import scaled_gem, scaled_l2
from edgecsd.models.query import create_query_model
from edgecsd.quantisation.calibration import synthetic_pixels
from edgecsd.quantisation.fp16_emulation import HALF_TINY, emulate, round_to_half
from edgecsd.quantisation.range_guard import HALF_MAX, WARN_ABOVE, guard_ranges, require_half_precision
from edgecsd.targets.deploy import DeployModel

PIXELS = synthetic_pixels(32, 6)


class Seeded(nn.Module):
    """uint8 pixels -> convolution and batch normalisation -> `scale` times it -> pooling -> linear -> L2."""

    def __init__(self, scale: float = 1.0, *, naive: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 16, bias=False)
        self.scale, self.naive = scale, naive
        with torch.no_grad():
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2.0)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        maps = self.norm(self.stem((image.float() / 255.0).permute(0, 3, 1, 2))).relu() * self.scale
        if self.naive:
            vectors = self.head(maps.mean(dim=(2, 3)))
            return vectors / (vectors * vectors).sum(dim=1, keepdim=True).sqrt().clamp_min(1e-12)
        return scaled_l2(self.head(scaled_gem(maps, 3.0)))


def test_a_healthy_network_passes() -> None:
    torch.manual_seed(0)
    model = create_query_model("tf_efficientnet_lite0", EmbeddingSpace(gallery_model="g", dim=32), size=96)
    report = guard_ranges(DeployModel(model), synthetic_pixels(96, 4))
    assert report is not None and report.safe and report.warnings == ()
    assert report.cosine_min > 0.999
    require_half_precision(report, "lite0", ["fp32"])
    assert report.largest.largest == 255.0  # the pixels themselves
    assert report.reduction.reduction < WARN_ABOVE and "backbone" in report.reduction.name


def test_a_large_activation_in_front_of_pooling_is_named() -> None:
    report = guard_ranges(Seeded(1e5), PIXELS)
    assert report is not None and not report.safe
    assert report.failures[0].startswith("mul reaches ") and "above the 65504" in report.failures[0]
    assert any("not finite in fp16; it begins at mul" in failure for failure in report.failures)
    assert report.largest.name == "mul" and report.largest.largest > HALF_MAX
    assert json.loads(json.dumps(report.as_dict()))["cosine_min"] is None
    with pytest.raises(GateFailedError, match=r"a\.onnx computes in fp16 and must not ship: mul reaches .* written"):
        require_half_precision(report, "a.onnx", ["fp32", "w8a32"])


def test_features_that_vanish_are_named() -> None:
    """Features of rms near 1e-6: their squares, 1e-12, are nothing in fp16, and the embedding is zero or NaN."""
    report = guard_ranges(Seeded(1e-6, naive=True), PIXELS)
    assert report is not None and not report.safe
    assert any("it begins at mul, whose largest result is" in f and "0 in fp16" in f for f in report.failures)


def test_naive_l2_fails_where_scaled_l2_passes() -> None:
    """The head's own features of rms 300 are nothing much; the sum of their squares is."""
    naive, scaled = guard_ranges(Seeded(1e3, naive=True), PIXELS), guard_ranges(Seeded(1e3), PIXELS)
    assert naive is not None and not naive.safe and scaled is not None and scaled.safe
    assert "reaches" in naive.failures[0] or "sums" in naive.failures[0]


def test_a_quarter_of_the_limit_is_a_warning() -> None:
    top = guard_ranges(Seeded(1.0), PIXELS)
    assert top is not None
    scale = 20000.0 / float(_relu(Seeded()).max())
    report = guard_ranges(Seeded(scale), PIXELS)
    assert report is not None and report.safe
    assert any(w.startswith("mul comes near what fp16 holds: 20000") for w in report.warnings)


def _relu(module: Seeded) -> Tensor:
    with torch.no_grad():
        images = torch.from_numpy(PIXELS).float().div(255.0).permute(0, 3, 1, 2)
        return module.norm(module.stem(images)).relu()


def test_embeddings_that_are_broken_in_float_are_no_matter_of_half_precision() -> None:
    for value in (0.0, float("nan")):
        module = Seeded()
        with torch.no_grad():
            module.head.weight.fill_(value)
        assert guard_ranges(module, PIXELS) is None


def test_reductions_are_the_sums_of_magnitudes() -> None:
    """Against loops in double, batch normalisation folded by hand."""
    module = Seeded()
    batch = torch.from_numpy(PIXELS[:1])
    operators = {operator.name: operator for operator in emulate(module, [batch]).operators}
    images = (batch.double() / 255.0).permute(0, 3, 1, 2).numpy()[0]
    gain = (module.norm.weight / (module.norm.running_var + module.norm.eps).sqrt()).detach().double().numpy()
    offset = (module.norm.bias - module.norm.running_mean * torch.from_numpy(gain)).detach().double().numpy()
    weight = module.stem.weight.detach().double().numpy() * gain[:, None, None, None]
    largest, sums = 0.0, 0.0
    for channel in range(8):
        for row in range(15):
            for column in range(15):
                window = images[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
                largest = max(largest, abs(float((window * weight[channel]).sum()) + offset[channel]))
                sums = max(sums, float(np.abs(window * weight[channel]).sum()) + abs(offset[channel]))
    assert operators["stem convolution"].largest == pytest.approx(largest, rel=1e-5)
    assert operators["stem convolution"].reduction == pytest.approx(sums, rel=1e-5)
    assert not any("batch_norm" in name for name in operators)


def test_the_float_run_is_the_module_and_the_half_run_is_rounded() -> None:
    module = Seeded()
    batches = [torch.from_numpy(PIXELS[:4]), torch.from_numpy(PIXELS[4:])]
    emulation = emulate(module, batches)
    with torch.no_grad():
        expected = torch.cat([module(batch) for batch in batches])
    torch.testing.assert_close(emulation.floats, expected, atol=1e-6, rtol=1e-5)
    assert not torch.equal(emulation.halves, emulation.floats)
    assert torch.equal(emulation.halves, emulation.halves.half().float())
    assert torch.cosine_similarity(emulation.halves, emulation.floats).min() > 0.9999
    assert len(emulation.operators) > 10


def test_in_place_activations_are_rounded_too() -> None:
    class InPlace(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            values = image.float().flatten(1)[:, :16] * 1e-3
            return torch.nn.functional.silu(values, inplace=True)

    emulation = emulate(InPlace(), [torch.from_numpy(PIXELS)])
    assert torch.equal(emulation.halves, emulation.halves.half().float())
    assert emulation.operators[-1].name == "silu"


def test_rounding_to_half() -> None:
    values = torch.tensor([0.1, 65504.0, 65520.0, -1e6, HALF_TINY, HALF_TINY / 2, -1e-8, float("nan")])
    rounded = round_to_half(values)
    assert rounded[0] == np.float16(0.1).astype(np.float32) and rounded[1] == HALF_MAX
    assert torch.isposinf(rounded[2]) and torch.isneginf(rounded[3]) and rounded[7].isnan()
    assert rounded[4] == HALF_TINY and rounded[5] == 0 and rounded[6] == 0


def test_weights_below_the_smallest_normal_number_become_zero() -> None:
    """A linear layer's, and a convolution's behind which a normalisation makes them small."""
    linear = nn.Linear(8, 4, bias=False)
    linear.weight.data.fill_(3e-5)
    given = torch.full((2, 8), 200.0)
    made = emulate(linear.eval(), [given])
    assert made.floats.tolist() == [pytest.approx([0.048] * 4)] * 2 and made.operators[-1].vanishes
    folded = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1)).eval()
    folded[0].weight.data.fill_(1.0)
    folded[1].weight.data.fill_(3e-5)
    made = emulate(folded, [torch.full((1, 1, 2, 2), 200.0)])
    assert made.floats.flatten().tolist() == pytest.approx([0.006] * 4, rel=1e-4) and not made.halves.any()
