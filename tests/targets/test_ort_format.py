"""The .ort form of ONNX artifacts: metadata, numbers and damage, as for .onnx."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from target_models import DIM, PHOTOS, Make, Pixels

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.exporting.export import export
from edgecsd.photos.finding import find_images
from edgecsd.targets.artifact import load_runner, read_metadata
from edgecsd.targets.inspecting import Inspection, Outcome, inspect


@pytest.fixture(scope="module", params=["fp32", "w8a8"])
def pair(
    request: pytest.FixtureRequest, run: Path, photos: Path, artifact: Make, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """(.onnx, .ort) of the same model in the same precision."""
    out = tmp_path_factory.mktemp("ort") / f"{request.param}.ort"
    made = export(
        run, "onnx", request.param, out=out, calibration=find_images(photos), calibration_count=PHOTOS, ort_format=True
    )
    assert made.path == out and made.metadata.target == "onnx"
    return artifact("onnx", request.param).path, out


def test_the_file_is_of_that_format_and_not_much_larger(pair: tuple[Path, Path]) -> None:
    plain, ort = pair
    assert ort.read_bytes()[4:8] == b"ORTM"
    assert ort.stat().st_size < 1.6 * plain.stat().st_size  # a network of few weights: mostly what describes it


def test_metadata_comes_back(pair: tuple[Path, Path]) -> None:
    plain, ort = (read_metadata(path) for path in pair)
    assert ort == plain.model_copy(update={"licence": None, "content_digest": ort.content_digest})
    assert ort.content_digest != plain.content_digest


def test_its_operators_and_weights_are_listed(pair: tuple[Path, Path]) -> None:
    plain, ort = (inspect(path) for path in pair)
    assert ort.holds and {check.name: check.outcome for check in ort.checks}["precision"] is Outcome.OK
    assert sum(part.size_bytes for part in ort.parts) == ort.size_bytes
    assert all(part.size_bytes > 0 for part in ort.parts)

    def convolutions(result: Inspection) -> tuple[int, int]:
        """How many there are, and the bytes of their weights."""
        found = result.description
        counts = sum(count for name, count in found.operators.items() if "Conv" in name)
        kinds = ("int8", "uint8", "float")
        return counts, sum(w.size_bytes for w in found.weights if "Conv" in w.operator and w.dtype in kinds)

    assert convolutions(ort)[0] == convolutions(plain)[0] > 10
    assert abs(convolutions(ort)[1] - convolutions(plain)[1]) < 0.1 * convolutions(plain)[1]
    eight_bit = {name for name in ort.description.quantised_operators if "Conv" in name}
    assert eight_bit == ({"QLinearConv"} if plain.description.quantised_operators else set())


def test_weights_in_half_are_those_of_the_convolutions(run: Path, tmp_path: Path) -> None:
    """Processors without half precision read them through a Cast."""
    made = export(run, "onnx", "fp16", out=tmp_path / "a.ort", ort_format=True)
    result = inspect(made.path)
    assert result.holds and {check.name: check.outcome for check in result.checks}["precision"] is Outcome.OK
    assert "Cast" not in {each.operator for each in result.description.weights}


def test_numbers_are_those_of_the_onnx_file(pair: tuple[Path, Path], pixels: Pixels) -> None:
    """In w8a8 too, where a file made for this machine's kernels would saturate."""
    plain, ort = (load_runner(path).embed(pixels) for path in pair)
    assert ort.shape == (PHOTOS, DIM)
    assert (plain * ort).sum(axis=1).min() > 0.9999


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_damaged(keep: float, pair: tuple[Path, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copy(pair[1], tmp_path))
    copy.write_bytes(copy.read_bytes()[: int(keep * copy.stat().st_size)])
    with pytest.raises(DamagedFileError, match=copy.name):
        load_runner(copy)


def test_other_targets_have_no_such_form(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="`ort_format` is a form of target onnx; target tflite has none"):
        export(run, "tflite", "fp32", ort_format=True)
    with pytest.raises(BadInputError, match=r"ends in \.onnx; \.ort is written with `ort_format`"):
        export(run, "onnx", "fp32", out=tmp_path / "a.ort")
    with pytest.raises(BadInputError, match=r"ends in \.ort"):
        export(run, "onnx", "fp32", out=tmp_path / "a.onnx", ort_format=True)
    assert np.size([*tmp_path.iterdir()]) == 0
