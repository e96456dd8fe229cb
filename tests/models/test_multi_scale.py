"""Multi-scale features: against a slow computation by hand, and where a gallery model cannot give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper

from edgecsd.errors import BadInputError
from edgecsd.gallery.extract import extract
from edgecsd.models.backbones import to_input
from edgecsd.models.gallery.loading import load_gallery_model
from edgecsd.models.gallery.model import GalleryOptions, usable_scales
from edgecsd.models.gallery.timm import TimmGalleryModel
from edgecsd.models.multi_scale import multi_scale, scaled_sides
from edgecsd.photos.finding import find_images

SCALES = (1.0, 1.4142, 0.7071)


def pixels(count: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a small timm network."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save(timm.create_model("test_efficientnet", pretrained=False).state_dict(), file)
    return file


def resized(image: np.ndarray, scale: float) -> np.ndarray:
    """Bilinear, in loops: (3, S, S) -> (3, s, s), s = floor(S scale), pixel centres at (i + 1/2) / scale - 1/2."""
    side = int(image.shape[1] * scale)
    out = np.zeros((3, side, side))
    for row in range(side):
        for column in range(side):
            places = [max((index + 0.5) / scale - 0.5, 0.0) for index in (row, column)]
            low = [int(place) for place in places]
            high = [min(index + 1, image.shape[1] - 1) for index in low]
            down, right = (place - index for place, index in zip(places, low, strict=True))
            out[:, row, column] = (
                (1 - down) * (1 - right) * image[:, low[0], low[1]]
                + (1 - down) * right * image[:, low[0], high[1]]
                + down * (1 - right) * image[:, high[0], low[1]]
                + down * right * image[:, high[0], high[1]]
            )
    return out


def test_timm_vectors_are_the_mean_of_unit_vectors_of_resized_tensors(weights: Path) -> None:
    model = load_gallery_model("timm:test_efficientnet", weights=weights, size=64, scales=SCALES)
    network = timm.create_model("test_efficientnet", pretrained=False)
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.eval().double()
    for image, vector in zip(pixels(2), model.embed(pixels(2)), strict=True):
        contract = model.preprocess
        normalised = ((image / 255.0 - contract.mean) / contract.std).transpose(2, 0, 1)
        mean = np.zeros(model.space.dim)
        for scale in SCALES:
            tensor = torch.from_numpy(normalised if scale == 1 else resized(normalised, scale))[None]
            with torch.inference_mode():
                pooled = network.forward_features(tensor).mean(dim=(2, 3))[0].numpy()
            mean += pooled / np.linalg.norm(pooled)
        assert np.abs(vector - mean / np.linalg.norm(mean)).max() < 1e-5


def test_one_scale_is_what_it_always_was(weights: Path) -> None:
    plain = load_gallery_model("timm:test_efficientnet", weights=weights, size=64)
    single = load_gallery_model("timm:test_efficientnet", weights=weights, size=64, scales=(1,))
    assert plain.space == single.space and "scales" not in plain.space.model_dump()
    assert np.array_equal(plain.embed(pixels(3)), single.embed(pixels(3)))
    averaged = multi_scale(lambda batch: batch.mean(dim=(2, 3)), to_input(pixels(2), plain.preprocess), (1.0,))
    assert torch.allclose(torch.linalg.vector_norm(averaged, dim=1), torch.ones(2))


def test_scales_are_part_of_the_space_in_any_order(weights: Path) -> None:
    def space(*scales: float) -> Any:
        options = GalleryOptions(weights=weights, size=64, scales=usable_scales(scales))
        return TimmGalleryModel("test_efficientnet", options).space

    assert not space(1, 0.7071).differences(space(0.7071, 1))
    fingerprints = {space(*scales).fingerprint for scales in ((1,), (0.7071,), (1, 0.7071), (1, 0.7), (1, 0.7, 1.4))}
    assert len(fingerprints) == 5


def test_a_dead_scale_is_not_averaged_away(weights: Path) -> None:
    def dies_when_small(batch: torch.Tensor) -> torch.Tensor:
        return batch.mean(dim=(2, 3)) * (batch.shape[-1] > 50)

    batch = to_input(pixels(2), load_gallery_model("timm:test_efficientnet", weights=weights, size=64).preprocess)
    assert torch.isnan(multi_scale(dies_when_small, batch, SCALES)).all()


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((), "one or more scales are needed"),
        ((1.0, 1.0), "each once"),
        ((1.0, 0.0), "greater than 0"),
        ((1.0, float("nan")), "`scales` 1.0,nan: scales"),
        ((1.0, 9.0), "less than or equal to 8"),
        ((1.0, 0.2), "makes the 64 px input of timm:test_efficientnet 12 px wide; 16 to 2048"),
    ],
)
def test_unusable_scales_are_refused(weights: Path, scales: tuple[float, ...], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        load_gallery_model("timm:test_efficientnet", weights=weights, size=64, scales=scales)


def test_a_network_of_one_size_is_refused_in_words() -> None:
    def patches(images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=1).reshape(len(images), 64 * 64)

    with pytest.raises(BadInputError, match=r"scale 1.4142: the network does not take images of 90 px \(shape "):
        multi_scale(patches, torch.zeros(2, 3, 64, 64), SCALES)


def test_sides_are_rounded_down() -> None:
    assert scaled_sides(224, SCALES, "m") == [224, 316, 158]
    with pytest.raises(BadInputError, match="2052 px wide"):
        scaled_sides(342, (6.0,), "m")


def onnx_model(file: Path, shape: list[Any], kind: int = TensorProto.FLOAT) -> Path:
    """Maximum and mean of each channel over the image: (B, 3, H, W) or (B, H, W, 3) -> (B, 6)."""
    axes = [1, 2] if kind == TensorProto.UINT8 else [2, 3]
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
        helper.make_node("ReduceMax", ["f", "axes"], ["h"], keepdims=0),
        helper.make_node("Concat", ["m", "h"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 6])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], axes)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    return file


@pytest.mark.parametrize("batch", ["b", 1])
def test_onnx_models_of_free_size_take_scales(tmp_path: Path, batch: Any) -> None:
    file = onnx_model(tmp_path / "m.onnx", [batch, 3, "h", "w"])
    model = load_gallery_model(f"onnx:{file}", size=64, scales=SCALES)
    for image, vector in zip(pixels(2), model.embed(pixels(2)), strict=True):
        normalised = ((image / 255.0 - 0.5) / 0.5).transpose(2, 0, 1)
        mean = np.zeros(6)
        for scale in SCALES:
            tensor = normalised if scale == 1 else resized(normalised, scale)
            row = np.concatenate([tensor.mean(axis=(1, 2)), tensor.max(axis=(1, 2))])
            mean += row / np.linalg.norm(row)
        assert np.abs(vector - mean / np.linalg.norm(mean)).max() < 1e-5
    assert model.space.scales == (0.7071, 1.0, 1.4142)


def test_models_of_one_size_refuse_scales(tmp_path: Path, photos: Path) -> None:
    fixed = onnx_model(tmp_path / "fixed.onnx", ["b", 3, 64, 64])
    with pytest.raises(BadInputError, match=r"`scales`: onnx:fixed\.onnx takes 64 px only"):
        load_gallery_model(f"onnx:{fixed}", scales=SCALES)
    raw = onnx_model(tmp_path / "raw.onnx", ["b", "h", "w", 3], TensorProto.UINT8)
    with pytest.raises(BadInputError, match="takes uint8 images"):
        load_gallery_model(f"onnx:{raw}", size=64, scales=SCALES)
    with pytest.raises(BadInputError, match="make_function_double takes images of one size only"):
        load_gallery_model("doubles:make_function_double", scales=SCALES)
    with pytest.raises(BadInputError, match="averages inside its own embed"):
        extract(find_images(photos), load_gallery_model("doubles:make_function_double"), tmp_path / "s", scales=SCALES)


def test_a_store_of_several_scales_goes_on_and_differs(weights: Path, photos: Path, tmp_path: Path) -> None:
    def run(name: str, **options: Any) -> Any:
        return extract(
            find_images(photos), "timm:test_efficientnet", tmp_path / name, weights=weights, gallery_size=64, **options
        )

    several, single = run("several", scales=SCALES), run("single")
    assert several.space.scales == (0.7071, 1.0, 1.4142)
    assert json.loads((tmp_path / "several" / "manifest.json").read_text())["space"]["scales"] == [0.7071, 1.0, 1.4142]
    assert several.space.fingerprint != single.space.fingerprint
    cosines = (several.vectors() * single.vectors()).sum(axis=1)
    assert cosines.min() > 0.2 and cosines.max() < 0.99999
    assert run("several", scales=(0.7071, 1.4142, 1)).manifest == several.manifest  # already whole
    with pytest.raises(BadInputError, match="made from other images, models or settings"):
        run("several")
