"""Gallery models from transformers: the library's own vectors from the same files, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers as t
from gallery_towers import SHAPES, awake, library_vectors, picture, vectors_of, write_photos
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgecsd.errors import BadInputError, MissingBackendError
from edgecsd.models.frozen_forward import Engine
from edgecsd.models.gallery.image_processor import _crop_pct, contract_of
from edgecsd.models.gallery.loading import gallery_model_of, load_gallery_model
from edgecsd.models.gallery.model import prepare
from edgecsd.photos.contract import Interpolation, Preprocess, Resize

VISION = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 32,
    "max_position_embeddings": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SQUARE, CUT = {"size": {"height": 64, "width": 64}}, {"size": {"shortest_edge": 73}, "crop_size": 64}
CONVNEXT = {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "image_size": 64}


def siglip() -> Any:
    return t.SiglipModel(t.SiglipConfig(vision_config=VISION, text_config=TEXT))


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "clip": lambda: (
        t.CLIPModel(t.CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=48)),
        t.CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=64),
    ),
    "clip-tower": lambda: (
        t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(**VISION, projection_dim=48)),
        t.CLIPImageProcessorPil(**CUT),
    ),
    "siglip": lambda: (siglip(), t.SiglipImageProcessorPil(**SQUARE)),
    "siglip2": lambda: (siglip(), t.SiglipImageProcessorPil(**SQUARE, resample=2)),
    "dinov2": lambda: (t.Dinov2Model(t.Dinov2Config(**VISION)), t.BitImageProcessorPil(**CUT)),
    "dinov3": lambda: (
        t.DINOv3ViTModel(t.DINOv3ViTConfig(**VISION, num_register_tokens=4)),
        t.DINOv3ViTImageProcessor(**SQUARE),
    ),
    "dinov3-convnext": lambda: (
        t.DINOv3ConvNextModel(t.DINOv3ConvNextConfig(**CONVNEXT)),
        t.DINOv3ViTImageProcessor(**SQUARE),
    ),
    "vit": lambda: (t.ViTModel(t.ViTConfig(**VISION)), t.ViTImageProcessorPil(**SQUARE)),
    "convnext": lambda: (
        t.ConvNextModel(t.ConvNextConfig(**CONVNEXT)),
        t.ConvNextImageProcessorPil(size={"shortest_edge": 64}),
    ),
}
PROJECTED = ("clip", "clip-tower")
IN_FLOATS = ("dinov3", "dinov3-convnext")  # transformers resizes their photos without rounding to whole levels


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `save_pretrained` writes of a small network of each family and its image processor."""
    root, made = tmp_path_factory.mktemp("towers"), {}
    for name, make in FAMILIES.items():
        network, processor = make()
        made[name] = root / name
        cast(Any, awake(network)).save_pretrained(made[name])
        processor.save_pretrained(made[name])
    return made


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("shapes") / "photos")


def published(folder: Path) -> tuple[Callable[[Image.Image], Tensor], Callable[[Tensor], Tensor]]:
    """The library's own way from a photo to pixels, and on to vectors."""
    processor = t.AutoImageProcessor.from_pretrained(folder, backend="pil")
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    network = getattr(t, name).from_pretrained(folder)

    def encode(batch: Tensor) -> Tensor:
        if hasattr(network, "get_image_features"):
            return cast(Tensor, network.get_image_features(pixel_values=batch).pooler_output)
        given = network(pixel_values=batch)
        return cast(Tensor, given.image_embeds if "image_embeds" in given else given.pooler_output)

    return lambda image: cast(Tensor, processor(images=image, return_tensors="pt")["pixel_values"][0]), encode


@pytest.mark.parametrize("name", FAMILIES)
def test_the_vectors_are_the_librarys_own_on_the_same_files(name: str, folders: dict[str, Path], photos: Path) -> None:
    model = load_gallery_model(f"transformers:{folders[name]}")
    wanted = library_vectors(photos, *published(folders[name]))
    ours = vectors_of(model, photos)
    assert (ours @ wanted.T).min() < 0.99  # or any vector would do
    assert (ours * wanted).sum(1).min() > (0.999 if name in IN_FLOATS else 0.99999)
    assert model.space.gallery_model == f"transformers:{name}"
    assert model.space.output == ("head" if name in PROJECTED else "")
    assert gallery_model_of(model.space, weights=folders[name]).space == model.space


@pytest.mark.parametrize("name", IN_FLOATS)
def test_of_pixels_that_are_resized_in_floats_the_vectors_are_the_librarys_own(
    name: str, folders: dict[str, Path]
) -> None:
    model = load_gallery_model(f"transformers:{folders[name]}")
    photo = picture(64, 64)  # nothing to resize
    prepare_theirs, encode = published(folders[name])
    with torch.inference_mode():
        wanted = encode(prepare_theirs(photo)[None])[0].numpy()
    assert model.embed(np.asarray(photo)[None])[0] @ wanted / np.linalg.norm(wanted) > 0.999999


def test_of_two_towers_the_one_for_photos_counts(folders: dict[str, Path], tmp_path: Path) -> None:
    whole = t.CLIPModel.from_pretrained(folders["clip"])
    config = t.CLIPVisionConfig(**VISION, projection_dim=48)
    tower = t.CLIPVisionModelWithProjection(config)
    tower.load_state_dict({k: v for k, v in whole.state_dict().items() if k.startswith(("vision", "visual"))})
    for kept, name in ((tower, "clip"), (whole.half(), "half")):
        kept.save_pretrained(tmp_path / name)
        t.AutoImageProcessor.from_pretrained(folders["clip"], backend="pil").save_pretrained(tmp_path / name)
    space = load_gallery_model(f"transformers:{folders['clip']}").space
    assert load_gallery_model(f"transformers:{tmp_path / 'clip'}").space == space
    assert load_gallery_model(f"transformers:{tmp_path / 'half'}").space.weights_digest != space.weights_digest


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov3", "dinov3-convnext", "vit"])
def test_features_are_pooled_as_asked(name: str, folders: dict[str, Path]) -> None:
    spec, prefix = f"transformers:{folders[name]}", {"siglip": 0, "dinov3": 5}.get(name, 1)
    network = t.AutoModel.from_pretrained(folders[name])
    vision = getattr(network, "vision_model", network)
    photo = np.asarray(picture(64, 64))[None]
    own = load_gallery_model(spec, head=False)
    batch = (
        torch.from_numpy(photo.copy()).permute(0, 3, 1, 2) / 255 - torch.tensor(own.preprocess.mean).view(3, 1, 1)
    ) / torch.tensor(own.preprocess.std).view(3, 1, 1)
    with torch.inference_mode():
        given = vision(pixel_values=batch)
    tokens = given.last_hidden_state
    wanted = {"": given.pooler_output, "avg": tokens[:, prefix:].mean(1)}
    if prefix:
        wanted["token"] = tokens[:, 0]
    for pooling, vector in wanted.items():
        model = load_gallery_model(spec, pooling=pooling) if pooling else own
        same = pooling == "token" and name.startswith("dino")
        assert model.space.output == ("" if same else pooling)
        assert model.embed(photo)[0] @ vector[0].numpy() / vector.norm() > 0.999999
        assert gallery_model_of(model.space, weights=folders[name]).space == model.space
    refused = ["best", *(["token"] if not prefix else ["map"])]
    for pooling in refused:
        with pytest.raises(BadInputError, match=f"`gallery_pooling` {pooling}: transformers:{name} cannot pool so"):
            load_gallery_model(spec, pooling=pooling)
    if name == "siglip":
        assert load_gallery_model(spec, pooling="map").space == load_gallery_model(spec).space
    if name != "clip":
        with pytest.raises(BadInputError, match=f"`gallery_head`: transformers:{name} has no projection"):
            load_gallery_model(spec, head=True)


def test_features_in_front_of_a_projection_have_no_projection(folders: dict[str, Path]) -> None:
    spec = f"transformers:{folders['clip']}"
    features, projected = load_gallery_model(spec, head=False), load_gallery_model(spec)
    projection = load_file(folders["clip"] / "model.safetensors")["visual_projection.weight"].numpy()
    photo = np.asarray(picture(64, 64))[None]
    vector = features.embed(photo) @ projection.T
    assert (features.space.dim, projected.space.dim) == (64, 48)
    assert np.abs(vector / np.linalg.norm(vector) - projected.embed(photo)).max() < 1e-5


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2", "dinov3", "vit"])
def test_at_another_size_positions_are_interpolated_as_the_library_does(name: str, folders: dict[str, Path]) -> None:
    model = load_gallery_model(f"transformers:{folders[name]}", size=96)
    assert model.preprocess.size == 96
    network = t.AutoModel.from_pretrained(folders[name])
    more = {} if name.startswith("dino") else {"interpolate_pos_encoding": True}
    photo = np.asarray(picture(96, 96))[None]
    batch = (
        torch.from_numpy(photo.copy()).permute(0, 3, 1, 2) / 255 - torch.tensor(model.preprocess.mean).view(3, 1, 1)
    ) / torch.tensor(model.preprocess.std).view(3, 1, 1)
    with torch.inference_mode():
        encode = getattr(network, "get_image_features", network)
        wanted = encode(pixel_values=batch, **more).pooler_output[0].numpy()
    assert model.embed(photo)[0] @ wanted / np.linalg.norm(wanted) > 0.999999
    assert load_gallery_model(f"transformers:{folders[name]}", scales=(1, 1.5)).space.scales == (1, 1.5)


def test_a_network_of_one_size_is_refused_another(tmp_path: Path) -> None:
    config = t.LevitConfig(
        image_size=64,
        hidden_sizes=[16, 32, 48],
        num_attention_heads=[2, 2, 2],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
        down_ops=[["Subsample", 8, 2, 4, 2, 2], ["Subsample", 8, 4, 4, 2, 2]],
    )
    cast(Any, awake(t.LevitModel(config))).save_pretrained(tmp_path / "one")
    assert load_gallery_model(f"transformers:{tmp_path / 'one'}", preprocess=Preprocess(size=64)).space.dim == 48
    with pytest.raises(BadInputError, match="transformers:one takes no images of 96 x 96 px"):
        load_gallery_model(f"transformers:{tmp_path / 'one'}", preprocess=Preprocess(size=96))


@pytest.mark.parametrize(
    "processor",
    [
        t.CLIPImageProcessorPil(),
        t.CLIPImageProcessorPil(size={"shortest_edge": 235}, crop_size=224),
        t.CLIPImageProcessorPil(size={"height": 240, "width": 240}, crop_size=224, do_normalize=False),
        t.SiglipImageProcessorPil(),
        t.BitImageProcessorPil(size={"shortest_edge": 256}, crop_size=224),
        t.ViTImageProcessorPil(),
        t.ConvNextImageProcessorPil(size={"shortest_edge": 224}),
        t.ConvNextImageProcessorPil(),
    ],
)
def test_the_contract_gives_the_pixels_of_the_processor_by_pillow_to_the_bit(processor: Any) -> None:
    contract = contract_of(processor, "m")
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (contract.mean, contract.std))
    for shape in [*SHAPES.values(), (100, 200), (200, 100), (1, 1), (333, 250), (1201, 933)]:
        given = processor(images=picture(*shape), return_tensors="np")["pixel_values"][0]
        levels = np.round((given.astype(np.float64) * std + mean) * 255).transpose(1, 2, 0)
        assert np.array_equal(contract.pixels(picture(*shape)), levels), shape


def test_of_an_odd_remainder_transformers_cuts_less_in_front_than_torchvision() -> None:
    values = {"size": 224, "crop_pct": 224 / 235, "interpolation": Interpolation.BICUBIC}
    photo = picture(235, 235)
    ours, theirs = (
        Preprocess(resize=resize, **cast(Any, values)).pixels(photo)
        for resize in (Resize.SHORTER_SIDE_THEN_FLOOR_CROP, Resize.SHORTER_SIDE_THEN_CROP)
    )
    assert np.array_equal(ours, np.asarray(photo)[5:229, 5:229])
    assert np.array_equal(theirs, np.asarray(photo)[6:230, 6:230])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_resize": False}, "do_resize False"),
        ({"do_rescale": False}, "do_rescale False"),
        ({"rescale_factor": 1 / 127.5}, r"rescale_factor 0\.0078"),
        ({"resample": 1}, "resample 1: neither bilinear"),
        ({"do_center_crop": False}, "size shortest_edge 224 and do_center_crop False: no square"),
        ({"crop_size": 256}, "crop_size 256, larger than size 224: it frames photos in black"),
        ({"size": {"height": 224, "width": 192}, "do_center_crop": False}, "no square"),
        ({"size": {"shortest_edge": 224, "longest_edge": 448}}, "size {'longest_edge': 448, 'shortest_edge': 224}"),
        ({"crop_size": {"height": 224, "width": 192}}, "no square"),
    ],
)
def test_settings_that_no_contract_has_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=f"^m: its image processor has .*{message}.*give a `preprocess` file"):
        contract_of(t.CLIPImageProcessorPil(**settings), "m")


def test_the_share_that_is_cut_out_gives_back_the_size_before_cutting() -> None:
    pairs = [(side, before) for side in (224, 336, 378, 518) for before in range(side, side + 200)]
    assert any(math.floor(side / (side / before)) < before for side, before in pairs)  # division rounds
    for side, before in pairs:
        assert math.floor(side / _crop_pct(side, before)) == before


def test_a_tower_that_is_not_what_the_library_publishes_is_refused(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = t.SiglipModel.get_image_features

    def turned(self: Any, **given: Any) -> Any:
        return own(self, **given).pooler_output.flip(1)

    monkeypatch.setattr(t.SiglipModel, "get_image_features", turned)
    with pytest.raises(BadInputError, match="get_image_features does more than pool and project"):
        load_gallery_model(f"transformers:{folders['siglip']}")


def test_steps_that_stand_in_no_setting_are_noticed() -> None:
    class Greyed(t.SiglipImageProcessorPil):
        def rescale(self, image: Any, scale: float, **more: Any) -> Any:
            return super().rescale(image, scale, **more).mean(0, keepdims=True).repeat(3, 0)

    with pytest.raises(BadInputError, match="is a Greyed, whose pixels differ from those of its settings"):
        contract_of(Greyed(), "m")


@pytest.mark.slow
def test_onnxruntime_runs_it_too(folders: dict[str, Path], photos: Path) -> None:
    model = load_gallery_model(f"transformers:{folders['siglip']}")
    by_torch = vectors_of(model, photos)
    prepare(model, 5, Engine.ONNXRUNTIME)
    assert np.abs(vectors_of(model, photos) - by_torch).max() < 1e-4


def test_a_pooler_that_was_never_trained_is_no_pooling(tmp_path: Path) -> None:
    network = t.ViTForImageClassification(t.ViTConfig(**VISION))
    cast(Any, awake(network)).save_pretrained(tmp_path / "classifier")
    t.ViTImageProcessorPil(**SQUARE).save_pretrained(tmp_path / "classifier")
    spec = f"transformers:{tmp_path / 'classifier'}"
    with pytest.raises(BadInputError, match="has no trained pooling; choose `gallery_pooling` token or avg"):
        load_gallery_model(spec)
    spaces = [load_gallery_model(spec, pooling="token").space for _ in range(2)]
    assert spaces[0] == spaces[1] and spaces[0].output == "token"


def test_weights_that_lack_or_hold_no_numbers_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    processor, config = ((folders["vit"] / f"{name}.json").read_text() for name in ("preprocessor_config", "config"))
    state = load_file(folders["vit"] / "model.safetensors")
    folder = tmp_path / "vit"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    with pytest.raises(BadInputError, match=r"has no preprocessor_config\.json that can be read.* or give a `prep"):
        load_gallery_model(f"transformers:{folder}")
    (folder / "preprocessor_config.json").write_text(processor)
    with pytest.raises(BadInputError, match=r"has no model\.safetensors that can be read .*might run code"):
        load_gallery_model(f"transformers:{folder}")
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(BadInputError, match=r"has no model\.safetensors that can be read .*might run code"):
        load_gallery_model(f"transformers:{folder}")
    lacking = next(name for name in state if name.endswith("layernorm.weight") or "norm" in name)
    save_file({k: v for k, v in state.items() if k != lacking}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInputError, match="its weights lack 1 tensors of the network"):
        load_gallery_model(f"transformers:{folder}")
    save_file({k: v * np.nan for k, v in state.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInputError, match="transformers:vit gave a zero or non-finite embedding"):
        load_gallery_model(f"transformers:{folder}")


def test_what_gives_no_vector_for_a_photo_is_refused(tmp_path: Path) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    for config, message in (
        (t.BertConfig(**small, vocab_size=16), "is a bert, which gives no vector for a photo"),
        (t.Siglip2Config(), "NaFlex takes photos of any shape in patches"),
        (t.ViTMAEConfig(), "hides patches at random"),
        (t.LlavaConfig(), "is a llava, which gives no vector"),
    ):
        config.save_pretrained(tmp_path / config.model_type)
        with pytest.raises(BadInputError, match=message):
            load_gallery_model(f"transformers:{tmp_path / config.model_type}")


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    config = {"model_type": "ours", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BadInputError, match="comes with Python code of its own, which is never run"):
        load_gallery_model(f"transformers:{tmp_path}")
    assert not (tmp_path / "ran").exists()


def test_names_that_name_nothing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> Any:
        raise OSError("Name or service not known")

    monkeypatch.setattr("edgecsd.models.hub.getaddrinfo", unknown)
    monkeypatch.setattr("edgecsd.models.hub.getproxies", dict)
    for name, message in (
        (str(tmp_path / "absent"), "no such folder"),
        (str(tmp_path), r"has no config\.json that can be read"),
    ):
        with pytest.raises(BadInputError, match=message):
            load_gallery_model(f"transformers:{name}")
    with pytest.raises(MissingBackendError, match=r"could not fetch its config\.json .*give a folder .* `weights`"):
        load_gallery_model("transformers:nobody/nothing-of-that-name")
    with pytest.raises(BadInputError, match=r"`weights` .*: is no folder; transformers:NAME"):
        load_gallery_model("transformers:nobody/nothing", weights=tmp_path / "w.safetensors")
