"""What check refuses to compare, and where the gallery model's features come from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from doubles import PixelGallery

from edgecsd.checking.check import check, default_folder
from edgecsd.checking.pairing import CheckOptions, gallery_features
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.exporting.export import export
from edgecsd.gallery.extract import extract
from edgecsd.gate.gates import Verdict
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.models.query import load_query_model, save_query_model
from edgecsd.photos.finding import find_images
from edgecsd.progress import SILENT


def test_another_space_is_refused(arguments: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    """Same dimension, same photos, another gallery model: nothing but the fingerprint tells them apart."""
    other = extract(find_images(photos), PixelGallery(seed=8), tmp_path / "other.store")
    build_index(other, tmp_path / "other.index")
    with pytest.raises(IncompatibleError, match=r"gallery_model.*double:pixels-7.*double:pixels-8"):
        check(**{**arguments, "index": tmp_path / "other.index"})
    for option in ({"reference": other.path}, {"options": CheckOptions(gallery=other.path)}):
        with pytest.raises(IncompatibleError, match=r"gallery_model.*double:pixels-8.*double:pixels-7"):
            check(**{**arguments, **option})


def test_another_run_is_refused(arguments: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    wrong = Path(shutil.copytree(folder / "run", tmp_path / "wrong"))
    for name in ("query_model.safetensors", "query_model.json"):
        shutil.copy(folder / "run" / "closed_form" / name, wrong / name)
    model = load_query_model(wrong)
    model.projection.weight.data *= 2
    save_query_model(model, wrong)
    with pytest.raises(
        IncompatibleError, match=r"was not exported from the query model in .*; give its own run with `run`"
    ):
        check(**arguments, run=wrong)
    moved = Path(shutil.copy(arguments["file"], tmp_path / "model.onnx"))
    with pytest.raises(BadInputError, match=r"no query model there to compare model\.onnx with; .*`run`"):
        check(**{**arguments, "file": moved})
    assert check(**{**arguments, "file": moved}, run=folder / "run", limit=4).passed


def test_a_file_for_study_is_refused(arguments: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    made = export(folder / "run", "onnx", "fp32", out=tmp_path / "model.onnx", study_only=True)
    with pytest.raises(BadInputError, match=r"model\.onnx: was exported with `study_only`"):
        check(**{**arguments, "file": made.path}, run=folder / "run")


def test_an_fp32_file_beside_an_fp32_file_is_refused(arguments: dict[str, Any], folder: Path) -> None:
    """It would not be looked at: before, the option was ignored."""
    other = folder / "run" / "exports" / "model-fp16.onnx"
    with pytest.raises(BadInputError, match=r"`fp32` .*model-fp16\.onnx: .*model-fp32\.onnx is fp32 itself"):
        check(**arguments, options=CheckOptions(fp32=other))
    with pytest.raises(BadInputError, match=r"`fp32` .*: is fp16 or of other weights"):
        check(**{**arguments, "file": other}, options=CheckOptions(fp32=other))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("an array", r"is no \.npz; `device` takes an \.npz that holds `ids` \(n,\) and `embeddings` \(n, 16\)"),
        (b"neither", r"is no \.npz; `device` takes"),
        ({"ids": ["a"]}, r"has no `embeddings`, but ids; `device` takes"),
        ({"vectors": np.eye(16)}, r"has no `ids`, but vectors; `device` takes"),
        ({"ids": np.array(["a", None], object), "embeddings": np.eye(2, 16)}, r"Python objects, which are not read;"),
        ({"ids": ["a", "b"], "embeddings": np.eye(3, 16)}, r"ids \(2,\), embeddings \(3, 16\) float64; `device` takes"),
        ({"ids": ["a"], "embeddings": np.eye(1, 12)}, r"embeddings \(1, 12\) float64; `device` takes"),
        ({"ids": ["a"], "embeddings": np.eye(1, 16, dtype=int)}, r"embeddings \(1, 16\) int64; `device` takes"),
    ],
)
def test_what_a_device_did_not_write_is_refused_before_a_photo_is_embedded(
    content: Any, message: str, arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecsd.checking.check.gallery_features", lambda *_: pytest.fail("the gallery model was run"))
    file = tmp_path / "device.npz"
    if isinstance(content, dict):
        np.savez(file, **content)
    elif content == "an array":
        file = tmp_path / "device.npy"
        np.save(file, np.eye(24, 16, dtype=np.float32))
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(BadInputError, match=message) as refused:
        check(**arguments, options=CheckOptions(device=file))
    assert "pickle" not in str(refused.value)


def test_a_file_that_is_not_there_is_called_that(tmp_path: Path, folder: Path) -> None:
    for run in (None, folder / "run"):
        with pytest.raises(BadInputError, match=r"none\.onnx: no such file$"):
            default_folder(tmp_path / "none.onnx", folder / "gallery.index", run)


def test_another_pixel_contract_is_caught(arguments: dict[str, Any], tmp_path: Path) -> None:
    """A file that says it wants to be fed by another filter than the query model was trained with."""
    model = onnx.load(str(arguments["file"]))
    (entry,) = [each for each in model.metadata_props if each.key == "edgecsd"]
    metadata = json.loads(entry.value)
    metadata["preprocess"]["interpolation"] = "bicubic"
    entry.value = json.dumps(metadata)
    onnx.save(model, str(tmp_path / "model.onnx"))
    result = check(**{**arguments, "file": tmp_path / "model.onnx"}, run=arguments["file"].parent.parent)
    (failed,) = [each for each in result.gates if each.name.startswith("pixel contract")]
    assert failed.verdict is Verdict.FAILED and "interpolation: bicubic against bilinear" in failed.message


def test_a_file_changed_since_it_was_written_is_caught(arguments: dict[str, Any], tmp_path: Path) -> None:
    """One bit of a weight that nobody would see in what the file finds."""
    whole = Path(shutil.copy(arguments["file"], tmp_path / "whole.onnx"))
    run, name = arguments["file"].parent.parent, "digests that the file states of itself"
    weights = onnx.load(str(whole)).graph.initializer
    largest = max((each.raw_data for each in weights), key=len)
    data = bytearray(whole.read_bytes())
    data[data.index(largest) + len(largest) // 4 * 2] ^= 1
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(data)
    found = [check(**{**arguments, "file": file}, run=run, limit=4) for file in (whole, damaged)]
    (ok,), (failed,) = ([each for each in result.gates if each.name.startswith(name)] for result in found)
    assert ok.verdict is Verdict.PASSED and failed.verdict is Verdict.FAILED
    assert "copy it again, or export it again" in failed.message
    assert found[0].passed and not found[1].passed


def test_the_gallery_models_features_must_come_from_somewhere(
    arguments: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match=r"'double:pixels-7' cannot be run from here: .*`reference` STORE"):
        check(**{**arguments, "reference": None})
    part = extract(find_images(photos).subset(range(5)), PixelGallery(), tmp_path / "part")
    result = check(**{**arguments, "reference": part.path})
    assert result.images == 5 and result.unreadable == 19
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    shutil.copy(photos / find_images(photos).ids[0], strangers / "unknown.jpg")
    with pytest.raises(BadInputError, match=r"has no features of the images in .*/strangers"):
        check(**{**arguments, "images": find_images(strangers)})


def test_a_gallery_with_nothing_to_find(arguments: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    one = extract(find_images(photos).subset([0]), PixelGallery(), tmp_path / "one.store")
    build_index(one, tmp_path / "one.index")
    with pytest.raises(BadInputError, match="a gallery of 1 has nothing to find beside the photo itself"):
        check(**{**arguments, "index": tmp_path / "one.index"})


def test_deeper_than_the_gallery(arguments: dict[str, Any]) -> None:
    """All the others are found by any model, in any order: that would prove nothing."""
    with pytest.raises(BadInputError, match="`k` 24: the gallery offers 1 to 23"):
        check(**{**arguments, "k": 24}, limit=4)
    assert check(**{**arguments, "k": 23}, limit=4).figures["overlap"] == 1.0


def test_the_gallery_model_is_run_as_the_index_was_made(photos: Path, tmp_path: Path) -> None:
    """With the index's own pixel contract and scales, not with the network's."""
    torch.manual_seed(1)
    network = timm.create_model("test_efficientnet", pretrained=False)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "contract.json").write_text('{"size": 48, "resize": "squash", "interpolation": "bicubic"}')
    store = extract(
        find_images(photos),
        "timm:test_efficientnet",
        tmp_path / "store",
        weights=tmp_path / "weights.pth",
        preprocess=tmp_path / "contract.json",
        scales=(1.0, 2**0.5),
    )
    index = build_index(store, tmp_path / "index")
    images = find_images(photos)
    queries = gallery_features(images, index, None, tmp_path / "weights.pth", SILENT)
    assert queries.photos.ids == images.ids and queries.unreadable == 0
    assert np.abs(queries.truth - store.vectors()).max() < 1e-3  # float16 in the store
