"""edgecsd export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, quoted, run_option
from edgecsd.cli.options import Json, Overwrite, Split, choices
from edgecsd.cli.pack import Golden, Index, NoGolden, PackOptions
from edgecsd.errors import BadInputError
from edgecsd.exporting.photos import RESIZE, baked_size
from edgecsd.exporting.places import default_place, suffix_of
from edgecsd.exporting.recipes import RECIPES, Recipe, find_recipe
from edgecsd.quantisation.precisions import Precision, parse_precision
from edgecsd.targets.artifact import parse_target
from edgecsd.targets.metadata import Target

AUTO = "auto"
PANELS = {
    "Calibration, for w8a8": ("calibration", "calibration_count", "split", "seed"),
    "What is in the file": ("licence", "ort_format", "bake", "bake_size", "study_only"),
    "Golden pack": ("golden", "no_golden", "index"),
}

Calibration = Annotated[
    Path | None, typer.Option(help="Photos that w8a8 measures its ranges on: unlabelled, like the queries to come.")
]
CalibrationCount = Annotated[int | None, typer.Option(min=8, help="How many of them (64).")]
Seed = Annotated[int, typer.Option(help="Seed of the choice of calibration photos.")]
Licence = Annotated[str | None, typer.Option(help="Licence text or SPDX name to put into the file's metadata.")]


def command(
    run: Annotated[Path, typer.Argument(help="The run folder of a distilled query model.")],
    target: Annotated[
        str | None, typer.Option(help="litert is tflite's other name; coreai is experimental.", **choices(Target))
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="w8a32: 8-bit weights; w8a8: 8-bit weights and activations (default: fp32). edgecsd precision finds "
            "the smallest that keeps retrieval.",
            **choices(Precision),
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Target and precision by a name, or from a TOML file.", **choices([*RECIPES, "FILE.toml"])),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write (default: RUN/exports/BACKBONE-PRECISION.SUFFIX).")
    ] = None,
    calibration: Calibration = None,
    calibration_count: CalibrationCount = None,
    split: Split = None,
    seed: Seed = 0,
    licence: Licence = None,
    ort_format: Annotated[
        bool, typer.Option("--ort-format", help="Target onnx: write .ort, onnxruntime's own format for phones.")
    ] = False,
    bake: Annotated[
        str | None,
        typer.Option(
            help="Put the contract's resize and crop inside, so that the file takes whole photos.", **choices([RESIZE])
        ),
    ] = None,
    bake_size: Annotated[
        str | None,
        typer.Option(help="--bake: HEIGHTxWIDTH of those photos, upright (any size; target tflite needs one)."),
    ] = None,
    study_only: Annotated[
        bool,
        typer.Option(
            "--study-only", help="Write a float file that differs from torch too, marked as such; check refuses it."
        ),
    ] = False,
    golden: Golden = None,
    no_golden: NoGolden = False,
    index: Index = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export to one file: uint8 NHWC pixels in, unit embedding out, metadata inside; then read it back and run it.

    Example: edgecsd export run --target tflite --precision w8a8 --calibration photos
    """
    if calibration_count is not None and calibration is None:
        raise BadInputError(f"`calibration_count` {calibration_count}: goes with `calibration` PHOTOS")
    if split is not None and calibration is None:
        raise BadInputError(f"`split` {split}: goes with `calibration` and a CSV list")
    chosen = _recipe(recipe, target, precision, ort_format)
    baked = baked_size(chosen.target, bake, bake_size)
    pack = PackOptions.of(golden, no_golden, index, calibration, split)
    if pack.asked:
        from edgecsd.models.query_config import read_config

        suffix = suffix_of(chosen.target, chosen.ort_format)
        file = out or default_place(run, read_config(run).backbone, chosen.precision, suffix, baked, study_only)
        pack.require_possible(run, file, baked=baked is not None)
    from edgecsd.exporting.export import export
    from edgecsd.photos.finding import find_images

    result = export(
        run,
        chosen.target,
        chosen.precision,
        out=out,
        calibration=None if calibration is None else find_images(calibration, split=split),
        calibration_count=calibration_count or 64,
        seed=seed,
        licence=licence,
        ort_format=chosen.ort_format,
        baked=baked,
        how=chosen.how,
        study_only=study_only,
        overwrite=overwrite,
        reporter=console_reporter(),
    )
    for difference in chosen.found.differences(result.metadata) if chosen.found else ():
        console_reporter().message(f"warning: not the file that the search chose: {difference}")
    put = pack.put(result, run)
    parity = result.parity
    kept = f", overlap@10 among them {parity['overlap_10']:.3f}" if "overlap_10" in parity else ""
    text = (
        f"{result.target} {result.precision}: {result.size_bytes / 1e6:.2f} MB; against the torch model, on "
        f"{result.compared_on}: "
        f"cosine mean {parity['cosine_mean']:.6f}, lowest {parity['cosine_min']:.6f}, "
        f"largest difference {parity['max_difference']:.2e}{kept}{put.in_words}"
    )
    document = {
        "artifact": str(result.path),
        "target": result.target,
        "precision": result.precision,
        "size_bytes": result.size_bytes,
        "sha256": result.sha256,
        "parity": parity,
        "compared_on": result.compared_on,
        "half_precision": result.half_precision.as_dict() if result.half_precision else None,
        "metadata": result.metadata.model_dump(mode="json"),
        **put.as_dict(),
    }
    finish(
        as_json,
        document,
        text=text,
        wrote=result.path,
        following=f"edgecsd inspect {quoted(result.path)}"
        if study_only
        else f"edgecsd check {quoted(result.path)} --index gallery.index --images PHOTOS{run_option(result.path, run)}",
    )


def _recipe(name: str | None, target: str | None, precision: str | None, ort_format: bool) -> Recipe:
    """The named recipe, or one of the options; both at once contradict each other."""
    if precision == AUTO:
        raise BadInputError(
            "`precision` auto: edgecsd precision RUN --target TARGET --calibration PHOTOS --gallery STORE finds it"
        )
    if name is None:
        if target is None:
            raise BadInputError(f"`target` is missing: {', '.join(Target)}; or name a `recipe`")
        known = Precision.FP32 if precision is None else parse_precision(precision)
        return Recipe(target=parse_target(target), precision=known, ort_format=ort_format)
    for option, value in (("`target`", target), ("`precision`", precision), ("`ort_format`", ort_format)):
        if value:
            raise BadInputError(f"`recipe` {name} says {option} itself: leave out one of them")
    return find_recipe(name)
