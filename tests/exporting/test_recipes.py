"""Export recipes: by name, from a file, and errors that say what there is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError
from edgecsd.exporting.export import export
from edgecsd.exporting.recipes import RECIPES, Recipe, SearchedFrom, find_recipe, write_recipe
from edgecsd.features.space import EmbeddingSpace
from edgecsd.models.query import create_query_model, save_query_model
from edgecsd.photos.finding import find_images
from edgecsd.quantisation.precisions import EightBit, Precision
from edgecsd.targets.artifact import target_module
from edgecsd.targets.metadata import Target


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_is_one_that_its_target_has(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.precision in target_module(recipe.target).PRECISIONS
    assert recipe.target is Target.ONNX or not recipe.ort_format


def test_a_written_recipe_reads_back(tmp_path: Path) -> None:
    chosen = Recipe(
        target=Target.TFLITE,
        precision=Precision.W8A8,
        percentile=99.9,
        float_convolutions=(2, 7),
        bias_correction=False,
        equalisation=True,
        float_weights=True,
        found=SearchedFrom(
            run='a "run"',
            weights_digest="0" * 64,
            calibration="photos/é.csv",
            split="train",
            calibration_count=32,
            seed=3,
            calibration_digest="1" * 64,
        ),
    )
    for number, recipe in enumerate((chosen, *RECIPES.values())):
        write_recipe(tmp_path / f"{number}.toml", recipe)
        assert find_recipe(str(tmp_path / f"{number}.toml")) == recipe
    assert chosen.found is not None and chosen.found.command(tmp_path / "a b.toml") == (
        f"""edgecsd export 'a "run"' --recipe '{tmp_path}/a b.toml' --calibration 'photos/é.csv' --split train """
        "--calibration-count 32 --seed 3"
    )
    assert chosen.how == EightBit(99.9, frozenset({2, 7}), False, True, True)


@pytest.mark.parametrize(
    "text, said",
    [
        ('target = "tflite"', "precision = "),
        ('target = "litert"\nprecision = "int8"', "precision = 'int8'"),
        ('target = "tensorrt"\nprecision = "fp32"', "target 'tensorrt' is not known"),
        ('target = "onnx"\nprecision = "fp16"\npercentile = 99.9', "fp16 has one recipe; percentile-99.9"),
        ('target = "onnx"\nprecision = "w8a8"\nfloat_convolutions = [-1]', "float_convolutions.0"),
        ('target = "onnx"\nprecision = "w8a8"\nclipping = 3', "clipping"),
        ('target = "onnx"\nprecision = "w8a8"\nfloat_weights = true', "float weights are those of float convolutions"),
        ('target = "onnx"\nprecision = "fp32"\nequalisation = true', "fp32 has one recipe; equalised goes with w8a8"),
        ("target = ", "not readable as TOML"),
    ],
)
def test_files_that_are_no_recipe(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(BadInputError, match=r"`recipe` .*wrong\.toml: ") as error:
        find_recipe(str(tmp_path / "wrong.toml"))
    assert said in str(error.value)


def test_a_convolution_that_the_network_has_not(tmp_path: Path) -> None:
    model = create_query_model("test_byobnet", EmbeddingSpace(gallery_model="g", dim=16), size=64, pretrained=False)
    save_query_model(model, tmp_path / "run")
    count = sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())
    how = EightBit(float_convolutions=frozenset({0, count, 9999}))
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    for number in range(1, 8):
        shutil.copy(tmp_path / "0.png", tmp_path / f"{number}.png")
    said = rf"float_convolutions \[{count}, 9999\]: this network has {count} convolutions, from 0 to {count - 1} "
    with pytest.raises(BadInputError, match=said):
        export(tmp_path / "run", "onnx", "w8a8", calibration=find_images(tmp_path), how=how)


def test_unknown_names() -> None:
    with pytest.raises(BadInputError, match="there are android, android-gpu, ios"):
        find_recipe("blackberry")
    with pytest.raises(BadInputError, match="no such file"):
        find_recipe("missing.toml")


@pytest.mark.parametrize(
    "options, said",
    [
        ([], "`target` is missing"),
        (["--recipe", "ios", "--target", "onnx"], "`recipe` ios says `target` itself"),
        (["--recipe", "ios", "--precision", "fp32"], "`recipe` ios says `precision` itself"),
        (["--recipe", "web", "--ort-format"], "`recipe` web says `ort_format` itself"),
    ],
)
def test_the_command_refuses_contradictions(options: list[str], said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(tmp_path), *options])
    assert isinstance(done.exception, BadInputError) and said in str(done.exception)
