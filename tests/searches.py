"""Searches of a precision, on the photos that tests have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecsd.features.store import FeatureStore
from edgecsd.photos.finding import find_images
from edgecsd.precision_search import search
from edgecsd.precision_search.objectives import Objectives
from edgecsd.precision_search.search import search_precision

CALIBRATION = 8  # of 24 photos; the other 16 are searched with


def searched(made: Path, photos: Path, store: FeatureStore, **limits: Any) -> search.SearchResult:
    return search_precision(
        made,
        "onnx",
        find_images(photos),
        store.path,
        calibration_count=CALIBRATION,
        overwrite=True,
        objectives=Objectives(**limits),
    )


def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PERCENTILES", ())
    monkeypatch.setattr(search, "FLOAT_SHARES", (0.1,))
