"""Gallery models: what each kind of --gallery-model gives, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
import timm
import torch
from doubles import PixelGallery
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.models.backbones import Backbone, create_backbone, to_input
from edgecsd.models.frozen_forward import Engine
from edgecsd.models.gallery.loading import gallery_model_of, load_gallery_model
from edgecsd.models.gallery.model import normalise, prepare
from edgecsd.photos.contract import Interpolation, Preprocess, Resize


def pixels(count: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), np.uint8)


def onnx_model(file: Path, shape: list[Any], kind: int = TensorProto.FLOAT, output: list[Any] | None = None) -> Path:
    """An ONNX model that averages each channel over the image and adds its mean square: images -> (B, 6).

    Its second output, "maps", is the image itself in floats.
    """
    axes = [1, 2] if shape[3] == 3 else [2, 3]
    half = kind == TensorProto.FLOAT16
    nodes = [
        helper.make_node("Cast", ["x"], ["maps"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["maps", "axes"], ["m"], keepdims=0),
        helper.make_node("Mul", ["maps", "maps"], ["q"]),
        helper.make_node("ReduceMean", ["q", "axes"], ["s"], keepdims=0),
        helper.make_node("Concat", ["m", "s"], ["z"], axis=1),
        helper.make_node("Cast", ["z"], ["y"], to=TensorProto.FLOAT16 if half else TensorProto.FLOAT),
    ]
    given = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("x", kind, shape)],
        [
            helper.make_tensor_value_info("y", given, output or [shape[0], 6]),
            helper.make_tensor_value_info("maps", TensorProto.FLOAT, shape),
        ],
        [helper.make_tensor("axes", TensorProto.INT64, [2], axes)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    return file


def expected(batch: np.ndarray, scale: float = 1.0) -> np.ndarray:
    values = batch.astype(np.float64) if scale == 1 else (batch.astype(np.float64) / 255 - 0.5) / 0.5
    rows = np.concatenate([values.mean(axis=(1, 2)), (values**2).mean(axis=(1, 2))], axis=1)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_test_double_ignores_the_batch() -> None:
    model = PixelGallery()
    batch = pixels(5)
    assert np.array_equal(model.embed(batch)[3], model.embed(batch[3:4])[0])


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize(
    "shape",
    [
        ["b", 3, 32, 32],
        [1, 3, 32, 32],
        [4, 3, 32, 32],
        ["b", 3, "h", "w"],
        ["b", "c", 32, 32],
        ["b", 32, 32, 3],
        [4, 32, 32, 3],
    ],
)
def test_onnx_float_models_get_normalised_images_in_their_layout(tmp_path: Path, shape: list[Any], kind: int) -> None:
    file = onnx_model(tmp_path / "m.onnx", shape, kind)
    model = load_gallery_model(f"onnx:{file}", size=32)
    assert model.space.dim == 6
    assert model.space.gallery_model == "onnx:m.onnx"
    vectors = model.embed(pixels(5))
    assert vectors.dtype == np.float32
    assert np.abs(vectors - expected(pixels(5), scale=1 / 255)).max() < (1e-5 if kind == TensorProto.FLOAT else 1e-3)


@pytest.mark.parametrize("shape", [["b", 32, 32, 3], [2, 3, 32, 32]])
def test_onnx_uint8_models_get_raw_images(tmp_path: Path, shape: list[Any]) -> None:
    model = load_gallery_model(f"onnx:{onnx_model(tmp_path / 'm.onnx', shape, TensorProto.UINT8)}")
    assert model.preprocess == Preprocess(size=32)
    assert np.abs(model.embed(pixels(3)) - expected(pixels(3))).max() < 1e-5


def test_onnx_weights_beside_the_file_belong_to_the_identity(tmp_path: Path) -> None:
    file = onnx_model(tmp_path / "m.onnx", ["b", 3, 32, 32])
    alone = load_gallery_model(f"onnx:{file}").space
    (tmp_path / "m.onnx.data").write_bytes(b"1")
    first = load_gallery_model(f"onnx:{file}").space
    (tmp_path / "m.onnx.data").write_bytes(b"2")
    second = load_gallery_model(f"onnx:{file}").space
    assert len({alone.fingerprint, first.fingerprint, second.fingerprint}) == 3


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        (["b", 3, "h", "w"], TensorProto.FLOAT, "no fixed size: give `gallery_size`"),
        (["b", 4, 32, 32], TensorProto.FLOAT, r"\(B, 3, H, W\) or \(B, H, W, 3\) of float.* is expected"),
        (["b", 3, 32, 32], TensorProto.DOUBLE, r"tensor\(double\).* is expected"),
        (["b", 3, 32, 48], TensorProto.FLOAT, "not square"),
        (["b", 3, 8, 8], TensorProto.FLOAT, "not a valid pixel contract: size = 8"),
    ],
)
def test_onnx_signatures_that_cannot_be_fed_are_refused(
    tmp_path: Path, shape: list[Any], kind: int, message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        load_gallery_model(f"onnx:{onnx_model(tmp_path / 'm.onnx', shape, kind)}")


def test_of_several_onnx_outputs_one_is_the_vector(tmp_path: Path) -> None:
    spec = f"onnx:{onnx_model(tmp_path / 'm.onnx', ['b', 3, 32, 32])}"
    first, named = load_gallery_model(spec), load_gallery_model(spec, output="y")
    assert first.space == named.space
    with pytest.raises(BadInputError, match=r"its output maps is \(2, 3, 32, 32\): no single vector; .*: y, maps"):
        load_gallery_model(spec, output="maps")
    with pytest.raises(BadInputError, match=r"`gallery_output` z: .* has no such output; it has y, maps"):
        load_gallery_model(spec, output="z")
    with pytest.raises(BadInputError, match="`gallery_output` goes with onnx:FILE only"):
        load_gallery_model("doubles:make_function_double", output="y")


def test_onnx_files_that_do_not_load_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"onnx:.*absent\.onnx: no such file"):
        load_gallery_model(f"onnx:{tmp_path / 'absent.onnx'}")
    (tmp_path / "bad.onnx").write_bytes(b"words")
    with pytest.raises(BadInputError, match=r"bad\.onnx: onnxruntime cannot load it"):
        load_gallery_model(f"onnx:{tmp_path / 'bad.onnx'}")


def test_a_contract_of_another_size_is_incompatible(tmp_path: Path) -> None:
    file = onnx_model(tmp_path / "m.onnx", ["b", 3, 32, 32])
    with pytest.raises(IncompatibleError, match="takes 32 px, the pixel contract gives 64 px"):
        load_gallery_model(f"onnx:{file}", size=64)
    contract = tmp_path / "contract.json"
    contract.write_text(json.dumps({"size": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}))
    assert load_gallery_model(f"onnx:{file}", preprocess=contract).preprocess.std == (1, 1, 1)
    with pytest.raises(BadInputError, match="leave out `gallery_size`"):
        load_gallery_model(f"onnx:{file}", size=32, preprocess=contract)


def test_a_users_function_is_called_and_its_vectors_normalised() -> None:
    model = load_gallery_model("doubles:make_function_double")
    assert model.space.gallery_model == "acme-embedder-v7"
    assert model.space.dim == 16
    assert np.abs(model.embed(pixels(3)) - PixelGallery().embed(pixels(3))).max() < 1e-6


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet50", "give timm:NAME, open_clip:NAME, transformers:NAME, onnx:FILE or module:function"),
        ("timm:", "give timm:NAME"),
        (":x", "give timm:NAME"),
        ("no_such_module:make", "No module named 'no_such_module'"),
        (".doubles:make", "give timm:NAME, .* or module:function"),
        ("doubles:absent", "has no attribute 'absent'"),
        ("doubles:NOT_A_FUNCTION", "NOT_A_FUNCTION is not a function"),
        ("doubles:make_nothing", "returned object; it must have identity.*missing or of the wrong type: identity"),
        ("timm:no_such_network", "timm has no model 'no_such_network'; it has for example: "),
        ("timm:tf_efficientnet_lite0.bad_tag", "pretrained|tag"),
    ],
)
def test_specifications_that_name_nothing_are_refused(spec: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=f"(?i){message}"):
        torch.save({}, tmp_path / "w.pth")
        load_gallery_model(spec, weights=tmp_path / "w.pth" if "bad_tag" in spec else None)


BROKEN = """
import numpy as np
from edgecsd.photos.contract import Preprocess

def fail():
    raise RuntimeError("my weights are missing")

class Model:
    identity, preprocess = "acme", Preprocess(size=32)

    def __init__(self, answer):
        self.embed = answer

def late(pixels):
    if len(pixels) == 3:
        raise ZeroDivisionError("scale")
    return np.ones((len(pixels), 4))

def make_late():
    return Model(late)

def make_without_gpu():
    model = Model(lambda pixels: np.ones((len(pixels), 4)))
    model.prepare = lambda images, engine, reporter: fail()
    return model

def make_at_once():
    return Model(lambda pixels: fail())

def make_words():
    return Model(lambda pixels: [["no", "numbers"]])
"""


def test_what_the_users_own_code_raises_is_told_as_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "gm_broken.py").write_text(BROKEN)
    (tmp_path / "gm_no_module.py").write_text("raise OSError('no GPU')")
    place = r"\(.*gm_broken\.py, line \d+\)$"
    for function, message in (
        ("fail", rf"in fail\(\): RuntimeError: my weights are missing {place}"),
        ("make_at_once", rf"in embed\(\): RuntimeError: my weights are missing {place}"),
        ("make_words", r"in embed\(\): ValueError: could not convert string to float: 'no'$"),
    ):
        with pytest.raises(BadInputError, match=rf"^gm_broken:{function}: your own code failed, {message}"):
            load_gallery_model(f"gm_broken:{function}")
    with pytest.raises(BadInputError, match=r"in importing it: OSError: no GPU \(.*gm_no_module\.py, line 1\)$"):
        load_gallery_model("gm_no_module:make")
    late = load_gallery_model("gm_broken:make_late")
    with pytest.raises(BadInputError, match=rf"in embed\(\): ZeroDivisionError: scale {place}"):
        late.embed(pixels(3))
    with pytest.raises(BadInputError, match=rf"in prepare\(\): RuntimeError: my weights are missing {place}"):
        prepare(load_gallery_model("gm_broken:make_without_gpu"), 5, Engine.AUTO)
    with pytest.raises(
        BadInputError, match=r"^`engine` torch: goes with timm:NAME, open_clip:NAME and transformers:NAME only"
    ):
        prepare(late, 5, Engine.TORCH)


def test_options_that_a_kind_cannot_honour_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="`weights` goes with timm:NAME, open_clip:NAME and transformers:NAME only"):
        load_gallery_model("doubles:make_function_double", weights=tmp_path / "w.pth")
    with pytest.raises(BadInputError, match="brings its own pixel contract"):
        load_gallery_model("doubles:make_function_double", size=64)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_dead_embedding_is_refused(value: float) -> None:
    vectors = np.ones((3, 4))
    vectors[1] = value
    with pytest.raises(BadInputError, match="m gave a zero or non-finite embedding"):
        normalise(vectors, "m")


def test_input_tensors_follow_the_contract_and_take_read_only_pixels() -> None:
    batch = pixels(2)
    batch.setflags(write=False)
    contract = Preprocess(size=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    tensor = to_input(batch, contract)
    wanted = ((batch / 255.0 - contract.mean) / contract.std).transpose(0, 3, 1, 2)
    assert tensor.shape == (2, 3, 32, 32)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert np.abs(tensor.numpy() - wanted).max() < 1e-5


def test_timm_gallery_models_use_the_packaged_weights() -> None:
    model = load_gallery_model("timm:tf_efficientnet_lite0", size=64)
    assert model.preprocess == Preprocess(
        size=64, resize=Resize.SHORTER_SIDE_THEN_CROP, crop_pct=0.875, interpolation=Interpolation.BICUBIC
    )
    assert model.space.dim == 1280
    vectors = model.embed(pixels(2, 64))
    network = create_backbone("tf_efficientnet_lite0").network
    with torch.inference_mode():
        maps = network.forward_features(to_input(pixels(2, 64), model.preprocess)).double().mean(dim=(2, 3)).numpy()
    assert np.abs(vectors - maps / np.linalg.norm(maps, axis=1, keepdims=True)).max() < 1e-5
    other = load_gallery_model("timm:tf_efficientnet_lite0", size=96)
    assert other.space.differences(model.space)[0].startswith("preprocess:")


@pytest.fixture
def timm_weights(tmp_path: Path) -> Callable[[str], Path]:
    """A state dict of a timm network with weights at random."""

    def made(name: str) -> Path:
        torch.manual_seed(0)
        file = tmp_path / f"{name}.safetensors"
        save_file(timm.create_model(name).state_dict(), file)
        return file

    return made


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3", "test_mambaout", "test_convnext"])
def test_any_timm_network_is_a_gallery_model_and_its_vector_timms_own(
    name: str, timm_weights: Callable[[str], Path]
) -> None:
    file = timm_weights(name)
    model = load_gallery_model(f"timm:{name}", weights=file)
    network = timm.create_model(name)
    network.load_state_dict(load_file(file))
    network.reset_classifier(0)
    photos = pixels(3, model.preprocess.size)
    with torch.inference_mode():
        own = network.eval()(to_input(photos, model.preprocess)).double().numpy()
    assert model.space.dim == own.shape[1] > 32
    assert np.abs(model.embed(photos) - own / np.linalg.norm(own, axis=1, keepdims=True)).max() < 1e-5


def test_a_network_of_one_input_size_is_refused_another(timm_weights: Callable[[str], Path]) -> None:
    file = timm_weights("test_vit3")
    for given in ({"size": 96}, {"preprocess": Preprocess(size=160, resize=Resize.LONGER_SIDE)}):
        with pytest.raises(BadInputError, match=r"test_vit3 takes no images of \d+ x \d+ px .* its own size is 160"):
            load_gallery_model("timm:test_vit3", weights=file, **given)


def prepared_by_timm(config: dict[str, Any]) -> Callable[[Image.Image], np.ndarray]:
    transform = timm.data.create_transform(
        **timm.data.resolve_data_config(pretrained_cfg=config), is_training=False, use_prefetcher=True
    )
    return lambda image: transform(image).permute(1, 2, 0).numpy()


def each_preparation(tags: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of tags whose photos are prepared in the same way the first, with its configuration."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for tag in tags:
        config = timm.get_pretrained_cfg(tag).to_dict()
        key = [config.get(name) for name in ("input_size", "crop_mode", "crop_pct", "interpolation")]
        key.append(config["mean"] if config.get("crop_mode") == "border" else None)
        found.setdefault(str(key), (tag, config))
    return dict(found.values())


def photo(width: int, height: int) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / period) + np.cos(columns / period) for period in (1.7, 5.0, 23.0)]
    noise = np.random.default_rng(0).normal(0, 0.3, (height, width, 3))
    return Image.fromarray(((np.stack(waves, 2) + noise + 2.5) / 5 * 255).clip(0, 255).astype(np.uint8))


@register_model
def small_clip_tower(pretrained: bool = False, **_: Any) -> torch.nn.Module:
    """A vision tower as CLIP's are in timm: class token, features of 64, and a projection to 48 as its classifier."""
    network = VisionTransformer(img_size=32, patch_size=16, embed_dim=64, depth=1, num_heads=2, num_classes=48)
    network.pretrained_cfg = {
        "input_size": (3, 32, 32),
        "num_classes": 48,
        "crop_mode": "squash",
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
    }
    return network


def test_a_towers_projection_is_its_vector_unless_its_features_are_asked_for(
    timm_weights: Callable[[str], Path],
) -> None:
    spec, weights = "timm:small_clip_tower", timm_weights("small_clip_tower")
    network = timm.create_model("small_clip_tower").eval()
    network.load_state_dict(load_file(weights))
    published = load_gallery_model(spec, weights=weights)
    features = load_gallery_model(spec, weights=weights, head=False)
    averaged = load_gallery_model(spec, weights=weights, pooling="avg")
    photos = pixels(3)
    with torch.inference_mode():
        tokens = network.forward_features(to_input(photos, published.preprocess))
        wanted = {"head": network.head(tokens[:, 0]), "": tokens[:, 0], "avg": tokens[:, 1:].mean(1)}
    for model, output in ((published, "head"), (features, ""), (averaged, "avg")):
        assert model.space.output == output
        assert np.abs(model.embed(photos) - normalise(wanted[output].numpy(), "wanted")).max() < 1e-5
        again = gallery_model_of(model.space, weights=weights)
        assert again.space == model.space
    assert len({model.space.fingerprint for model in (published, features, averaged)}) == 3
    assert load_gallery_model(spec, weights=weights, head=False, pooling="token").space == features.space
    for options, message in (
        ({"pooling": "map"}, "`gallery_pooling` map: .* cannot pool so: Cannot currently add attention pooling"),
        ({"head": True, "pooling": "avg"}, "`gallery_pooling` avg: goes with features"),
    ):
        with pytest.raises(BadInputError, match=message):
            load_gallery_model(spec, weights=weights, **cast(Any, options))


def test_a_network_without_a_projection_has_no_head_to_keep(timm_weights: Callable[[str], Path]) -> None:
    with pytest.raises(BadInputError, match="`gallery_head`: timm:test_vit has no projection"):
        load_gallery_model("timm:test_vit", weights=timm_weights("test_vit"), head=True)
    with pytest.raises(
        BadInputError, match="`gallery_head` goes with timm:NAME, open_clip:NAME and transformers:NAME only"
    ):
        load_gallery_model("doubles:make_function_double", head=True)


SHAPES = [(100, 200), (401, 199), (23, 20), (1501, 999)]


def compare_with_timm(configs: dict[str, dict[str, Any]], photos: list[Image.Image]) -> set[str]:
    """The tags whose pixels are timm's to the bit on each photo, each shown to be; those that are refused are left."""
    same = set()
    for tag, config in configs.items():
        backbone = Backbone(tag, cast(Any, SimpleNamespace(pretrained_cfg=config)), "none")
        try:
            contract = backbone.natural
        except BadInputError as error:
            assert re.search("only squares are offered|frames its photos in black", str(error))
            continue
        prepare_theirs = prepared_by_timm(config)
        for image in photos:
            assert np.array_equal(contract.pixels(image), prepare_theirs(image)), (tag, image.size)
        same.add(tag)
    return same


FEW = [
    "tf_efficientnet_lite0.in1k",
    "vit_base_patch16_clip_224.openai",
    "vit_small_patch16_dinov3.lvd1689m",
    "tf_efficientnetv2_m.in21k_ft_in1k",
    "tf_efficientnetv2_b3.in1k",
    "deepseek_vit_412m.deepseek_v4_1_flash",
    "mobilenetv4_hybrid_medium.e500_r224_in1k",
    "resnet50.a1_in1k",
]


def test_the_contract_gives_the_pixels_of_timms_own_preparation_to_the_bit() -> None:
    configs = {tag: timm.get_pretrained_cfg(tag).to_dict() for tag in FEW}
    assert compare_with_timm(configs, [photo(*shape) for shape in SHAPES[:3]]) == set(FEW)


@pytest.mark.slow
def test_every_preparation_that_timm_has_is_a_contract_to_the_bit() -> None:
    configs = each_preparation(timm.list_models(pretrained=True))
    same = compare_with_timm(configs, [photo(*shape) for shape in SHAPES])
    assert len(same) > 60
    assert {tag.split("_")[0] for tag in set(configs) - same} == {"volo", "vit"}  # black frames; sapiens2: not square


def test_at_the_size_that_timm_evaluates_at_the_contract_crops_as_there() -> None:
    config = timm.get_pretrained_cfg("mobilenetv4_conv_small.e2400_r224_in1k").to_dict()
    backbone = Backbone("m", cast(Any, SimpleNamespace(pretrained_cfg=config)), "none")
    evaluated = timm.data.resolve_data_config(pretrained_cfg=config, use_test_size=True)
    contract = backbone.contract(evaluated["input_size"][-1])
    assert (contract.size, contract.crop_pct) == (256, evaluated["crop_pct"])
    assert backbone.natural.crop_pct == config["crop_pct"] != contract.crop_pct
