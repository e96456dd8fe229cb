"""w8a8 for Core ML: ranges from every photo, the body alone in 8 bit, read back from the written file."""

from __future__ import annotations

from pathlib import Path

import coremltools
import numpy as np
import pytest
import torch
from target_models import PHOTOS, Make, Pixels

from edgecsd.exporting.export import compare, export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.query import create_query_model, save_query_model
from edgecsd.models.weights import packaged_weights
from edgecsd.photos.decoding import read_image
from edgecsd.photos.finding import find_images
from edgecsd.targets.activation_ranges import activation_ranges
from edgecsd.targets.artifact import load_runner, read_metadata
from edgecsd.targets.coreml.arguments import Operator
from edgecsd.targets.coreml.evaluator import CoremlEvaluator
from edgecsd.targets.coreml.program import CoremlProgram, Output, Step
from edgecsd.targets.coreml.quantise import Scale, scale_of
from edgecsd.targets.coreml.ranges import body_of, measured_ranges


def test_ranges_are_those_of_every_target_over_all_photos(artifact: Make, pixels: Pixels) -> None:
    evaluator = CoremlEvaluator(artifact("coreml", "fp32").path, 1)
    body = body_of(evaluator.program.steps, "image")
    assert body is not None
    names = [list(body.readers)[place] for place in (0, 5, -1)]
    kept: dict[str, list[np.ndarray]] = {name: [] for name in names}

    def keep(name: str, value: torch.Tensor) -> None:
        if name in kept:
            kept[name].append(value.float().numpy())

    for number in range(PHOTOS):
        evaluator.observe(pixels[number : number + 1], keep)
    numbers = np.arange(PHOTOS, dtype=np.uint8).reshape(PHOTOS, 1, 1, 1)
    expected = activation_ranges(lambda n: {name: kept[name][int(n[0, 0, 0, 0])] for name in names}, numbers)
    assert measured_ranges(evaluator, pixels, names) == expected
    assert measured_ranges(evaluator, pixels[-1:], names) != expected  # the last photo alone would not do


def nothing(*_: object) -> torch.Tensor:
    raise AssertionError


def step(operator: str, output: str, *inputs: str, side: int = 8, run: Operator = nothing) -> Step:
    values: dict[str, str | tuple[str | torch.Tensor, ...]] = dict(zip(("x", "y"), inputs, strict=False))
    return Step(operator, run, {}, values, (Output(output, torch.float16, (1, 4, side, side)),))


def test_the_body_is_between_the_convolutions_and_leaves_gates_alone() -> None:
    steps = [
        step("sub", "normalised", "image"),
        step("conv", "a", "normalised"),
        step("relu", "b", "a"),
        step("reduce_mean", "squeezed", "b", side=1),
        step("conv", "gate", "squeezed", side=1),
        step("mul", "gated", "b", "gate"),
        step("conv", "c", "gated"),
        step("add", "sum", "c", "b"),
        step("add", "shifted", "sum"),  # by a constant: not a residual sum
        step("max_pool", "small", "shifted", side=4),
        step("conv", "last", "small", side=4),
        step("add", "tail", "last", "small", side=4),
    ]
    body = body_of(steps, "image")
    assert body is not None
    assert {value: set(readers) for value, readers in body.readers.items()} == {
        "normalised": {"a"},
        "b": {"squeezed", "gated", "sum"},  # made in 8 bit, and read so by everyone
        "gated": {"c"},
        "c": {"sum"},
        "small": {"last"},
    }
    assert body_of([step("mul", "a", "image")], "image") is None


def rounded(values: np.ndarray, scale: Scale) -> np.ndarray:
    lowest, highest = (-128, 127) if scale.signed else (0, 255)
    return (np.clip(np.round(values / scale.step) + scale.zero, lowest, highest) - scale.zero) * scale.step


@pytest.mark.parametrize(
    ("lowest", "highest", "zero", "signed"),
    [
        (0.0, 51.0, 0, False),
        (0.3, 6.0, 0, False),
        (-12.8, 9.0, 0, True),
        (-9.0, 12.7, 0, True),
        (-0.375, 9.0, 10, False),
    ],
)
def test_scales_hold_the_range_and_zero(lowest: float, highest: float, zero: int, signed: bool) -> None:
    scale = scale_of((lowest, highest))
    assert scale is not None and (scale.zero, scale.signed) == (zero, signed)
    values = np.linspace(lowest, highest, 1001)
    assert np.abs(rounded(values, scale) - values).max() <= 0.75 * scale.step  # a half, and fp16's rounding of the step
    assert rounded(np.zeros(1), scale)[0] == 0
    assert scale.step <= 1.001 * (highest - min(lowest, 0)) / (171 if signed else 255)


def test_no_step_is_too_short_for_its_range() -> None:
    """Steps are fp16, rounded up: the nearest below would clip the ends, of a range of 2e-5 by a third."""
    for highest in np.geomspace(0.016, 1e6, 500).tolist():
        for lowest in (0.0, -highest):
            scale = scale_of((lowest, highest))
            assert scale is not None
            assert scale.step * (127 if scale.signed else 255 - scale.zero) >= highest
            assert scale.step * ((128 if scale.signed else 0) + scale.zero) >= -lowest


@pytest.mark.parametrize("highest", [0.0, 1e-9, 2.2e-5, 0.015, 1e9, float("inf"), float("nan")])
def test_values_that_no_scale_holds_stay_float(highest: float) -> None:
    assert scale_of((0.0, highest)) is None


def test_only_the_body_reads_8_bit_values(artifact: Make) -> None:
    program = CoremlProgram(artifact("coreml", "w8a8").path)
    kinds = [each.operator for each in program.steps]
    rounded = {each.outputs[0].name for each in program.steps if each.operator == "dequantize"}
    reading = [
        number
        for number, each in enumerate(program.steps)
        if each.operator != "quantize" and rounded & {name for name in each.values.values() if isinstance(name, str)}
    ]
    convolutions = [number for number, kind in enumerate(kinds) if kind == "conv"]
    assert convolutions[0] in reading and convolutions[-1] in reading
    assert max(reading) == convolutions[-1]
    assert {"linear", "sqrt"} <= set(kinds[convolutions[-1] :])
    assert not {"quantize", "dequantize"} & set(kinds[convolutions[-1] :])
    normalised = [number for number, kind in enumerate(kinds) if kind in ("sub", "real_div") and number < min(reading)]
    assert normalised, "the normalisation of the input is computed before anything is rounded"
    gates = [number for number in convolutions if program.steps[number].outputs[0].shape[2:] == (1, 1)]
    assert gates and not set(gates) & set(reading)
    assert set(convolutions) - set(gates) <= set(reading)


def test_every_convolution_has_8_bit_weights(artifact: Make) -> None:
    package = coremltools.models.MLModel(str(artifact("coreml", "w8a8").path), skip_model_load=True)
    operations = [
        operation
        for function in package.get_spec().mlProgram.functions.values()
        for block in function.block_specializations.values()
        for operation in block.operations
    ]
    made_by = {output.name: operation.type for operation in operations for output in operation.outputs}
    weights = [
        made_by[operation.inputs["weight"].arguments[0].name]
        for operation in operations
        if operation.type in ("conv", "linear")
    ]
    assert len(weights) > 10 and set(weights) == {"constexpr_affine_dequantize"}


def test_the_recipe_says_how_far_it_was_verified(artifact: Make) -> None:
    metadata = read_metadata(artifact("coreml", "w8a8").path)
    assert metadata.recipe.endswith("verified-by-reference-semantics-only")
    assert metadata.calibration_count == PHOTOS


@pytest.mark.slow
def test_a_trained_network_keeps_its_embeddings_in_8_bit(photos: Path, tmp_path: Path) -> None:
    if packaged_weights("tf_efficientnet_lite0") is None:
        pytest.skip("the weights of EfficientNet-Lite0 are not installed")
    torch.manual_seed(0)
    model = create_query_model("tf_efficientnet_lite0", EmbeddingSpace(gallery_model="g", dim=64), size=128)
    save_query_model(model, tmp_path)
    made = export(tmp_path, "coreml", "w8a8", calibration=find_images(photos), calibration_count=12)
    images = find_images(photos)
    pixels = np.stack([model.config.preprocess.pixels(read_image(images.path(i))[0]) for i in range(12)])
    figures = compare(load_runner(made.path).embed(pixels), model.embed(pixels))
    assert figures["cosine_mean"] >= 0.98
