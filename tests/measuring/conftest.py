"""A run folder and real artifacts exported from it, made once; a few photos."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from bench_models import SIZE, make_model, save_artifact

from edgecsd.models.query import save_query_model


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUN with query_model.* and exports/model.onnx."""
    run = tmp_path_factory.mktemp("run")
    model = make_model()
    save_query_model(model, run)
    save_artifact(run, model, run / "exports" / "model.onnx")
    return run


@pytest.fixture(scope="session")
def onnx_file(run_folder: Path) -> Path:
    return run_folder / "exports" / "model.onnx"


@pytest.fixture(scope="session")
def tflite_file(run_folder: Path) -> Path:
    return save_artifact(run_folder, make_model(), run_folder / "exports" / "model.tflite")


@pytest.fixture(scope="session")
def coreml_file(run_folder: Path) -> Path:
    return save_artifact(run_folder, make_model(), run_folder / "exports" / "model.mlpackage")


@pytest.fixture(scope="session")
def photos_one_broken(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos, and a file that cannot be decoded."""
    folder = tmp_path_factory.mktemp("photos-one-broken")
    for number, file in enumerate(sorted(photos.rglob("*.jpg"))[:5]):
        shutil.copy(file, folder / f"{number}.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff not a photo")
    return folder


@pytest.fixture()
def pixels() -> np.ndarray:
    """(3, 32, 32, 3) uint8."""
    return np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
