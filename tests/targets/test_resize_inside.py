"""The resize inside a file: Pillow's to the bit, whatever the photo's size, filter, crop and precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from target_models import DIM, PHOTOS, Make

from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError
from edgecsd.exporting.export import ExportResult, export
from edgecsd.models.embedding import embed_images
from edgecsd.models.query import QueryModel, QueryModelEmbedder
from edgecsd.photos.contract import Interpolation, Preprocess, Resize
from edgecsd.photos.decoding import read_image
from edgecsd.photos.finding import find_images
from edgecsd.photos.whole_photo import ANY_SIZE, PhotoSize
from edgecsd.targets.artifact import ArtifactEmbedder, load_runner, read_metadata
from edgecsd.targets.inspecting import inspect
from edgecsd.targets.onnx.resize import resize_model
from edgecsd.targets.resampling import passes

SIZES = ((640, 480), (480, 640), (420, 420), (64, 64), (1, 1), (33, 7), (17, 900), (900, 17), (1080, 1920))  # h, w
CONTRACTS = (
    Preprocess(size=64),
    Preprocess(size=64, resize=Resize.SHORTER_SIDE, crop_pct=0.875),  # 1.875 pixels of 480 a pixel: many exact halves
    Preprocess(size=75, resize=Resize.SHORTER_SIDE, crop_pct=0.89, interpolation=Interpolation.BICUBIC),
    Preprocess(size=64, interpolation=Interpolation.BICUBIC),
)
FIXED = PhotoSize(height=150, width=110)
PRECISIONS = ("fp32", "fp16", "w8a32", "w8a8")


def detailed(height: int, width: int, seed: int = 0) -> Image.Image:
    """Noise, half of it saturated: cubic weights leave 0 to 255."""
    noise = np.random.default_rng(seed).integers(-128, 384, (height, width, 3)).clip(0, 255)
    return Image.fromarray(noise.astype(np.uint8))


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.resize}-{c.interpolation}-{c.size}")
def test_the_onnx_graph_is_pillow_to_the_bit(contract: Preprocess) -> None:
    model = resize_model(contract, ANY_SIZE, 20, 10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for height, width in SIZES:
        photo = detailed(height, width)
        (made,) = session.run(None, {"photo": np.asarray(photo)[None]})
        np.testing.assert_array_equal(made[0], contract.pixels(photo), err_msg=f"{height} x {width}")


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: f"{c.resize}-{c.interpolation}-{c.size}")
def test_the_constant_weights_are_pillows(contract: Preprocess) -> None:
    for height, width in SIZES:
        photo = detailed(height, width)
        levels = np.asarray(photo, np.float64)
        for along in passes(contract, height, width):
            summed = np.tensordot(along.weights, levels, (1, along.axis))
            levels = np.floor(np.moveaxis(summed, 0, along.axis) + 0.5).clip(0, 255)
        np.testing.assert_array_equal(levels, contract.pixels(photo), err_msg=f"{height} x {width}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("baked")


@pytest.fixture(scope="module")
def baked(run: Path, photos: Path, folder: Path) -> Make:
    """baked(target, precision), made once: an ONNX file for photos of any size, a TFLite file for those of FIXED."""
    made: dict[tuple[str, str], ExportResult] = {}

    def make(target: str, precision: str) -> ExportResult:
        key = (target, precision)
        if key not in made:
            made[key] = export(
                run,
                target,
                precision,
                out=folder / f"{precision}.{target}",
                calibration=find_images(photos),
                calibration_count=PHOTOS,
                baked=ANY_SIZE if target == "onnx" else FIXED,
            )
        return made[key]

    return make


@pytest.mark.parametrize("precision", ["fp32", "w8a8"])
def test_a_photo_of_any_size_is_embedded_as_by_the_file_without_it(
    precision: str, baked: Make, artifact: Make, photos: Path
) -> None:
    plain, made = load_runner(artifact("onnx", precision).path), baked("onnx", precision)
    runner, contract = load_runner(made.path), made.metadata.preprocess
    images = find_images(photos)
    for position in range(6):
        image = read_image(images.path(position))[0]
        vector = runner.embed_one(np.asarray(image)[None])
        assert vector.shape == (1, DIM)
        np.testing.assert_allclose(vector, plain.embed_one(contract.pixels(image)[None]), atol=1e-6)
    assert made.parity["cosine_mean"] > (0.999999 if precision == "fp32" else 0.95)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_photo_of_the_declared_size_is_embedded_as_by_the_file_without_it(
    precision: str, baked: Make, artifact: Make
) -> None:
    plain, made = load_runner(artifact("tflite", precision).path), baked("tflite", precision)
    runner, contract = load_runner(made.path), made.metadata.preprocess
    assert FIXED.height is not None and FIXED.width is not None
    for seed in range(4):
        image = detailed(FIXED.height, FIXED.width, seed)
        vector = runner.embed_one(np.asarray(image)[None])
        np.testing.assert_allclose(vector, plain.embed_one(contract.pixels(image)[None]), atol=1e-6)
    with pytest.raises(BadInputError, match=r"takes \(1, 150, 110, 3\) uint8"):
        runner.embed_one(np.zeros((1, 110, 150, 3), np.uint8))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_weights_of_the_resize_are_float_in_every_precision(precision: str, baked: Make, artifact: Make) -> None:
    """And nothing of the network is quantised otherwise."""
    plain, made = (inspect(make("tflite", precision).path).description for make in (artifact, baked))
    assert made.quantised_operators == plain.quantised_operators
    small = [sum(w.size_bytes for w in d.weights if w.dtype not in ("float32", "int32")) for d in (plain, made)]
    assert small[0] == small[1]
    assert [value.shape for value in made.inputs] == [(1, 150, 110, 3)]


def test_the_metadata_says_so(baked: Make, artifact: Make) -> None:
    any_size, plain = read_metadata(baked("onnx", "fp32").path), artifact("onnx", "fp32").metadata
    assert any_size.baked == ANY_SIZE and read_metadata(baked("tflite", "fp32").path).baked == FIXED
    assert plain.baked is None and "baked" not in plain.model_dump(mode="json")
    assert any_size.preprocess == plain.preprocess


@pytest.mark.parametrize("precision", ["fp32", "w8a8"])
def test_photos_of_a_folder_go_in_whole(
    precision: str, baked: Make, model: QueryModel, photo: Image.Image, tmp_path: Path
) -> None:
    """Portrait, landscape, small, and one whose EXIF orientation turns it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "tall.png")
    photo.rotate(90, expand=True).save(tmp_path / "wide.jpg")
    photo.resize((40, 30)).save(tmp_path / "small.png")
    photo.save(tmp_path / "turned.jpg", exif=exif)
    images = find_images(tmp_path)
    found = embed_images(images, ArtifactEmbedder(baked("onnx", precision).path)).vectors[:, 0]
    expected = embed_images(images, QueryModelEmbedder(model)).vectors[:, 0]
    least = 0.999999 if precision == "fp32" else 0.9
    assert (found * expected).sum(1).min() > least


def test_a_photo_of_another_size_is_named(baked: Make, photos: Path) -> None:
    with pytest.raises(BadInputError, match=r"takes 150 x 110 pixels \(height x width\) alone"):
        embed_images(find_images(photos), ArtifactEmbedder(baked("tflite", "fp32").path))


def test_what_needs_resized_pixels_refuses_the_file(baked: Make, photos: Path, tmp_path: Path) -> None:
    from edgecsd.golden.writing import write_golden_pack

    with pytest.raises(IncompatibleError, match="give the file exported without `bake`"):
        write_golden_pack(baked("onnx", "fp32").path, find_images(photos), tmp_path / "pack")


def test_ort_format_takes_whole_photos_too(run: Path, model: QueryModel, tmp_path: Path) -> None:
    made = export(run, "onnx", "fp32", out=tmp_path / "a.ort", ort_format=True, baked=ANY_SIZE)
    photo = detailed(200, 90)
    expected = model.embed(made.metadata.preprocess.pixels(photo)[None])
    np.testing.assert_allclose(load_runner(made.path).embed_one(np.asarray(photo)[None]), expected, atol=1e-5)


def test_a_cut_file_is_damaged(baked: Make, tmp_path: Path) -> None:
    copy = tmp_path / "cut.onnx"
    copy.write_bytes(baked("onnx", "fp32").path.read_bytes()[:-500])
    with pytest.raises(DamagedFileError):
        load_runner(copy)
