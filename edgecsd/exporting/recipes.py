"""Named export recipes: target, precision and how 8 bit is made, by a device class's name or from a TOML file."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecsd.errors import BadInputError, validation_text
from edgecsd.files.whole import replace_whole
from edgecsd.quantisation.precisions import STANDARD_PERCENTILE, EightBit, Precision
from edgecsd.targets.artifact import parse_target
from edgecsd.targets.metadata import ArtifactMetadata, Target


class SearchedFrom(BaseModel):
    """What a search made the recipe's file of: with the same, the recipe makes the same file.

    run           the run folder, which is that of the tuned model where `tune` brought something
    calibration   folder or list of photos; calibration_digest is of the pixels that were chosen, None beside w8a8
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    weights_digest: str
    calibration: str
    split: str | None = None
    calibration_count: int
    seed: int
    calibration_digest: str | None = None
    licence: str | None = None

    def command(self, file: Path) -> str:
        """What makes the same file again of the recipe in `file`."""
        given = {
            "--recipe": file,
            "--calibration": self.calibration,
            "--split": self.split,
            "--calibration-count": self.calibration_count,
            "--seed": self.seed,
            "--licence": self.licence,
        }
        words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
        return shlex.join(["edgecsd", "export", self.run, *words])

    def differences(self, metadata: ArtifactMetadata) -> tuple[str, ...]:
        """Why an export by the recipe is not the file that was found, in words that say what to do; () if it is."""
        found = []
        if metadata.weights_digest != self.weights_digest:
            found.append(f"the recipe was found with other weights, those in {self.run}: export that folder")
        if metadata.calibration_digest != self.calibration_digest:
            split = "" if self.split is None else f" `split` {self.split}"
            found.append(
                f"the recipe was found with other photos for the ranges: `calibration` {self.calibration}{split} "
                f"`calibration_count` {self.calibration_count} `seed` {self.seed}"
            )
        return tuple(found)


class Recipe(BaseModel):
    """One way to export; those from `percentile` to `float_weights` are of w8a8 alone (quantization.EightBit).

    found: what the search had that wrote it
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Target
    precision: Precision
    percentile: float = STANDARD_PERCENTILE
    float_convolutions: tuple[Annotated[int, Field(ge=0)], ...] = ()
    bias_correction: bool = True
    equalisation: bool = False
    float_weights: bool = False
    ort_format: bool = False
    found: SearchedFrom | None = None

    @property
    def how(self) -> EightBit:
        return EightBit(
            self.percentile,
            frozenset(self.float_convolutions),
            self.bias_correction,
            self.equalisation,
            self.float_weights,
        )


# By device class; edgecsd deliver is these with a check, a golden pack and a card.
RECIPES = {
    "android": Recipe(target=Target.TFLITE, precision=Precision.W8A8),
    "android-gpu": Recipe(target=Target.TFLITE, precision=Precision.FP16),
    "ios": Recipe(target=Target.COREML, precision=Precision.FP16),
    "web": Recipe(target=Target.ONNX, precision=Precision.W8A8),
    "raspberry-pi": Recipe(target=Target.TFLITE, precision=Precision.W8A8),
    "onnxruntime-mobile": Recipe(target=Target.ONNX, precision=Precision.W8A8, ort_format=True),
    "server": Recipe(target=Target.ONNX, precision=Precision.FP32),
}

# What the card of a delivery says about loading the file
HOW_TO = {
    "android": "Load it with LiteRT (CompiledModel or Interpreter); feed the uint8 bitmap bytes, R G B, without alpha.",
    "ios": "Add the .mlpackage to the Xcode project; feed an RGB CVPixelBuffer of that size to the generated class.",
    "web": "Load it with onnxruntime-web; feed a Uint8Array tensor of type uint8.",
    "raspberry-pi": "Load it with ai_edge_litert.Interpreter (or tflite_runtime with numpy < 2).",
    "server": "Load it with onnxruntime; one session a process, threads as its cores; decode as golden/ has it.",
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name or TOML file; BadInputError names the known ones, or what is wrong in the file."""
    if name in RECIPES:
        return RECIPES[name]
    file = Path(name)
    if file.suffix != ".toml":
        raise BadInputError(f"`recipe` {name}: there are {', '.join(RECIPES)}; or give a .toml file")
    try:
        values = tomllib.loads(file.read_text("utf-8"))
        if isinstance(values.get("target"), str):
            values["target"] = parse_target(values["target"])
        recipe = Recipe.model_validate(values)
        if recipe.how != EightBit() and recipe.precision is not Precision.W8A8:
            raise BadInputError(f"precision {recipe.precision} has one recipe; {recipe.how.changes} goes with w8a8")
    except FileNotFoundError:
        raise BadInputError(f"`recipe` {name}: no such file") from None
    except ValidationError as error:
        raise BadInputError(f"`recipe` {name}: {validation_text(error)}") from None
    except BadInputError as error:
        raise BadInputError(f"`recipe` {name}: {error}") from None
    except (OSError, ValueError) as error:
        raise BadInputError(f"`recipe` {name}: not readable as TOML: {error}") from None
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
    if recipe.found is not None:
        found = recipe.found.model_dump(exclude_none=True)  # JSON's numbers and strings are TOML's too
        said = " ".join(recipe.found.command(file).splitlines())
        lines += ["", f"# {said}", "[found]", *(f"{n} = {json.dumps(v, ensure_ascii=False)}" for n, v in found.items())]
    with replace_whole(file) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
