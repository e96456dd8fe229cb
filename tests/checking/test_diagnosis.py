"""A file or a device whose embeddings are not the expected ones: what is said to be wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from edgecsd.checking.check import check
from edgecsd.checking.pairing import CheckOptions
from edgecsd.gate.gates import Verdict
from edgecsd.gate.verdict import CheckResult, gate
from edgecsd.models.query import load_query_model
from edgecsd.photos.finding import find_images
from edgecsd.targets.artifact import ArtifactEmbedder, convert, read_metadata
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.metadata import Target


class Swapped(DeployModel):
    """Takes the channels in the reverse order."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image.flip(-1))


@pytest.fixture
def embedded(arguments: dict[str, Any], photos: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Ids and right pixels of the photos."""
    images, contract = find_images(photos), ArtifactEmbedder(arguments["file"]).preprocess
    return images.ids, np.stack([contract.pixels(images.read(p).image) for p in range(len(images))])


def checked_with(
    arguments: dict[str, Any], ids: tuple[str, ...], embeddings: np.ndarray, tmp_path: Path
) -> CheckResult:
    np.savez(tmp_path / "device.npz", ids=np.array(ids), embeddings=embeddings)
    return check(**arguments, options=CheckOptions(device=tmp_path / "device.npz"), out=tmp_path / "evidence")


def said(result: CheckResult) -> dict[str, str]:
    return {gate.name: gate.message for gate in result.gates if gate.verdict is Verdict.FAILED}


def test_a_file_that_takes_bgr_is_named(arguments: dict[str, Any], tmp_path: Path) -> None:
    sound, broken = arguments["file"], arguments["file"].with_name("swapped.onnx")
    model = load_query_model(sound.parent.parent)
    metadata = read_metadata(sound)
    convert(Target.ONNX, Swapped(model), broken, metadata.precision, None, metadata)
    try:
        result = check(**{**arguments, "file": broken}, out=tmp_path / "evidence")
    finally:
        broken.unlink()
    messages = said(result)
    assert "channels swapped (BGR for RGB)" in messages["cosine to the torch model, mean"]
    again = gate(tmp_path / "evidence")
    assert said(again) == messages, "saved evidence says the same"
    assert not check(**arguments).evidence.facts.diagnoses


def test_a_device_that_feeds_bgr_is_named(
    arguments: dict[str, Any], embedded: tuple[tuple[str, ...], np.ndarray], tmp_path: Path
) -> None:
    ids, pixels = embedded
    wrong = ArtifactEmbedder(arguments["file"]).embed(np.ascontiguousarray(pixels[..., ::-1]))
    messages = said(checked_with(arguments, ids, wrong, tmp_path))
    assert "channels swapped (BGR for RGB)" in messages["pixel mistakes that explain the device's embeddings"]


def test_a_device_as_it_should_be(
    arguments: dict[str, Any], embedded: tuple[tuple[str, ...], np.ndarray], tmp_path: Path
) -> None:
    ids, pixels = embedded
    result = checked_with(arguments, ids, ArtifactEmbedder(arguments["file"]).embed(pixels), tmp_path)
    assert result.passed, said(result)
    device = result.evidence.facts.device
    assert device is not None and device.misplaced == 0 and device.cosine_min is not None and device.cosine_min > 0.9999


@pytest.mark.parametrize(
    "name, words, change",
    [
        ("device's embeddings that are another photo's, share", "another order", lambda v: np.roll(v, 1, axis=0)),
        ("length of the device's embedding, largest error", "another length", lambda v: 17 * v),
        ("cosine of the device's embeddings to this machine's, mean", "delegate", lambda v: v * np.nan),
    ],
)
def test_devices_that_answer_wrong(
    name: str,
    words: str,
    change: Callable[[np.ndarray], np.ndarray],
    arguments: dict[str, Any],
    embedded: tuple[tuple[str, ...], np.ndarray],
    tmp_path: Path,
) -> None:
    ids, pixels = embedded
    answers = change(ArtifactEmbedder(arguments["file"]).embed(pixels))
    assert words in said(checked_with(arguments, ids, answers, tmp_path))[name]


def test_ranges_from_too_few_photos(arguments: dict[str, Any]) -> None:
    """Asked of 8-bit activations only."""
    name = "photos that the ranges of activations come from"
    assert name not in {each.name for each in check(**arguments).gates}
