"""What litert-torch cannot convert is said in words, with the operator or the module."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import cast

import pytest

from edgecsd.errors import BadInputError
from edgecsd.models.query import QueryModel
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.tflite import refusals
from edgecsd.targets.tflite.refusals import in_words, require_convertible

NET = cast(DeployModel, SimpleNamespace(query_model=SimpleNamespace(config=SimpleNamespace(backbone="net"))))
SAID = (
    "Failed to run converter passes: /lib/site-packages/timm/models/mobilevit.py:400:0: error: 'tfl.mul' op operands "
    "don't have broadcast-compatible shapes\n<unknown>:0: note: called from"
)


def test_attention_over_the_batch_is_refused_by_its_name(model: QueryModel) -> None:
    kind = import_module("timm.models.csatv2").SpatialTransformerBlock  # so that a new name of it is noticed
    assert f"{kind.__module__}.{kind.__qualname__}" in refusals.ACROSS_THE_BATCH
    deploy = DeployModel(model)
    require_convertible(deploy)
    deploy.query_model.backbone.blocks.append(kind())
    with pytest.raises(
        BadInputError, match=r"backbone\.blocks\.\d+ \(SpatialTransformerBlock\) attends.*onnx or coreml"
    ):
        require_convertible(deploy)


def test_a_failing_operator_is_named_with_its_line() -> None:
    words = r"net cannot become.*on tfl\.mul, .* line 400 of models/mobilevit\.py: operands don't have .* shapes; take"
    with pytest.raises(BadInputError, match=words), in_words(NET):
        raise ValueError(SAID)


def test_without_an_operator_the_line_is_named() -> None:
    said = "passes: /site-packages/timm/models/csatv2.py:414:0: error: contracting dimension sizes must match"
    with (
        pytest.raises(BadInputError, match=r"litert-torch fails on line 414 of models/csatv2\.py: contracting"),
        in_words(NET),
    ):
        raise ValueError(said)


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="no such thing"), in_words(NET):
        raise ValueError("no such thing")
