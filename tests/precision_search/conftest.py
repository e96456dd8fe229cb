"""A run whose files are searched for. Read only, but for its exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from distillations import config, run

from edgecsd.features.store import FeatureStore
from edgecsd.models.query import load_query_model
from edgecsd.models.query_config import read_config
from edgecsd.photos.finding import find_images
from edgecsd.precision_search.held_out import HeldOut


@pytest.fixture(scope="module")
def made(photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched") / "run"
    run(photos, pixel_store.path, folder, config=config(epochs=0, head_steps=0, pooling="average"))
    return folder


@pytest.fixture(scope="module")
def calibration(made: Path, photos: Path) -> np.ndarray:
    contract, images = read_config(made).preprocess, find_images(photos)
    return np.stack([contract.pixels(images.read(position).image) for position in range(8)])


@pytest.fixture
def held_out(made: Path, photos: Path, pixel_store: FeatureStore) -> HeldOut:
    images, model = find_images(photos), load_query_model(made)
    pixels = np.stack([model.config.preprocess.pixels(images.read(p).image) for p in range(16)])
    rows = np.array([pixel_store.row_of[item] for item in images.ids[:16]])
    judge = HeldOut(pixels, pixel_store.vectors()[rows], rows, pixel_store)
    judge.start_from(model)
    return judge
