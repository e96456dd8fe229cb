"""A run with its exports and an index over the same photos, for every test of check. Read only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from distillations import config, run

from edgecsd.checking.check import check
from edgecsd.exporting.export import export
from edgecsd.features.store import FeatureStore
from edgecsd.gate.verdict import CheckResult
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.photos.finding import find_images


@pytest.fixture(scope="session")
def folder(photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two ONNX exports of it, and an index over the photos' features."""
    made = tmp_path_factory.mktemp("check")
    run(photos, pixel_store.path, made / "run", config=config(epochs=0, head_steps=0, pooling="average"))
    for precision in ("fp32", "fp16"):
        export(made / "run", "onnx", precision, out=made / "run" / "exports" / f"model-{precision}.onnx")
    build_index(pixel_store, made / "gallery.index")
    return made


@pytest.fixture
def arguments(folder: Path, photos: Path, pixel_store: FeatureStore) -> dict[str, Any]:
    return {
        "file": folder / "run" / "exports" / "model-fp32.onnx",
        "index": folder / "gallery.index",
        "images": find_images(photos),
        "reference": pixel_store.path,
        "k": 5,
    }


@pytest.fixture(scope="session")
def result(folder: Path, photos: Path, pixel_store: FeatureStore) -> CheckResult:
    file = folder / "run" / "exports" / "model-fp32.onnx"
    return check(file, folder / "gallery.index", find_images(photos), reference=pixel_store.path, k=5)
