"""Percentile ranges against numpy's percentiles of all values at once."""

from __future__ import annotations

import numpy as np
import pytest

from edgecsd.quantisation.precisions import STANDARD_PERCENTILE
from edgecsd.targets.activation_ranges import BINS, NARROWEST, activation_ranges


def ranges(arrays: dict[str, np.ndarray], percentile: float = 99.0) -> dict[str, tuple[float, float]]:
    """The ranges of arrays (n, ...): row i belongs to photo i, which is known by its only pixel."""
    count = len(next(iter(arrays.values())))
    photos = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    return activation_ranges(
        lambda photo: {name: array[int(photo[0, 0, 0, 0])] for name, array in arrays.items()}, photos, percentile
    )


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
def test_percentiles_over_all_photos(scale: float) -> None:
    random = np.random.default_rng(0)
    spread = np.linspace(0.5, 3.0, 12)[:, None, None] * scale
    values = (random.standard_normal((12, 40, 40)) * spread).astype(np.float32)
    (low, high) = ranges({"a": values})["a"]
    width = float(values.max() - values.min()) / (BINS - 1)
    assert low == pytest.approx(np.percentile(values.astype(np.float64), 0.5), abs=2 * width)
    assert high == pytest.approx(np.percentile(values.astype(np.float64), 99.5), abs=2 * width)


def test_one_outlier_does_not_widen_the_range() -> None:
    values = np.random.default_rng(1).uniform(0, 1, (4, 100, 100)).astype(np.float32)
    values[2, 3, 4] = 50.0
    low, high = ranges({"a": values}, 99.98)["a"]
    assert low == 0.0 and 0.98 < high < 1.1


def test_zero_lies_in_every_range() -> None:
    found = ranges(
        {"above": np.full((2, 5), 3.0, np.float32), "below": np.linspace(-4, -2, 10, dtype=np.float32).reshape(2, 5)}
    )
    assert found["above"] == (0.0, 3.0)
    assert found["below"][1] == 0.0 and found["below"][0] == pytest.approx(-4.0, abs=1e-3)


def test_a_dead_channel_has_a_range_that_can_be_divided_by() -> None:
    assert ranges({"dead": np.zeros((3, 7), np.float32)})["dead"] == (0.0, NARROWEST)
    almost = np.full((3, 7), 5.0, np.float32)
    almost[1, 1] = np.nextafter(np.float32(5.0), np.float32(6.0))
    low, high = ranges({"almost": almost})["almost"]
    assert low == 0.0 and high == pytest.approx(5.0, rel=1e-6)


def test_one_photo_far_beyond_the_others_does_not_take_their_steps() -> None:
    """Each photo counts alike. A cut over all values leaves the far photo whole: its values are a share of them."""
    random = np.random.default_rng(2)
    values = np.abs(random.standard_normal((32, 3000))).astype(np.float32)
    values[7] *= 300
    assert ranges({"a": values}, 99.9)["a"][1] > 300, "of one percentile"
    _, high = ranges({"a": values}, STANDARD_PERCENTILE)["a"]
    assert high == pytest.approx(values.max(axis=1).mean(), rel=1e-3)


def test_the_percentile_stands_where_it_makes_the_smaller_error() -> None:
    """Of photos that reach to 1 and to 3 the mean, 2, would clip a third of what half of them hold."""
    values = np.random.default_rng(3).uniform(0, 1, (16, 4000)).astype(np.float32)
    values[::2] *= 3
    assert ranges({"a": values}, STANDARD_PERCENTILE)["a"][1] == pytest.approx(3, rel=1e-2)
