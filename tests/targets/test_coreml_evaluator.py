"""The evaluator of saved ML Programs, on networks from timm: the numbers of torch, every value in its declared type."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder
from target_models import Make, Pixels

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.exporting.export import compare
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.backbones import to_input
from edgecsd.models.query import QueryModel, create_query_model
from edgecsd.models.weights import packaged_weights
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.decoding import read_image
from edgecsd.photos.finding import find_images
from edgecsd.quantisation.precisions import Precision
from edgecsd.quiet import quiet_conversion
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME
from edgecsd.targets.coreml.convert import convert
from edgecsd.targets.coreml.describe import describe
from edgecsd.targets.coreml.evaluator import CoremlEvaluator
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.metadata import ArtifactMetadata, Target

SPACE = EmbeddingSpace(gallery_model="test-gallery", dim=32)
# Hard gates, splits and joins, layer norm, attention, slices: most operators of the whole list
FEW = ("mobilenetv3_small_050", "ghostnet_050", "convnext_atto", "edgenext_xx_small", "rexnet_100")
# Convolutional networks of timm that coremltools converts; every operator that they produce has to be known
ALL = (
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "efficientnet_es",
    "fastvit_t8",
    "repvit_m1",
    "repghostnet_050",
    "ghostnet_050",
    "ghostnetv2_100",
    "mobileone_s0",
    "regnety_002",
    "resnet18",
    "convnext_atto",
    "convnextv2_atto",
    "edgenext_xx_small",
    "mobilevitv2_050",
    "hardcorenas_a",
    "mnasnet_small",
    "lcnet_050",
    "tinynet_a",
    "starnet_s1",
    "efficientvit_b0",
    "mobilenetv4_hybrid_medium",
    "shvit_s1",
    "swiftformer_xs",
    "efficientvit_m0",
    "densenet121",
    "inception_next_atto",
    "fbnetv3_b",
    "hrnet_w18_small",
    "eca_nfnet_l0",
    "resnest14d",
    "mixnet_s",
    "mobilevit_xxs",
    "poolformer_s12",
    "hgnetv2_b0",
    "rexnet_100",
    "tf_efficientnetv2_b0",
    "nextvit_small",
    "pvt_v2_b0",
)


def settled(name: str, pixels: Pixels) -> QueryModel:
    """An untrained network whose batch-norm statistics are those of the photos: its embeddings differ by photo."""
    torch.manual_seed(3)
    contract = Preprocess(size=pixels.shape[1], mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    model = create_query_model(name, SPACE, preprocess=contract, pretrained=False)
    batch = to_input(pixels, contract)
    model.train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = None  # the plain mean over the passes
        for _ in range(2):
            model(batch)
    return model.eval()


def written(model: QueryModel, path: Path, precision: Precision = Precision.FP32) -> Path:
    config = model.config
    metadata = ArtifactMetadata(
        target=Target.COREML,
        precision=precision,
        recipe="test",
        space=config.space,
        dim=config.dim,
        fingerprint=config.space.fingerprint,
        metric=config.space.metric,
        preprocess=config.preprocess,
        backbone=config.backbone,
        weights_digest="",
        versions={},
    )
    convert(DeployModel(model), path, precision, None, metadata)
    return path


def differences(name: str, pixels: Pixels, folder: Path) -> tuple[float, float]:
    """Of one element at most: the evaluator's from torch's, and torch's own from its computation in float64."""
    model = settled(name, pixels)
    found = CoremlEvaluator(written(model, folder / f"{name}.mlpackage"), 1).embed(pixels[:2])
    expected = np.concatenate([model.embed(pixels[i : i + 1]) for i in range(2)])
    assert float((expected[0] * expected[1]).sum()) < 0.99999, "the network gives every photo the same embedding"
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(to_input(pixels[:2], model.config.preprocess).double()).numpy()
    return float(np.abs(found - expected).max()), float(np.abs(expected - exact).max())


@pytest.mark.parametrize("name", [*FEW[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in FEW[2:])])
def test_float_numbers_are_torchs(name: str, pixels: Pixels, tmp_path: Path) -> None:
    assert differences(name, pixels, tmp_path)[0] <= 1e-5


@pytest.mark.study
@pytest.mark.parametrize("name", ALL)
def test_every_convolutional_network_of_the_list(name: str, pixels: Pixels, tmp_path: Path) -> None:
    """pytest -m study -rP shows the operators of each."""
    difference, own = differences(name, pixels, tmp_path)
    operators = describe(tmp_path / f"{name}.mlpackage").operators
    print(f"{name}: {difference:.1e}, torch's own rounding {own:.1e}, {', '.join(sorted(operators))}")
    # Some untrained networks magnify what is rounded: torch itself is then farther than 1e-5 from the exact numbers.
    assert difference <= max(1e-5, 4 * own)


@pytest.mark.slow
def test_half_precision_of_a_trained_network_on_photos(photos: Path, tmp_path: Path) -> None:
    if packaged_weights("tf_efficientnet_lite0") is None:
        pytest.skip("the weights of EfficientNet-Lite0 are not installed")
    torch.manual_seed(0)
    model = create_query_model("tf_efficientnet_lite0", SPACE)
    images = find_images(photos)
    batch = np.stack([model.config.preprocess.pixels(read_image(images.path(i))[0]) for i in range(6)])
    evaluator = CoremlEvaluator(written(model, tmp_path / "half.mlpackage", Precision.FP16), 1)
    assert compare(evaluator.embed(batch), model.embed(batch))["cosine_min"] >= 0.9999


def test_every_value_has_the_type_that_the_program_declares(artifact: Make, pixels: Pixels) -> None:
    seen: dict[str, torch.Tensor] = {}
    evaluator = CoremlEvaluator(artifact("coreml", "fp16").path, 1)
    result = evaluator.observe(pixels[:1], lambda name, value: seen.update({name: value.clone()}))
    declared = {output.name: output.dtype for step in evaluator.program.steps for output in step.outputs}
    assert {name: value.dtype for name, value in seen.items()} == declared
    halves = [value for value in seen.values() if value.dtype == torch.float16]
    assert len(halves) > 40
    assert seen[OUTPUT_NAME].dtype == torch.float32 and result.shape == (1, 32)


def program_of(build: Any, path: Path, shape: tuple[int, ...] = (1, 3, 8, 8)) -> Path:
    """A package around one function of MIL operators."""

    @Builder.program(input_specs=[Builder.TensorSpec(shape)], opset_version=coremltools.target.iOS17)  # type: ignore[untyped-decorator]
    def main(image: Any) -> Any:
        return build(image)

    with quiet_conversion("the conversion"):
        package = coremltools.convert(
            main,
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target.iOS17,
            skip_model_load=True,
            compute_precision=coremltools.precision.FLOAT32,
        )
        package.save(str(path))
    return path


def test_unknown_operators_are_named_with_those_that_are_known(tmp_path: Path) -> None:
    def build(image: Any) -> Any:
        return Builder.tan(x=Builder.acos(x=Builder.tan(x=image)), name=OUTPUT_NAME)

    path = program_of(build, tmp_path / "odd.mlpackage")
    with pytest.raises(BadInputError) as caught:
        CoremlEvaluator(path, 1)
    text = str(caught.value)
    assert "'acos' (1 times), 'tan' (2 times); check this file on macOS (known: abs, add, avg_pool" in text
    assert not isinstance(caught.value, DamagedFileError)


def test_a_program_of_other_values_is_refused(tmp_path: Path) -> None:
    path = program_of(lambda image: Builder.relu(x=image, name="elsewhere"), tmp_path / "other.mlpackage")
    with pytest.raises(BadInputError, match=f"are not {INPUT_NAME!r} and {OUTPUT_NAME!r}"):
        CoremlEvaluator(path, 1)


def test_outputs_of_a_split_and_lists_of_constants(tmp_path: Path) -> None:
    from edgecsd.targets.coreml.program import CoremlProgram

    constant = np.full((1, 1, 8, 8), 7, np.float32)

    def build(image: Any) -> Any:
        first, second, third = Builder.split(x=image, num_splits=3, axis=1)
        return Builder.concat(values=(third, constant, first, Builder.sub(x=second, y=first)), axis=1)

    program = CoremlProgram(program_of(build, tmp_path / "split.mlpackage"))
    given = torch.randn(1, 3, 8, 8)
    expected = torch.stack([given[0, 2], torch.full((8, 8), 7.0), given[0, 0], given[0, 1] - given[0, 0]])
    torch.testing.assert_close(program.run(given)[0], expected)
