"""A run whose exports are looked into. Read only."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_files import TARGETS

from edgecsd.exporting.export import export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.query import create_query_model, save_query_model


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with one float file of each target in its `exports`."""
    folder = tmp_path_factory.mktemp("run")
    space = EmbeddingSpace(gallery_model="g", dim=16)
    model = create_query_model("test_efficientnet", space, pretrained=False, size=48)
    save_query_model(model, folder)
    for target in TARGETS:
        export(folder, target, "fp32")
    export(folder, "onnx", "fp32", ort_format=True)
    return folder
