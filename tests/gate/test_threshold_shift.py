"""What becomes of a product's threshold: shares counted by hand, and the threshold that keeps the share of accepts."""

from __future__ import annotations

import numpy as np
import pytest

from edgecsd.errors import BadInputError
from edgecsd.gate.threshold_shift import keeping_threshold, threshold_shift


def test_shares_counted_by_hand() -> None:
    gallery = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    file = np.array([0.75, 0.65, 0.72, 0.71, -np.inf])
    shift = threshold_shift(gallery, file, 0.7)
    assert shift.accepted.mean == 3 / 5 and shift.accepted_now.mean == 3 / 5
    assert shift.false_accepts.mean == 1 / 5 and shift.false_rejects.mean == 1 / 5
    assert shift.recalibrated is not None and shift.recalibrated.mean == pytest.approx((0.71 + 0.65) / 2)
    assert "20.0% wrongly rejected, 20.0% wrongly accepted" in shift.words()


def test_a_constant_shift_is_found_again() -> None:
    """Scores that are all 0.1 lower: 0.1 lower is the threshold, within the spacing of the scores and the interval."""
    gallery = np.random.default_rng(0).uniform(0.3, 1.0, 400)
    shift = threshold_shift(gallery, gallery - 0.1, 0.7)
    assert shift.recalibrated is not None
    assert shift.recalibrated.mean == pytest.approx(0.6, abs=0.01)
    assert shift.recalibrated.low <= shift.recalibrated.mean <= shift.recalibrated.high
    assert shift.recalibrated.high - shift.recalibrated.low < 0.02
    assert shift.false_accepts.mean == 0 and shift.false_rejects.mean == np.mean((gallery >= 0.7) & (gallery < 0.8))
    again = threshold_shift(gallery, gallery - 0.1, 0.7)
    assert again == shift


def test_the_kept_share_is_kept() -> None:
    random = np.random.default_rng(1)
    gallery, file = random.normal(0.6, 0.1, 200), random.normal(0.5, 0.2, 200)
    accepted = int((gallery >= 0.65).sum())
    assert int((file >= keeping_threshold(file, accepted)).sum()) == accepted


def test_where_no_threshold_can_be_read_off() -> None:
    scores = np.array([0.5, 0.6, 0.7])
    for threshold in (0.1, 0.9):
        shift = threshold_shift(scores, scores, threshold)
        assert shift.recalibrated is None and "accepts all or none" in shift.words()
    with pytest.raises(BadInputError, match=r"`threshold` 1\.5: a cosine lies between -1 and 1"):
        threshold_shift(scores, scores, 1.5)
