"""A small real query model, and every artifact that can be made of it, each made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from target_models import DIM, PHOTOS, SIZE, Make, Pixels

from edgecsd.exporting.export import ExportResult, export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.query import QueryModel, create_query_model, load_query_model, save_query_model
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.decoding import read_image
from edgecsd.photos.finding import find_images
from edgecsd.targets.metadata import Target

# ImageNet's, which differ between the channels: a converter that takes one for all of them is found out
PREPROCESS = Preprocess(size=SIZE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture(scope="session")
def pixels(photos: Path) -> Pixels:
    """(PHOTOS, SIZE, SIZE, 3)"""
    images = find_images(photos)
    return np.stack([PREPROCESS.pixels(read_image(images.path(i))[0]) for i in range(PHOTOS)])


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, pixels: Pixels) -> Path:
    """A run folder: an untrained net with squeeze-and-excite, its batch-norm statistics taken from the photos."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(5)
    space = EmbeddingSpace(gallery_model="test-gallery", dim=DIM)
    model = create_query_model("test_efficientnet", space, preprocess=PREPROCESS, pretrained=False)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    model.train()
    with torch.no_grad():
        for _ in range(40):
            model(batch)
    save_query_model(model.eval(), folder)
    return folder


@pytest.fixture(scope="session")
def model(run: Path) -> QueryModel:
    return load_query_model(run)


@pytest.fixture(scope="session")
def artifact(run: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """artifact(target, precision): what `export` made, once a session."""
    folder = tmp_path_factory.mktemp("artifacts")
    made: dict[tuple[str, str], ExportResult] = {}

    def make(target: str, precision: str) -> ExportResult:
        key = (target, precision)
        if key not in made:
            made[key] = export(
                run,
                target,
                precision,
                out=folder / f"{precision}{Target(target).suffix}",
                calibration=find_images(photos),
                calibration_count=PHOTOS,
                licence="CC0-1.0",
            )
        return made[key]

    return make
