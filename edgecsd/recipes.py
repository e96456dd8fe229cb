"""Named export recipes: target, precision and how 8 bit is made, by a device class's name or from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecsd.errors import BadInputError
from edgecsd.files import replace_whole
from edgecsd.preprocess import validation_text
from edgecsd.quantization import STANDARD_PERCENTILE, EightBit, Precision
from edgecsd.targets.artifact import Target, parse_target


class Recipe(BaseModel):
    """One way to export; the fields below `precision` are of w8a8 alone (edgecsd.quantization.EightBit)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Target
    precision: Precision
    percentile: float = STANDARD_PERCENTILE
    float_convolutions: tuple[Annotated[int, Field(ge=0)], ...] = ()
    bias_correction: bool = True
    equalisation: bool = False
    float_weights: bool = False
    ort_format: bool = False

    @property
    def how(self) -> EightBit:
        return EightBit(
            self.percentile, frozenset(self.float_convolutions), self.bias_correction, self.equalisation,
            self.float_weights,
        )  # fmt: skip


# By device class; the programs in export/ are these with a check, a golden pack and a card.
RECIPES = {
    "android": Recipe(target=Target.TFLITE, precision=Precision.W8A8),
    "android-gpu": Recipe(target=Target.TFLITE, precision=Precision.FP16),
    "ios": Recipe(target=Target.COREML, precision=Precision.FP16),
    "web": Recipe(target=Target.ONNX, precision=Precision.W8A8),
    "raspberry-pi": Recipe(target=Target.TFLITE, precision=Precision.W8A8),
    "onnxruntime-mobile": Recipe(target=Target.ONNX, precision=Precision.W8A8, ort_format=True),
    "server": Recipe(target=Target.ONNX, precision=Precision.FP32),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name, or of the TOML file; BadInputError tells the names, or what is wrong in the file."""
    if name in RECIPES:
        return RECIPES[name]
    file = Path(name)
    if file.suffix != ".toml":
        raise BadInputError(f"--recipe {name}: there are {', '.join(RECIPES)}; or give a .toml file")
    try:
        values = tomllib.loads(file.read_text("utf-8"))
        if isinstance(values.get("target"), str):
            values["target"] = parse_target(values["target"])
        recipe = Recipe.model_validate(values)
        if recipe.how != EightBit() and recipe.precision is not Precision.W8A8:
            raise BadInputError(f"precision {recipe.precision} has one recipe; {recipe.how.changes} goes with w8a8")
    except FileNotFoundError:
        raise BadInputError(f"--recipe {name}: no such file") from None
    except ValidationError as error:
        raise BadInputError(f"--recipe {name}: {validation_text(error)}") from None
    except BadInputError as error:
        raise BadInputError(f"--recipe {name}: {error}") from None
    except (OSError, ValueError) as error:
        raise BadInputError(f"--recipe {name}: not readable as TOML: {error}") from None
    return recipe


def write_recipe(file: Path, recipe: Recipe) -> None:
    """A TOML file that `find_recipe` reads."""
    lines = [f'target = "{recipe.target}"', f'precision = "{recipe.precision}"']
    if recipe.precision is Precision.W8A8:
        lines += [
            f"percentile = {recipe.percentile!r}",
            f"float_convolutions = {list(recipe.float_convolutions)}",
            f"bias_correction = {str(recipe.bias_correction).lower()}",
            f"equalisation = {str(recipe.equalisation).lower()}",
            f"float_weights = {str(recipe.float_weights).lower()}",
        ]
    if recipe.ort_format:
        lines.append("ort_format = true")
    with replace_whole(file) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
