"""A run whose files are searched for. Read only, but for its exports."""

from __future__ import annotations

from pathlib import Path

import pytest
from distillations import config, run

from edgecsd.features import FeatureStore


@pytest.fixture(scope="module")
def made(photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched") / "run"
    run(photos, pixel_store.path, folder, config=config(epochs=0, head_steps=0, pooling="average"))
    return folder
