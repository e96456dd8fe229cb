"""The interleaved ratio: its arithmetic, and that it names what cannot run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecsd.errors import BadInputError
from edgecsd.measuring.child import MeasurementFailedError
from edgecsd.measuring.ratio import PRECISE, _summarise, imprecision, interleaved_ratio


def test_two_artifacts(onnx_file: Path, tflite_file: Path, pixels: np.ndarray) -> None:
    ratio = interleaved_ratio(onnx_file, tflite_file, pixels, blocks=4, runs=3, warmup_seconds=0.02)
    assert (ratio.runs, ratio.threads) == (3, 1) and 4 <= ratio.blocks <= 40
    assert 0 < ratio.low <= ratio.ratio <= ratio.high
    assert ratio.a_ms > 0 and ratio.b_ms > 0


def test_summary_is_the_median_of_block_ratios() -> None:
    ratio = _summarise([(2e6, 1e6), (9e6, 3e6), (4e6, 1e6)], threads=2, runs=5)
    assert (ratio.ratio, ratio.a_ms, ratio.b_ms) == (3.0, 4.0, 1.0)
    assert (ratio.low, ratio.high) == (pytest.approx(2.2), pytest.approx(3.8))


@pytest.mark.parametrize("scatter", [0.02, 0.1])
def test_two_ratios_that_are_precise_enough_agree_within_5_percent(scatter: float) -> None:
    """Of a machine that changes by so much from block to block."""
    random, found = np.random.default_rng(0), []
    for _ in range(60):
        times: list[tuple[float, float]] = []
        while len(times) < 20 or imprecision(times) > PRECISE:
            times.append((2e6 * (1 + scatter * random.normal()), 1e6))
        found.append(_summarise(times, threads=1, runs=5).ratio)
    assert np.mean(np.abs(np.array(found[::2]) / found[1::2] - 1) < 0.05) == 1
    assert imprecision([(1.0, 1.0)] * 2) == float("inf") and imprecision([(1.0, 1.0)] * 3) == 0


def test_a_file_that_cannot_run_is_named(onnx_file: Path) -> None:
    wrong = np.zeros((1, 48, 48, 3), np.uint8)
    with pytest.raises(MeasurementFailedError, match=r"model\.onnx: "):
        interleaved_ratio(onnx_file, onnx_file, wrong, blocks=1)


def test_counts_below_one_are_refused(onnx_file: Path, pixels: np.ndarray) -> None:
    with pytest.raises(BadInputError, match="0 blocks"):
        interleaved_ratio(onnx_file, onnx_file, pixels, blocks=0)
