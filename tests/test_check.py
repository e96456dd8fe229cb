"""check, end to end: a real exported file, the run it came from, and the index it is to be searched in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from distillations import config, run
from doubles import PixelGallery

from edgecsd.check import DEFAULT_THRESHOLDS, CheckResult, Gate, _gallery_features, check
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.exporting import export
from edgecsd.extract import extract
from edgecsd.features import FeatureStore
from edgecsd.files import sha256_file
from edgecsd.images import find_images, read_image
from edgecsd.index import GalleryIndex, build_index
from edgecsd.progress import SILENT
from edgecsd.query_models import load_query_model


@pytest.fixture(scope="module")
def folder(photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an ONNX export of it, and an index over the photos' features."""
    made = tmp_path_factory.mktemp("check")
    run(photos, pixel_store.path, made / "run", config=config(epochs=0, head_steps=0))
    export(made / "run", "onnx", "fp32", out=made / "run" / "exports" / "model.onnx")
    build_index(pixel_store, made / "gallery.index")
    return made


@pytest.fixture
def arguments(folder: Path, photos: Path, pixel_store: FeatureStore) -> dict[str, object]:
    return {
        "file": folder / "run" / "exports" / "model.onnx", "index": folder / "gallery.index", "images": photos,
        "reference": pixel_store.path, "k": 5,
    }  # fmt: skip


@pytest.fixture(scope="module")
def result(folder: Path, photos: Path, pixel_store: FeatureStore) -> CheckResult:
    file = folder / "run" / "exports" / "model.onnx"
    return check(file, folder / "gallery.index", photos, reference=pixel_store.path, k=5)


def test_a_faithful_export_passes(result: CheckResult, folder: Path, pixel_store: FeatureStore) -> None:
    assert result.passed, result.as_dict()
    assert result.images == 24 and result.unreadable == 0 and result.k == 5
    assert result.fingerprint == pixel_store.space.fingerprint and "onnxruntime" in result.runtime
    assert result.sha256 == sha256_file(folder / "run" / "exports" / "model.onnx")
    assert result.figures["cosine_min"] > 0.99999 and result.figures["overlap_loss"] == 0.0
    document = result.as_dict()
    assert document["passed"] is True and document["schema_version"] == 1
    assert [gate["threshold"] for gate in document["gates"]] == [0.99999, 0.9999, 0.01, 0.3, 0.005]


def test_figures_against_brute_force(
    result: CheckResult, folder: Path, photos: Path, pixel_store: FeatureStore
) -> None:
    """overlap@5 with the gallery model's own neighbours, the photo itself left out, by the torch model."""
    model, images = load_query_model(folder / "run"), find_images(photos)
    pixels = [model.config.preprocess.pixels(read_image(images.path(p))[0]) for p in range(24)]
    embedded, gallery = model.embed(np.stack(pixels)), pixel_store.vectors()
    shares, kept = [], []
    for query in range(24):
        ranked = [
            sorted((n for n in range(24) if n != query), key=lambda n, v=vector: -float(v @ gallery[n]))[:5]
            for vector in (gallery[query], embedded[query])
        ]
        shares.append(len(set(ranked[0]) & set(ranked[1])) / 5)
        kept.append(ranked[0][0] == ranked[1][0])
    assert result.figures["overlap_torch"] == pytest.approx(np.mean(shares))
    assert result.figures["overlap"] == pytest.approx(np.mean(shares), abs=0.01)
    assert result.figures["top1_kept"] == pytest.approx(np.mean(kept), abs=0.05)
    assert result.figures["cosine_to_gallery_mean"] == pytest.approx((embedded * gallery).sum(1).mean(), abs=1e-4)


@pytest.mark.parametrize("name", ["min_overlap", "min_cosine_mean", "min_cosine", "max_overlap_loss"])
def test_each_gate_fails_alone(name: str, result: CheckResult) -> None:
    gates = {gate.name: gate for gate in result.gates}
    assert len(gates) == 5
    figure = {
        "min_overlap": "overlap@5 with", "min_cosine_mean": "model, mean", "min_cosine": "model, lowest",
        "max_overlap_loss": "lost against",
    }[name]  # fmt: skip
    (gate,) = [gate for label, gate in gates.items() if figure in label]
    worse = gate.figure + 0.01 if gate.at_most else gate.figure - 0.01
    assert gate.passed and not Gate(gate.name, worse, gate.figure, gate.at_most).passed
    assert not Gate(gate.name, float("nan"), gate.threshold, gate.at_most).passed


def test_tight_thresholds_fail(arguments: dict[str, object]) -> None:
    result = check(**arguments, thresholds={"min_overlap": 1.0}, limit=6)  # type: ignore[arg-type]
    assert not result.passed and result.images == 6
    assert [gate.passed for gate in result.gates] == [True, True, True, False, True]
    with pytest.raises(BadInputError, match=r"thresholds: min_overlap = 2\.0: Input should be less than or equal to 1"):
        check(**arguments, thresholds={"min_overlap": 2.0})  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match=r"thresholds: min_map = 0\.5: Extra inputs are not permitted"):
        check(**arguments, thresholds={"min_map": 0.5})  # type: ignore[arg-type]
    assert set(DEFAULT_THRESHOLDS) == {"fp32", "fp16", "w8a32", "w8a8"}


def test_another_space_is_refused(arguments: dict[str, object], photos: Path, tmp_path: Path) -> None:
    """Same dimension, same photos, another gallery model: nothing but the fingerprint tells them apart."""
    other = extract(photos, PixelGallery(seed=8), tmp_path / "other.store")
    build_index(other, tmp_path / "other.index")
    with pytest.raises(IncompatibleError, match="gallery_model: double:pixels-7 against double:pixels-8"):
        check(**{**arguments, "index": tmp_path / "other.index"})  # type: ignore[arg-type]
    with pytest.raises(IncompatibleError, match="gallery_model: double:pixels-8 against double:pixels-7"):
        check(**{**arguments, "reference": other.path})  # type: ignore[arg-type]


def test_another_run_is_refused(arguments: dict[str, object], folder: Path, tmp_path: Path) -> None:
    wrong = Path(shutil.copytree(folder / "run", tmp_path / "wrong"))
    for name in ("query_model.safetensors", "query_model.json"):
        shutil.copy(folder / "run" / "closed_form" / name, wrong / name)
    model = load_query_model(wrong)
    from edgecsd.query_models import save_query_model

    model.projection.weight.data *= 2
    save_query_model(model, wrong)
    with pytest.raises(
        IncompatibleError, match=r"was not exported from the query model in .*; give its own run with --run"
    ):
        check(**arguments, run=wrong)  # type: ignore[arg-type]
    moved = shutil.copy(folder / "run" / "exports" / "model.onnx", tmp_path / "model.onnx")
    with pytest.raises(BadInputError, match=r"no query model there to compare model\.onnx with; .*--run"):
        check(**{**arguments, "file": moved})  # type: ignore[arg-type]
    assert check(**{**arguments, "file": moved}, run=folder / "run", limit=4).passed  # type: ignore[arg-type]


def test_the_gallery_models_features_must_come_from_somewhere(
    arguments: dict[str, object], photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match=r"'double:pixels-7' cannot be run from here: .*--reference STORE"):
        check(**{**arguments, "reference": None})  # type: ignore[arg-type]
    part = extract(find_images(photos).subset(range(5)), PixelGallery(), tmp_path / "part")
    result = check(**{**arguments, "reference": part.path})  # type: ignore[arg-type]
    assert result.images == 5 and result.unreadable == 19
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    shutil.copy(photos / find_images(photos).ids[0], strangers / "unknown.jpg")
    with pytest.raises(BadInputError, match=r"has no features of the images in .*/strangers"):
        check(**{**arguments, "images": strangers})  # type: ignore[arg-type]


def test_a_gallery_with_nothing_to_find(arguments: dict[str, object], photos: Path, tmp_path: Path) -> None:
    one = extract(find_images(photos).subset([0]), PixelGallery(), tmp_path / "one.store")
    build_index(one, tmp_path / "one.index")
    with pytest.raises(BadInputError, match="a gallery of 1 has nothing to find beside the photo itself"):
        check(**{**arguments, "index": tmp_path / "one.index"})  # type: ignore[arg-type]


def test_deeper_than_the_gallery(arguments: dict[str, object], folder: Path) -> None:
    result = check(**{**arguments, "k": 100}, limit=4)  # type: ignore[arg-type]
    assert result.figures["overlap"] == 1.0  # all the others, in any order
    assert len(GalleryIndex.open(folder / "gallery.index").ids) == 24


def test_the_gallery_model_is_run_as_the_index_was_made(photos: Path, tmp_path: Path) -> None:
    """With the index's own pixel contract and scales, not with the network's."""
    torch.manual_seed(1)
    network = timm.create_model("test_efficientnet", pretrained=False)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "contract.json").write_text('{"size": 48, "resize": "squash", "interpolation": "bicubic"}')
    store = extract(
        photos, "timm:test_efficientnet", tmp_path / "store", weights=tmp_path / "weights.pth",
        preprocess=tmp_path / "contract.json", scales=(1.0, 2**0.5),
    )  # fmt: skip
    index = build_index(store, tmp_path / "index")
    images = find_images(photos)
    kept, features, unreadable = _gallery_features(images, index, None, tmp_path / "weights.pth", SILENT)
    assert kept.ids == images.ids and unreadable == 0
    assert np.abs(features - store.vectors()).max() < 1e-3  # float16 in the store
