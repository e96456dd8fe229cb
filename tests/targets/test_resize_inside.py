"""The resize inside a file: Pillow's to the bit, whatever the photo's size, filter, crop and precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from target_models import DIM, PHOTOS, Make

from edgecsd.embedding import embed_images
from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError
from edgecsd.exporting import ExportResult, export
from edgecsd.images import find_images, read_image
from edgecsd.inspecting import inspect
from edgecsd.preprocess import Interpolation, Preprocess, Resize
from edgecsd.query_models import QueryModel, QueryModelEmbedder
from edgecsd.targets.artifact import load_runner, read_metadata
from edgecsd.targets.embedder import ArtifactEmbedder
from edgecsd.targets.onnx_resize import resize_model
from edgecsd.targets.resampling import passes
from edgecsd.whole_photo import ANY_SIZE, PhotoSize

SIZES = ((640, 480), (480, 640), (420, 420), (64, 64), (1, 1), (33, 7), (17, 900), (900, 17), (1080, 1920))  # h, w
CONTRACTS = (
    Preprocess(size=64),
    Preprocess(size=64, resize=Resize.SHORTER_SIDE, crop_pct=0.875),  # 1.875 pixels of 480 a pixel: many exact halves
    Preprocess(size=75, resize=Resize.SHORTER_SIDE, crop_pct=0.89, interpolation=Interpolation.BICUBIC),
    Preprocess(size=64, interpolation=Interpolation.BICUBIC),
)
FIXED = PhotoSize(height=150, width=110)


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


@pytest.fixture(scope="module", params=["fp32", "w8a8"])
def any_size(request: pytest.FixtureRequest, run: Path, photos: Path, folder: Path) -> ExportResult:
    """An ONNX file that takes photos of any size."""
    out = folder / f"{request.param}.onnx"
    return export(run, "onnx", request.param, out=out, calibration=photos, calibration_count=PHOTOS, baked=ANY_SIZE)


@pytest.fixture(scope="module", params=["fp32", "fp16", "w8a32", "w8a8"])
def one_size(request: pytest.FixtureRequest, run: Path, photos: Path, folder: Path) -> ExportResult:
    """A TFLite file that takes photos of FIXED."""
    out = folder / f"{request.param}.tflite"
    return export(run, "tflite", request.param, out=out, calibration=photos, calibration_count=PHOTOS, baked=FIXED)


def test_a_photo_of_any_size_is_embedded_as_by_the_file_without_it(
    any_size: ExportResult, artifact: Make, photos: Path
) -> None:
    plain = load_runner(artifact("onnx", any_size.precision).path)
    baked, contract = load_runner(any_size.path), any_size.metadata.preprocess
    images = find_images(photos)
    for position in range(6):
        image = read_image(images.path(position))[0]
        vector = baked.embed_one(np.asarray(image)[None])
        assert vector.shape == (1, DIM)
        np.testing.assert_allclose(vector, plain.embed_one(contract.pixels(image)[None]), atol=1e-6)
    assert any_size.parity["cosine_mean"] > (0.999999 if any_size.precision == "fp32" else 0.95)


def test_a_photo_of_the_declared_size_is_embedded_as_by_the_file_without_it(
    one_size: ExportResult, artifact: Make
) -> None:
    plain = load_runner(artifact("tflite", one_size.precision).path)
    baked, contract = load_runner(one_size.path), one_size.metadata.preprocess
    assert FIXED.height is not None and FIXED.width is not None
    for seed in range(4):
        image = detailed(FIXED.height, FIXED.width, seed)
        vector = baked.embed_one(np.asarray(image)[None])
        np.testing.assert_allclose(vector, plain.embed_one(contract.pixels(image)[None]), atol=1e-6)
    with pytest.raises(BadInputError, match=r"takes \(1, 150, 110, 3\) uint8"):
        baked.embed_one(np.zeros((1, 110, 150, 3), np.uint8))


def test_the_weights_of_the_resize_are_float_in_every_precision(one_size: ExportResult, artifact: Make) -> None:
    """Nothing of the network becomes larger or otherwise quantised by it."""
    plain, baked = (inspect(path) for path in (artifact("tflite", one_size.precision).path, one_size.path))
    assert baked.description.quantised_operators == plain.description.quantised_operators

    def stored(found: str) -> int:
        inspection = plain if found == "plain" else baked
        return sum(w.size_bytes for w in inspection.description.weights if w.dtype not in ("float32", "int32"))

    assert stored("baked") == stored("plain")
    assert [value.shape for value in baked.description.inputs] == [(1, 150, 110, 3)]


def test_the_metadata_says_so(any_size: ExportResult, one_size: ExportResult, artifact: Make) -> None:
    assert read_metadata(any_size.path).baked == ANY_SIZE
    assert read_metadata(one_size.path).baked == FIXED
    plain = artifact("onnx", any_size.precision).metadata
    assert plain.baked is None and "baked" not in plain.model_dump(mode="json")
    assert read_metadata(any_size.path).preprocess == plain.preprocess


def test_photos_of_a_folder_go_in_whole(
    any_size: ExportResult, model: QueryModel, photo: Image.Image, tmp_path: Path
) -> None:
    """Portrait, landscape, small, and one whose EXIF orientation turns it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "tall.png")
    photo.rotate(90, expand=True).save(tmp_path / "wide.jpg")
    photo.resize((40, 30)).save(tmp_path / "small.png")
    photo.save(tmp_path / "turned.jpg", exif=exif)
    images = find_images(tmp_path)
    found = embed_images(images, ArtifactEmbedder(any_size.path)).vectors[:, 0]
    expected = embed_images(images, QueryModelEmbedder(model)).vectors[:, 0]
    least = 0.999999 if any_size.precision == "fp32" else 0.9
    assert (found * expected).sum(1).min() > least


def test_a_photo_of_another_size_is_named(one_size: ExportResult, photos: Path) -> None:
    with pytest.raises(BadInputError, match=r"takes 150 x 110 pixels \(height x width\) alone"):
        embed_images(find_images(photos), ArtifactEmbedder(one_size.path))


def test_what_needs_resized_pixels_refuses_the_file(any_size: ExportResult, photos: Path, tmp_path: Path) -> None:
    from edgecsd.golden import write_golden_pack

    with pytest.raises(IncompatibleError, match="give the file exported without --bake"):
        write_golden_pack(any_size.path, photos, tmp_path / "pack")


def test_ort_format_takes_whole_photos_too(run: Path, model: QueryModel, tmp_path: Path) -> None:
    made = export(run, "onnx", "fp32", out=tmp_path / "a.ort", ort_format=True, baked=ANY_SIZE)
    photo = detailed(200, 90)
    expected = model.embed(made.metadata.preprocess.pixels(photo)[None])
    np.testing.assert_allclose(load_runner(made.path).embed_one(np.asarray(photo)[None]), expected, atol=1e-5)


def test_a_cut_file_is_damaged(any_size: ExportResult, tmp_path: Path) -> None:
    copy = tmp_path / any_size.path.name
    copy.write_bytes(any_size.path.read_bytes()[:-500])
    with pytest.raises(DamagedFileError):
        load_runner(copy)
