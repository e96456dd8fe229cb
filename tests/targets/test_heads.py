"""Every head survives every target, a bottleneck in front of the pooling and two kinds of pooling joined too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from target_models import DIM, PHOTOS, Pixels

from edgecsd.exporting.export import export
from edgecsd.models.query import QueryModel, create_query_model, load_query_model, save_query_model
from edgecsd.models.query_config import Pooling, ProjectionKind
from edgecsd.photos.finding import find_images
from edgecsd.targets.artifact import ArtifactEmbedder

TARGETS = ("onnx", "tflite", "coreml")
LOWEST_COSINE = {"fp32": 0.99999, "w8a8": 0.97}


@pytest.fixture(scope="module")
def bottlenecked(model: QueryModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session's model with the authors' head, GeM with an exponent as it is learnt, and the average."""
    folder = tmp_path_factory.mktemp("bottleneck")
    torch.manual_seed(7)
    head = create_query_model(
        "test_efficientnet",
        model.config.space,
        preprocess=model.config.preprocess,
        pretrained=False,
        projection=ProjectionKind.BOTTLENECK,
        pooling=Pooling.GEM_AVERAGE,
        gem_p=2.4,
    )
    head.backbone.load_state_dict(model.backbone.state_dict())
    save_query_model(head, folder)
    return folder


@pytest.mark.parametrize(
    ("target", "precision"), [*((target, "fp32") for target in TARGETS), ("onnx", "w8a8"), ("tflite", "w8a8")]
)
def test_a_bottleneck_is_exported(
    target: str, precision: str, bottlenecked: Path, photos: Path, pixels: Pixels, tmp_path: Path
) -> None:
    suffix = "mlpackage" if target == "coreml" else target
    made = export(
        bottlenecked,
        target,
        precision,
        out=tmp_path / f"head.{suffix}",
        calibration=find_images(photos),
        calibration_count=PHOTOS,
    )
    expected = load_query_model(bottlenecked).embed(pixels)
    found = ArtifactEmbedder(made.path).embed(pixels)
    assert expected.shape == found.shape == (PHOTOS, DIM)
    assert (expected * found).sum(axis=1).min() > LOWEST_COSINE[precision]
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-3
