"""Gallery models from open_clip: the library's own vectors from the same files, and what is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import open_clip
import pytest
import torch
from gallery_towers import SHAPES, awake, library_vectors, picture, vectors_of, write_photos
from open_clip import factory
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import load_file, save_file

from edgecsd.errors import BadInputError, MissingBackendError
from edgecsd.models.frozen_forward import Engine
from edgecsd.models.gallery.loading import gallery_model_of, load_gallery_model
from edgecsd.models.gallery.model import prepare
from edgecsd.models.gallery.open_clip import _contract

TEXT = {"context_length": 8, "vocab_size": 32, "width": 32, "heads": 2, "layers": 1}
NATIVE = {"image_size": 32, "patch_size": 16, "width": 64, "head_width": 32, "layers": 2}
FROM_TIMM = {"timm_model_pretrained": False, "image_size": 32}
TOWERS: dict[str, dict[str, Any]] = {
    "small-native": {"vision_cfg": NATIVE},
    "small-mobile": {
        "vision_cfg": {**FROM_TIMM, "timm_model_name": "test_convnext", "timm_pool": "avg", "timm_proj": ""}
    },
    "small-linear": {
        "vision_cfg": {
            **FROM_TIMM,
            "image_size": 160,
            "timm_model_name": "test_vit",
            "timm_pool": "avg",
            "timm_proj": "linear",
        }
    },
    "small-siglip": {
        "vision_cfg": {
            **FROM_TIMM,
            "image_size": 160,
            "timm_model_name": "test_vit3",
            "timm_pool": "map",
            "timm_proj": "none",
        }
    },
    "small-resnet": {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}},
    "small-coca": {
        "vision_cfg": {**NATIVE, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {
            "context_length": 8,
            "vocab_size": 32,
            "width": 32,
            "heads": 2,
            "layers": 1,
            "attn_pooler_heads": 2,
        },
        "custom_text": True,
    },
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The weights files of small towers, which open_clip knows by name as long as this lasts."""
    folder, patch = tmp_path_factory.mktemp("towers"), pytest.MonkeyPatch()
    patch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    patch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    files = {}
    for name, config in TOWERS.items():
        (folder / f"{name}.json").write_text(json.dumps({"embed_dim": 48, "text_cfg": TEXT, **config}))
        open_clip.add_model_config(folder / f"{name}.json")
        files[name] = folder / f"{name}.safetensors"
        model = awake(open_clip.create_model(name, pretrained_text=False))
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, files[name])
    yield files
    patch.undo()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("shapes") / "photos")


@pytest.mark.parametrize("name", TOWERS)
def test_the_vectors_are_those_of_encode_image_on_the_same_files(
    name: str, weights: dict[str, Path], photos: Path
) -> None:
    spec = f"open_clip:{name}/{weights[name]}"
    model = load_gallery_model(spec)
    theirs, _, transform = open_clip.create_model_and_transforms(name, str(weights[name]), pretrained_text=False)
    wanted = library_vectors(photos, transform, theirs.eval().encode_image)
    ours = vectors_of(model, photos)
    assert (ours @ wanted.T).min() < 0.999  # or any vector would do
    assert (ours * wanted).sum(1).min() > 0.99999
    assert model.space.gallery_model == f"open_clip:{name}/{name}.safetensors"
    assert model.space.output == ("" if name == "small-siglip" else "head")
    assert gallery_model_of(model.space, weights=weights[name]).space == model.space


def test_the_weights_of_the_text_tower_are_no_part_of_the_space(weights: dict[str, Path], tmp_path: Path) -> None:
    state = load_file(weights["small-native"])
    spaces = []
    for name in ("logit_scale", "visual.proj"):
        save_file({**state, name: state[name] + 1}, tmp_path / "w.safetensors")
        spaces.append(load_gallery_model("open_clip:small-native", weights=tmp_path / "w.safetensors").space)
    own = load_gallery_model("open_clip:small-native", weights=weights["small-native"]).space
    assert own == spaces[0] != spaces[1]


@pytest.mark.parametrize("name", ["small-native", "small-mobile", "small-linear"])
def test_the_features_in_front_of_the_projection(name: str, weights: dict[str, Path]) -> None:
    model = load_gallery_model(f"open_clip:{name}", weights=weights[name], head=False)
    published = load_gallery_model(f"open_clip:{name}", weights=weights[name])
    assert model.space.output == "" and model.space.dim == 64 != published.space.dim
    visual = open_clip.create_model(name, str(weights[name]), pretrained_text=False).visual.eval()
    if name == "small-native":
        projection = visual.proj.T
    elif name == "small-linear":
        projection = visual.head.proj.weight
    else:
        projection = visual.trunk.head.fc.weight
    pixels = np.stack([model.preprocess.pixels(picture(*shape)) for shape in SHAPES.values()])
    projected = model.embed(pixels) @ projection.detach().numpy().T
    assert np.abs(projected / np.linalg.norm(projected, axis=1, keepdims=True) - published.embed(pixels)).max() < 1e-5


def test_tokens_are_pooled_as_asked(weights: dict[str, Path]) -> None:
    spec, file = "open_clip:small-native", weights["small-native"]
    token, average = (load_gallery_model(spec, weights=file, pooling=pooling) for pooling in ("token", "avg"))
    assert token.space == load_gallery_model(spec, weights=file, head=False).space
    assert average.space.output == "avg"
    assert gallery_model_of(average.space, weights=file).space == average.space
    pixels = picture(32, 32)
    assert np.abs(token.embed(np.asarray(pixels)[None]) - average.embed(np.asarray(pixels)[None])).max() > 1e-3
    for name, options, message in (
        ("small-native", {"pooling": "map"}, "`gallery_pooling` map: .* pools and projects in one step"),
        ("small-coca", {"pooling": "avg"}, "`gallery_pooling` avg: .* pools and projects in one step"),
        ("small-resnet", {"head": False}, "`gallery_head`=False: .* pools and projects in one step"),
        ("small-siglip", {"head": True}, "`gallery_head`: .* has no projection"),
        ("small-linear", {"pooling": "best"}, "`gallery_pooling` best: .* cannot pool so"),
    ):
        with pytest.raises(BadInputError, match=message):
            load_gallery_model(f"open_clip:{name}", weights=weights[name], **cast(Any, options))


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_contract_gives_the_pixels_of_open_clips_own_preparation_to_the_bit(mode: str, interpolation: str) -> None:
    config = PreprocessCfg(64, mean=(0.0,) * 3, std=(1.0,) * 3, resize_mode=mode, interpolation=interpolation)
    contract, transform = _contract(vars(config), "m"), image_transform_v2(config, is_train=False)
    for shape in [*SHAPES.values(), (640, 11), (67, 131)]:
        theirs = (transform(picture(*shape)) * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(contract.pixels(picture(*shape)), theirs), shape


def test_preparations_that_no_contract_has_are_refused() -> None:
    for change, message in (
        ({"size": (32, 48)}, "takes photos of 32 x 48 px"),
        ({"resize_mode": "longest"}, "its resize_mode longest frames photos in another colour"),
    ):
        with pytest.raises(BadInputError, match=message):
            _contract({**vars(PreprocessCfg()), **change}, "m")


def test_another_size_where_positions_can_be_interpolated(weights: dict[str, Path]) -> None:
    for name, size in (("small-native", 64), ("small-mobile", 64), ("small-linear", 192), ("small-siglip", 192)):
        model = load_gallery_model(f"open_clip:{name}", weights=weights[name], size=size)
        assert model.preprocess.size == size
        theirs = open_clip.create_model(name, str(weights[name]), force_image_size=size, pretrained_text=False).eval()
        photo = picture(size, size)
        batch = (
            torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255 - torch.tensor(model.preprocess.mean).view(3, 1, 1)
        ) / torch.tensor(model.preprocess.std).view(3, 1, 1)
        with torch.inference_mode():
            wanted = theirs.encode_image(batch[None])[0].numpy()
        assert model.embed(np.asarray(photo)[None])[0] @ wanted / np.linalg.norm(wanted) > 0.99999
    with pytest.raises(BadInputError, match=r"open_clip:small-resnet: open_clip cannot load it: Error.* in loading"):
        load_gallery_model("open_clip:small-resnet", weights=weights["small-resnet"], size=64)
    with pytest.raises(BadInputError, match=r"scale 1\.5: the network does not take images of 48 px"):
        load_gallery_model("open_clip:small-native", weights=weights["small-native"], scales=(1, 1.5))
    assert (
        load_gallery_model("open_clip:small-mobile", weights=weights["small-mobile"], scales=(1, 1.5)).space.dim == 48
    )


@pytest.mark.slow
def test_onnxruntime_runs_it_too(weights: dict[str, Path], photos: Path) -> None:
    model = load_gallery_model("open_clip:small-native", weights=weights["small-native"])
    by_torch = vectors_of(model, photos)
    prepare(model, 5, Engine.ONNXRUNTIME)
    assert np.abs(vectors_of(model, photos) - by_torch).max() < 1e-4


def test_a_folder_with_a_configuration_is_a_model(weights: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    folder.mkdir()
    with pytest.raises(BadInputError, match=r"ours has no open_clip_config\.json"):
        load_gallery_model(f"open_clip:{folder}")
    config = {"embed_dim": 48, "text_cfg": TEXT, **TOWERS["small-native"]}
    prepared = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash", "interpolation": "bilinear"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": prepared}))
    with pytest.raises(BadInputError, match="open_clip:ours: open_clip cannot load it: Required pretrained weights"):
        load_gallery_model(f"open_clip:{folder}")
    save_file(load_file(weights["small-native"]), folder / "open_clip_model.safetensors")
    model = load_gallery_model(f"open_clip:{folder}")
    assert model.space.gallery_model == "open_clip:ours"
    assert (model.preprocess.resize, model.preprocess.mean) == ("squash", (0.5, 0.5, 0.5))
    assert gallery_model_of(model.space, weights=folder).space == model.space


class Unsafe:
    def __reduce__(self) -> Any:
        return print, ("this ran",)


def test_weights_that_could_run_code_are_refused(
    weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": load_file(weights["small-native"]), "more": Unsafe()}, tmp_path / "w.pt")
    with pytest.raises(BadInputError, match=r"holds more than weights, which might run code"):
        load_gallery_model(f"open_clip:small-native/{tmp_path / 'w.pt'}")
    assert "this ran" not in capsys.readouterr().out
    torch.save({"state_dict": load_file(weights["small-native"])}, tmp_path / "w.pt")
    assert load_gallery_model(f"open_clip:small-native/{tmp_path / 'w.pt'}").space.dim == 48


def test_weights_without_finite_values_are_refused(weights: dict[str, Path], tmp_path: Path) -> None:
    state = load_file(weights["small-native"])
    save_file({**state, "visual.proj": state["visual.proj"] * np.nan}, tmp_path / "w.safetensors")
    with pytest.raises(BadInputError, match="open_clip:small-native gave a zero or non-finite embedding"):
        load_gallery_model("open_clip:small-native", weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ViT-B32/openai", "open_clip has no model 'ViT-B32'; it has for example: ViT-B-32, "),
        ("ViT-B-32", r"names no weights; give open_clip:ViT-B-32/TAG or .*its tags: openai, "),
        ("ViT-B-32/opennai", "neither a file nor a tag is called 'opennai'; .*its tags: openai, "),
        ("small-native", "names no weights; give open_clip:small-native/TAG or open_clip:small-native/FILE$"),
    ],
)
def test_names_that_name_nothing_are_refused(spec: str, message: str, weights: dict[str, Path]) -> None:
    with pytest.raises(BadInputError, match=message):
        load_gallery_model(f"open_clip:{spec}")


def test_a_file_does_not_say_how_its_photos_are_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def create(model: str, file: str, **options: Any) -> Any:
        made.append((model, file, options["force_preprocess_cfg"].get("mean")))
        raise RuntimeError("enough")

    (tmp_path / "w.safetensors").touch()
    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(BadInputError, match="enough"):
        load_gallery_model("open_clip:ViT-B-16-SigLIP2/webli", weights=tmp_path / "w.safetensors")
    assert made == [("ViT-B-16-SigLIP2", str(tmp_path / "w.safetensors"), (0.5, 0.5, 0.5))]
    with pytest.raises(
        BadInputError, match=r"how are photos prepared for this file\? .*open_clip:ViT-B-16-SigLIP2/TAG"
    ):
        load_gallery_model(f"open_clip:ViT-B-16-SigLIP2/{tmp_path / 'w.safetensors'}")


def test_without_a_network_published_weights_are_missed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> Any:
        raise OSError("Name or service not known")

    monkeypatch.setattr("edgecsd.models.hub.getaddrinfo", unknown)
    monkeypatch.setattr("edgecsd.models.hub.getproxies", dict)
    before = list(logging.getLogger().handlers)
    with pytest.raises(MissingBackendError, match=r"open_clip cannot load it: .*give its file with `weights`"):
        load_gallery_model("open_clip:hf-hub:nobody/nothing-of-that-name")
    assert logging.getLogger().handlers == before
