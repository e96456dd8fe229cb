"""edgecsd export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import ConsoleReporter, Json, Overwrite, Split, finish, quoted, require_there, run_option
from edgecsd.cli.export_auto import SearchLimits, search_and_print
from edgecsd.errors import BadInputError
from edgecsd.exporting.photos import baked_size
from edgecsd.exporting.places import AUTO, default_place, suffix_of
from edgecsd.exporting.recipes import RECIPES, Recipe, find_recipe
from edgecsd.quantisation.precisions import Precision, parse_precision
from edgecsd.targets.artifact import parse_target

if TYPE_CHECKING:
    from edgecsd.delivery.beside import Beside
    from edgecsd.exporting.export import ExportResult
    from edgecsd.photos.images import ImageSet
    from edgecsd.precision_search.results import HeldOutFigures


def command(
    run: Annotated[Path, typer.Argument(help="The run folder of a distilled query model.")],
    target: Annotated[
        str | None, typer.Option(help="onnx, tflite (alias litert), coreml, or coreai (experimental).")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16, w8a32 (8-bit weights), w8a8 (8-bit weights and activations), or auto: from w8a8 up to "
            "fp32, until one keeps retrieval and the other limits (fp32)."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help=f"Target and precision by a name ({', '.join(RECIPES)}) or from a TOML file.")
    ] = None,
    max_loss: Annotated[
        str | None, typer.Option(help="auto: the share of overlap@10 that may be lost, such as 1% (1%).")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(help="auto: the largest file, such as 6MB, or 30% of the fp32 file (no limit).")
    ] = None,
    max_cpu_ratio: Annotated[
        str | None,
        typer.Option(help="auto: CPU time by the fp32 file's, one thread, by turns, such as 0.6 or 60% (no limit)."),
    ] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="auto: store with the gallery features of the calibration photos, searched in.")
    ] = None,
    held_out: Annotated[
        int | None, typer.Option(help="auto: photos to search with, 16 or more, beside those that calibrate (300).")
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="auto: measure what each layer costs in 8 bit, whatever fits; minutes.")
    ] = False,
    tune: Annotated[
        int | None,
        typer.Option(min=1, help="auto: steps of quantisation-aware distillation behind the search, such as 300."),
    ] = None,
    tune_images: Annotated[
        Path | None, typer.Option(help="--tune: photos to train on (those of --calibration that are not held out).")
    ] = None,
    tune_features: Annotated[
        Path | None, typer.Option(help="--tune: the store with their gallery features (that of --gallery).")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Photos that w8a8 measures its ranges on: unlabelled, like the queries to come.")
    ] = None,
    calibration_count: Annotated[int | None, typer.Option(min=8, help="How many of them (64).")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file to write (default: RUN/exports/BACKBONE-PRECISION.SUFFIX).")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence text or SPDX name to put into the file's metadata.")
    ] = None,
    ort_format: Annotated[
        bool, typer.Option("--ort-format", help="Target onnx: write .ort, onnxruntime's own format for phones.")
    ] = False,
    bake: Annotated[
        str | None,
        typer.Option(help="resize: put the contract's resize and crop inside, so that the file takes whole photos."),
    ] = None,
    bake_size: Annotated[
        str | None,
        typer.Option(help="--bake: HEIGHTxWIDTH of those photos, upright (any size; target tflite needs one)."),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(help="Photos for the golden pack, which go with it as they are (those of --calibration)."),
    ] = None,
    no_golden: Annotated[bool, typer.Option("--no-golden", help="Write no golden pack.")] = False,
    index: Annotated[
        Path | None,
        typer.Option(help="Gallery index: adds to the pack what must be found, and what wrong pixels cost; a minute."),
    ] = None,
    split: Split = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of calibration photos.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export to one file: uint8 NHWC pixels in, unit embedding out, metadata inside; then read it back and run it.

    Example: edgecsd export run --target tflite --precision w8a8 --calibration photos
    """
    if calibration_count is not None and calibration is None:
        raise BadInputError(f"--calibration-count {calibration_count}: goes with --calibration PHOTOS")
    count = calibration_count or 64
    chosen = _recipe(recipe, target, precision, ort_format)
    target, precision, ort_format, how = chosen.target, precision or chosen.precision, chosen.ort_format, chosen.how
    baked = baked_size(target, bake, bake_size)
    tuning = {"layers": layers, "tune_steps": tune or 0, "tune_images": tune_images, "tune_features": tune_features}
    auto = {
        "--max-loss": max_loss,
        "--max-size": max_size,
        "--max-cpu-ratio": max_cpu_ratio,
        "--gallery": gallery,
        "--held-out": held_out,
        "--layers": layers or None,
        "--tune": tune,
        "--tune-images": tune_images,
        "--tune-features": tune_features,
    }

    require_there(None if index is None else Path(index))
    photos = _pack_photos(golden, no_golden, index, calibration, split)

    def beside(exported: ExportResult, held_out: HeldOutFigures | None = None, made_of: Path = run) -> Beside:
        from edgecsd.delivery.beside import put_beside

        return put_beside(
            exported,
            photos,
            run=made_of,
            index=index,
            asked=(golden or index) is not None,
            held_out=held_out,
            reporter=ConsoleReporter(),
        )

    if precision == AUTO and baked is not None:
        raise BadInputError("--bake: not with --precision auto; export again with the precision that it chooses")
    if golden is not None or index is not None:
        from edgecsd.delivery.beside import require_beside
        from edgecsd.models.query_config import read_config

        suffix = suffix_of(target, ort_format)
        file = out or default_place(run, read_config(run).backbone, precision, suffix, baked)
        require_beside(run, file, index=index, baked=baked is not None)
    if precision == AUTO:
        limits = SearchLimits(max_loss or "1%", max_size, max_cpu_ratio)
        search_and_print(
            run,
            target,
            calibration,
            gallery,
            limits,
            300 if held_out is None else held_out,
            split,
            count,
            seed,
            out,
            licence,
            ort_format,
            overwrite,
            as_json,
            tuning,
            beside,
        )
        return
    if given := [name for name, value in auto.items() if value is not None]:
        raise BadInputError(f"{given[0]} goes with --precision auto")
    from edgecsd.exporting.export import export

    result = export(
        run,
        target,
        precision,
        out=out,
        calibration=calibration,
        split=split,
        calibration_count=count,
        seed=seed,
        licence=licence,
        ort_format=ort_format,
        baked=baked,
        how=how,
        overwrite=overwrite,
        reporter=ConsoleReporter(),
    )
    for difference in chosen.found.differences(result.metadata) if chosen.found else ():
        ConsoleReporter().message(f"warning: not the file that the search chose: {difference}")
    put = beside(result)
    parity = result.parity
    kept = f", overlap@10 among them {parity['overlap_10']:.3f}" if "overlap_10" in parity else ""
    text = (
        f"{result.target} {result.precision}: {result.size_bytes / 1e6:.2f} MB; against the torch model, on "
        f"{result.compared_on}: "
        f"cosine mean {parity['cosine_mean']:.6f}, lowest {parity['cosine_min']:.6f}, "
        f"largest difference {parity['max_difference']:.2e}{kept}{put.told}"
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
        following=f"edgecsd check {quoted(result.path)} --index gallery.index --images PHOTOS"
        f"{run_option(result.path, run)}",
    )


def _pack_photos(
    golden: Path | None, no_golden: bool, index: Path | None, calibration: Path | None, split: str | None
) -> ImageSet | None:
    """Those that the golden pack's photos are chosen from; None for no pack."""
    if no_golden:
        if golden is not None or index is not None:
            raise BadInputError(f"--no-golden: leave out {'--golden' if golden is not None else '--index'} with it")
        return None
    if golden is None and calibration is None:
        if index is not None:
            raise BadInputError("--index goes with the golden pack: give its photos, --golden PHOTOS")
        return None
    from edgecsd.photos.finding import find_images

    return find_images(golden) if golden is not None else find_images(str(calibration), split=split)


def _recipe(name: str | None, target: str | None, precision: str | None, ort_format: bool) -> Recipe:
    """The named recipe, or one of the options; both at once contradict each other."""
    if name is None:
        if target is None:
            raise BadInputError("--target is missing: onnx, tflite, coreml or coreai; or name a --recipe")
        known = Precision.FP32 if precision in (None, AUTO) else parse_precision(str(precision))
        return Recipe(target=parse_target(target), precision=known, ort_format=ort_format)
    for option, value in (("--target", target), ("--precision", precision), ("--ort-format", ort_format)):
        if value:
            raise BadInputError(f"--recipe {name} says {option} itself: leave out one of them")
    return find_recipe(name)
