"""A model is traced once for all precisions; another model, or one that its weights don't describe, anew."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from target_models import Pixels
from torch import Tensor

from edgecsd.exporting.export import export
from edgecsd.models.query import QueryModel, load_query_model, save_query_model
from edgecsd.targets.artifact import ArtifactEmbedder
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.metadata import Target
from edgecsd.targets.traced import MOST, traced_once


class Count:
    """Traces by giving the number of the call."""

    def __init__(self) -> None:
        self.calls = 0
        self.trace = traced_once(self._trace)

    def _trace(self, model: DeployModel) -> bytes:
        self.calls += 1
        return b"%d" % self.calls


def changed(model: QueryModel, by: float) -> QueryModel:
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.projection.parameters())[0, 0] += by
    return other


def test_a_model_that_was_read_again_is_not_traced_again(run: Path) -> None:
    count = Count()
    assert [count.trace(DeployModel(load_query_model(run))) for _ in range(3)] == [b"1"] * 3


def test_other_weights_or_another_exponent_are_traced(model: QueryModel) -> None:
    count, other = Count(), copy.deepcopy(model)
    other.config = model.config.model_copy(update={"gem_p": 2.5})
    results = [count.trace(DeployModel(m)) for m in (model, changed(model, 1e-4), other)]
    assert results == [b"1", b"2", b"3"]


def test_so_is_a_changed_module_with_the_same_weights(model: QueryModel) -> None:
    count, other = Count(), copy.deepcopy(model)
    other.backbone.conv_head.stride = (2, 2)  # type: ignore[assignment, union-attr]
    assert [count.trace(DeployModel(m)) for m in (model, other)] == [b"1", b"2"]


def test_the_last_models_are_kept(model: QueryModel) -> None:
    count = Count()
    models = [DeployModel(changed(model, 0.1 * number)) for number in range(MOST + 1)]
    for one in models:
        count.trace(one)
    count.trace(models[-1])
    assert count.calls == MOST + 1
    count.trace(models[0])
    assert count.calls == MOST + 2


def test_a_large_model_is_not_kept(model: QueryModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecsd.targets.traced.MOST_BYTES", 0)
    count = Count()
    assert [count.trace(DeployModel(model)) for _ in range(2)] == [b"1", b"2"]


def test_somebody_elses_module_is_traced_every_time(model: QueryModel) -> None:
    class Turned(DeployModel):
        def forward(self, image: Tensor) -> Tensor:
            return -super().forward(image)

    count, patched = Count(), DeployModel(model)
    patched.query_model.forward = lambda images: images  # type: ignore[method-assign]
    for deploy in (Turned(model), patched):
        count.trace(deploy)
        count.trace(deploy)
    assert count.calls == 4


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_both_of_two_models_in_turns_are_written(
    target: str, run: Path, model: QueryModel, pixels: Pixels, tmp_path: Path
) -> None:
    """Through export: no file holds the other model's network."""
    save_query_model(changed(model, 1.0), tmp_path / "other")
    for turn, folder in enumerate((run, tmp_path / "other", run)):
        made = export(folder, target, "fp32", out=tmp_path / f"{turn}{Target(target).suffix}")
        wanted = load_query_model(folder).embed(pixels[:2])
        assert np.abs(ArtifactEmbedder(made.path).embed(pixels[:2]) - wanted).max() < 1e-5
