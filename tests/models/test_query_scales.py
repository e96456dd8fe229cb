"""evaluate --query-scales: the query model's embeddings averaged over scales, beside those of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from edgecsd.errors import BadInputError
from edgecsd.evaluation.evaluate import evaluate
from edgecsd.features.store import FeatureStore
from edgecsd.models.backbones import to_input
from edgecsd.models.query import QueryModel, QueryModelEmbedder, create_query_model, save_query_model
from edgecsd.photos.finding import find_images

SCALES = (1.25, 1.0, 0.75)
MODEL = "query model at 0.75+1+1.25, asymmetric"


@pytest.fixture(scope="module")
def model(pixel_store: FeatureStore) -> QueryModel:
    torch.manual_seed(0)
    return create_query_model("test_efficientnet", pixel_store.space, pretrained=False, size=64)


@pytest.fixture(scope="module")
def run(model: QueryModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scales") / "run"
    folder.mkdir()
    save_query_model(model, folder)
    return folder


def test_the_embedding_is_the_mean_of_those_of_resized_tensors(model: QueryModel) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    batch, expected = to_input(pixels, model.config.preprocess), np.zeros((3, model.config.dim))
    for side in (80, 64, 48):
        resized = batch if side == 64 else interpolate(batch, size=(side, side), mode="bilinear", align_corners=False)
        with torch.inference_mode():
            one = model(resized).numpy().astype(np.float64)
        expected += one / np.linalg.norm(one, axis=1, keepdims=True)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = QueryModelEmbedder(model, SCALES).embed(pixels)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.abs(found - model.embed(pixels)).max() > 1e-3
    np.testing.assert_array_equal(QueryModelEmbedder(model).embed(pixels), model.embed(pixels))


def test_a_row_of_its_own_beside_the_one_scale(run: Path, pixel_store: FeatureStore, photos: Path) -> None:
    store = pixel_store.path
    plain = evaluate(store, store, images=find_images(photos), run=run)
    scaled = evaluate(store, store, images=find_images(photos), run=run, query_scales=SCALES)
    assert [row.name for row in scaled.rows] == [*(row.name for row in plain.rows), MODEL]
    for before, after in zip(plain.rows, scaled.rows, strict=False):
        np.testing.assert_array_equal(before.values["AP"], after.values["AP"])
    assert scaled.per_query.header.models[MODEL] == scaled.per_query.header.models["query model, asymmetric"]
    assert scaled.protocol == plain.protocol, "their files can be compared"


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((1.0, 0.1), "scale 0.1 makes the 64 px input of the query model 6 px wide; .*: leave this scale out"),
        ((1.0, 1.0), r"`query_scales` 1.0,1.0: "),
        ((float("nan"),), r"`query_scales` nan: "),
    ],
)
def test_unusable_scales_are_refused(
    run: Path, pixel_store: FeatureStore, photos: Path, scales: tuple[float, ...], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        evaluate(pixel_store.path, pixel_store.path, images=find_images(photos), run=run, query_scales=scales)


def test_files_have_one_size(pixel_store: FeatureStore, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="`query_scales` needs `run`: an exported file takes images of one size"):
        evaluate(
            pixel_store.path,
            pixel_store.path,
            images=find_images(photos),
            artifact=tmp_path / "f.onnx",
            query_scales=SCALES,
        )
