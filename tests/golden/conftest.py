"""An exported file, an index over the same photos, and the file's golden pack. Read only."""

from __future__ import annotations

from pathlib import Path

import pytest
from distillations import config, run

from edgecsd.exporting.export import export
from edgecsd.features.store import FeatureStore
from edgecsd.golden.writing import write_golden_pack
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.photos.finding import find_images


@pytest.fixture(scope="session")
def golden(photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run, model.onnx, gallery.index and the pack of the file."""
    made = tmp_path_factory.mktemp("golden")
    run(photos, pixel_store.path, made / "run", config=config(epochs=0, head_steps=0, pooling="average"))
    export(made / "run", "onnx", "fp32", out=made / "model.onnx")
    build_index(pixel_store, made / "gallery.index")
    write_golden_pack(
        made / "model.onnx",
        find_images(photos),
        made / "pack",
        index=made / "gallery.index",
        run=made / "run",
        k=5,
        cost_images=12,
    )
    return made
