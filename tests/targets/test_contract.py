"""What every target promises, on real files: the same metadata, the same numbers, the same errors."""

from __future__ import annotations

import inspect
import json
import platform
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from target_models import DIM, PHOTOS, SIZE, Make, Pixels, needs_coreai

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.exporting.export import NORM_TOLERANCE, export
from edgecsd.models.query import QueryModel
from edgecsd.photos.finding import find_images
from edgecsd.quantisation.precisions import Precision
from edgecsd.quiet import quiet_conversion
from edgecsd.targets.artifact import (
    TargetModule,
    convert,
    latency_measurable,
    load_runner,
    read_metadata,
    target_module,
    target_of,
)
from edgecsd.targets.metadata import METADATA_KEY, Target

HAS = {
    "onnx": ("fp32", "fp16", "w8a32", "w8a8"),
    "tflite": ("fp32", "fp16", "w8a32", "w8a8"),
    "coreml": ("fp32", "fp16", "w8a32", "w8a8"),
    "coreai": ("fp32", "fp16", "w8a32"),
}
MARKS = {"coreai": (needs_coreai,)}
ARTIFACTS = [
    pytest.param(target, precision, marks=MARKS.get(target, ()))
    for target, precisions in HAS.items()
    for precision in precisions
]
LACKS = [
    pytest.param(target, precision, marks=MARKS.get(target, ()))
    for target, precisions in HAS.items()
    for precision in Precision
    if precision not in precisions
]
TARGETS = [pytest.param(target, marks=MARKS.get(target, ())) for target in HAS]


@pytest.mark.parametrize("target", TARGETS)
def test_module_keeps_the_contract(target: str) -> None:
    module = target_module(Target(target))
    assert set(HAS[target]) == set(module.PRECISIONS) == set(module.RECIPES)
    with quiet_conversion(target):
        converter = import_module(f"edgecsd.targets.{target}.convert").convert
    assert list(inspect.signature(converter).parameters) == list(inspect.signature(convert).parameters)[1:]
    for name in ("versions", "read_metadata_json", "load_runner"):
        wanted = list(inspect.signature(getattr(TargetModule, name)).parameters)[1:]
        assert list(inspect.signature(getattr(module, name)).parameters) == wanted, name


def test_core_ml_computes_in_half_precision_where_it_is_said_to() -> None:
    from edgecsd.targets.coreml import convert as coreml_convert

    half = coreml_convert.coremltools.precision.FLOAT16
    said = target_module(Target.COREML).HALF_PRECISIONS
    assert {each for each in Precision if coreml_convert._compute_precision(each) is half} == said


@pytest.mark.parametrize(("target", "precision"), ARTIFACTS)
def test_numbers_are_those_of_the_query_model(
    target: str, precision: str, artifact: Make, model: QueryModel, pixels: Pixels
) -> None:
    runner = load_runner(artifact(target, precision).path)
    vectors = runner.embed(pixels)
    reference = np.concatenate([model.embed(pixels[i : i + 1]) for i in range(len(pixels))])
    assert vectors.shape == (PHOTOS, DIM) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=NORM_TOLERANCE)
    cosines = (vectors * reference).sum(1) / np.linalg.norm(vectors, axis=1)
    floor = {"fp32": 1 - 1e-6, "fp16": 0.9999, "w8a32": 0.99, "w8a8": 0.97}[precision]
    assert cosines.mean() >= floor
    if precision == "fp32":
        assert np.abs(vectors - reference).max() <= 1e-5


@pytest.mark.parametrize(("target", "precision"), ARTIFACTS)
def test_metadata_comes_back_from_the_file(target: str, precision: str, artifact: Make, model: QueryModel) -> None:
    result = artifact(target, precision)
    metadata = read_metadata(result.path)
    assert metadata == result.metadata
    assert (metadata.target, metadata.precision, metadata.licence) == (target, precision, "CC0-1.0")
    assert metadata.space == model.config.space
    assert metadata.fingerprint == model.config.space.fingerprint
    assert metadata.preprocess == model.config.preprocess
    assert metadata.weights_digest == model.config.weights_digest
    assert (metadata.calibration_digest is not None) == (precision == "w8a8")
    assert {"edgecsd", "torch"} < set(metadata.versions)


@pytest.mark.parametrize(("target", "precision"), ARTIFACTS)
def test_every_step_from_encoded_photo_to_network_stands_in_the_file(
    target: str, precision: str, artifact: Make
) -> None:
    text = target_module(Target(target)).read_metadata_json(artifact(target, precision).path)
    found = json.loads(text)
    assert found["schema_version"] == 2
    assert found["pixels"] == {
        "frame": "first",
        "orientation": "applied",
        "colour_profile": "ignored",
        "transparency": "over white",
        "channels": "RGB",
        "bits": 8,
        "grey_16_divisor": 257,
        "crop": "none for squash; centre square of crop_pct x shorter side for shorter-side",
        "antialias": True,
        "resized": "uint8",
        "scale": 1 / 255,
        "normalised": "(value * scale - mean) / std",
    }
    assert set(found["preprocess"]) == {"size", "resize", "crop_pct", "interpolation", "mean", "std"}


@pytest.mark.parametrize(("target", "precision"), LACKS)
def test_a_precision_that_it_lacks_is_refused_with_those_it_has(
    target: str, precision: str, run: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"a{Target(target).suffix}"
    with pytest.raises(BadInputError, match=rf"no precision {precision}; it has: {', '.join(HAS[target])}"):
        export(run, target, precision, out=out, calibration=find_images(photos), calibration_count=PHOTOS)
    assert not out.exists()


@pytest.mark.parametrize("target", TARGETS)
def test_8_bit_weights_make_the_file_small(target: str, artifact: Make) -> None:
    full = artifact(target, "fp32").size_bytes
    assert artifact(target, "fp16").size_bytes < 0.62 * full
    assert artifact(target, "w8a32").size_bytes < 0.52 * full  # a small net: names and shapes weigh as much as weights


@pytest.mark.parametrize("target", TARGETS)
def test_runner_refuses_other_pixels(target: str, artifact: Make) -> None:
    runner = load_runner(artifact(target, "fp32").path, threads=2)
    assert runner.kind
    for wrong in (np.zeros((1, SIZE + 1, SIZE, 3), np.uint8), np.zeros((1, SIZE, SIZE, 3), np.float32)):
        with pytest.raises(BadInputError, match=rf"takes \(1, {SIZE}, {SIZE}, 3\) uint8"):
            runner.embed_one(wrong)  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="no image"):
        runner.embed(np.zeros((0, SIZE, SIZE, 3), np.uint8))


@pytest.mark.parametrize("target", TARGETS)
def test_a_result_is_not_overwritten_by_the_next(target: str, artifact: Make, pixels: Pixels) -> None:
    runner = load_runner(artifact(target, "fp32").path)
    first = runner.embed_one(pixels[:1])
    kept = first.copy()
    runner.embed_one(pixels[1:2])
    np.testing.assert_array_equal(first, kept)


def _copy(source: Path, folder: Path) -> Path:
    copy = folder / source.name
    shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
    return copy


def _largest(path: Path) -> Path:
    return path if path.is_file() else max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("precision", ["fp32", "w8a32"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("target", TARGETS)
def test_truncated_artifact_is_damaged(
    target: str, keep: float, precision: str, artifact: Make, tmp_path: Path
) -> None:
    copy = _copy(artifact(target, precision).path, tmp_path)
    part = _largest(copy)
    part.write_bytes(part.read_bytes()[: int(keep * part.stat().st_size)])
    with pytest.raises(DamagedFileError, match=precision):
        load_runner(copy).embed_one(np.zeros((1, SIZE, SIZE, 3), np.uint8))


@pytest.mark.parametrize("target", TARGETS)
def test_garbage_is_damaged(target: str, artifact: Make, tmp_path: Path) -> None:
    copy = _copy(artifact(target, "fp32").path, tmp_path)
    for file in [copy] if copy.is_file() else [p for p in copy.rglob("*") if p.is_file()]:
        file.write_bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes())
    with pytest.raises(DamagedFileError, match=r"not a (whole|TFLite)"):
        read_metadata(copy)


@pytest.mark.parametrize("target", TARGETS)
def test_metadata_is_checked(target: str, artifact: Make) -> None:
    text = target_module(Target(target)).read_metadata_json(artifact(target, "fp32").path)
    assert json.loads(text)["kind"] == "edgecsd artifact"
    assert METADATA_KEY == "edgecsd"


@pytest.mark.parametrize("target", TARGETS)
def test_missing_and_misnamed(target: str, artifact: Make, tmp_path: Path) -> None:
    path = artifact(target, "fp32").path
    with pytest.raises(BadInputError, match="no such artifact"):
        read_metadata(tmp_path / path.name)
    with pytest.raises(BadInputError, match=r"must end in \.onnx, \.ort, \.tflite, \.mlpackage"):
        target_of(path.with_suffix(".bin"))
    with pytest.raises(BadInputError, match="0 threads"):
        load_runner(path, threads=0)


def test_a_file_where_a_folder_belongs(artifact: Make, tmp_path: Path) -> None:
    wrong = tmp_path / "a.mlpackage"
    shutil.copy(artifact("onnx", "fp32").path, wrong)
    with pytest.raises(DamagedFileError, match="a folder is expected for coreml"):
        read_metadata(wrong)
    alike = tmp_path / "a.aimodel"
    shutil.copy(artifact("onnx", "fp32").path, alike)
    with pytest.raises(DamagedFileError, match="a folder is expected for coreai"):
        read_metadata(alike)
    (tmp_path / "b.onnx").mkdir()
    with pytest.raises(DamagedFileError, match="a file is expected for onnx"):
        load_runner(tmp_path / "b.onnx")


def test_latency_is_measured_by_the_devices_own_runtime() -> None:
    measurable = {target for target in Target if latency_measurable(target)}
    on_macos = {Target.COREML} if platform.system() == "Darwin" else set()
    assert measurable == {Target.ONNX, Target.TFLITE} | on_macos
