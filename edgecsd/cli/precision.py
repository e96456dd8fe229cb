"""edgecsd precision"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, quoted, run_option, table
from edgecsd.cli.export import CalibrationCount, Licence, Seed
from edgecsd.cli.numbers import ratio_from_text, share_from_text, size_from_text
from edgecsd.cli.options import Json, Overwrite, Split, choices
from edgecsd.cli.pack import Golden, Index, NoGolden, PackOptions
from edgecsd.errors import BadInputError
from edgecsd.targets.metadata import Target

if TYPE_CHECKING:
    from edgecsd.precision_search.objectives import Objectives
    from edgecsd.precision_search.results import SearchedPrecisions, SearchResult
    from edgecsd.precision_search.trials import ExportTrial

COSTLIEST = 8  # layers that are printed
PANELS = {
    "What the file may cost": ("max_loss", "max_size", "max_cpu_ratio"),
    "Photos": ("held_out", "calibration_count", "split", "seed"),
    "Layers and quantisation-aware distillation": ("layers", "tune", "tune_images", "tune_features"),
    "Golden pack": ("golden", "no_golden", "index"),
}


def command(
    run: Annotated[Path, typer.Argument(help="The run folder of a distilled query model.")],
    target: Annotated[
        str, typer.Option(help="litert is tflite's other name; coreai is experimental.", **choices(Target))
    ],
    calibration: Annotated[
        Path, typer.Option(help="Unlabelled photos: some give the ranges of w8a8, others are searched with.")
    ],
    gallery: Annotated[Path, typer.Option(help="Feature store with their gallery features, which is searched in.")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write (default: RUN/exports/BACKBONE-auto.SUFFIX).")
    ] = None,
    max_loss: Annotated[str, typer.Option(help="The share of overlap@10 that may be lost, such as 1%.")] = "1%",
    max_size: Annotated[
        str | None, typer.Option(help="The largest file, such as 6MB, or 30% of the fp32 file (no limit).")
    ] = None,
    max_cpu_ratio: Annotated[
        str | None,
        typer.Option(help="CPU time by the fp32 file's, one thread, by turns, such as 0.6 or 60% (no limit)."),
    ] = None,
    held_out: Annotated[
        int, typer.Option(help="Photos to search with, 16 or more, beside those that calibrate.")
    ] = 300,
    calibration_count: CalibrationCount = None,
    split: Split = None,
    seed: Seed = 0,
    layers: Annotated[
        bool, typer.Option("--layers", help="Measure what each layer costs in 8 bit, whatever fits; minutes.")
    ] = False,
    tune: Annotated[
        int | None, typer.Option(min=1, help="Steps of quantisation-aware distillation behind the search, such as 300.")
    ] = None,
    tune_images: Annotated[
        Path | None, typer.Option(help="--tune: photos to train on (those of --calibration that are not held out).")
    ] = None,
    tune_features: Annotated[
        Path | None, typer.Option(help="--tune: the store with their gallery features (that of --gallery).")
    ] = None,
    licence: Licence = None,
    golden: Golden = None,
    no_golden: NoGolden = False,
    index: Index = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Find the smallest file that keeps retrieval, and export it: from w8a8 up to fp32, until one fits.

    Retrieval is measured on held-out photos, against the torch model and the gallery model's own results. A search
    that was interrupted goes on. Exit 1: none fits.

    Example: edgecsd precision run --target tflite --calibration photos --gallery gallery.store --max-loss 1%
    """
    if tune is None and (tune_images or tune_features):
        raise BadInputError("`tune_images` and `tune_features` go with `tune` STEPS")
    objectives = _objectives(max_loss, max_size, max_cpu_ratio)
    pack = PackOptions.of(golden, no_golden, index, calibration, split)
    if pack.asked:
        from edgecsd.exporting.places import AUTO, default_place
        from edgecsd.models.query_config import read_config
        from edgecsd.targets.artifact import parse_target

        suffix = parse_target(target).suffix
        pack.require_possible(run, out or default_place(run, read_config(run).backbone, AUTO, suffix, None))
    from edgecsd.photos.finding import find_images
    from edgecsd.precision_search.results import NothingFitsError
    from edgecsd.precision_search.search import search_precision

    try:
        result = search_precision(
            run,
            target,
            find_images(calibration, split=split),
            gallery,
            objectives=objectives,
            held_out=held_out,
            layers=layers,
            tune_steps=tune or 0,
            tune_images=None if tune_images is None else find_images(tune_images),
            tune_features=tune_features,
            calibration_count=calibration_count or 64,
            seed=seed,
            out=out,
            licence=licence,
            overwrite=overwrite,
            reporter=console_reporter(),
        )
    except NothingFitsError as error:
        figures = _draw(error.searched, None)
        document = {**error.searched.as_dict(), "chosen": None, "figures": [str(path) for path in figures]}
        finish(as_json, document, text=_table(error.searched))
        raise
    put = pack.put(result.export, result.run, result.on_card)
    figures, parity = _draw(result, result.chosen), result.export.parity
    finish(
        as_json,
        {
            **result.as_dict(),
            "artifact": str(result.export.path),
            "figures": [str(path) for path in figures],
            **put.as_dict(),
        },
        text=f"{_table(result)}\n{_chosen(result)}"
        f"\nagainst the torch model, on {result.export.compared_on}: cosine mean {parity['cosine_mean']:.6f}, lowest "
        f"{parity['cosine_min']:.6f}{put.in_words}\nthe same file again: {result.again}",
        wrote=result.export.path,
        following=f"edgecsd check {quoted(result.export.path)} --index gallery.index --images PHOTOS"
        f"{run_option(result.export.path, result.run)}",
    )


def _objectives(max_loss: str, max_size: str | None, max_cpu_ratio: str | None) -> Objectives:
    """The limits in numbers."""
    loss = share_from_text(max_loss, "--max-loss")
    size, share = size_from_text(max_size, "--max-size") if max_size else (None, None)
    cpu = ratio_from_text(max_cpu_ratio, "--max-cpu-ratio") if max_cpu_ratio else None
    from edgecsd.precision_search.objectives import Objectives

    return Objectives(loss, size, share, cpu)


def _chosen(result: SearchResult) -> str:
    """What was chosen, and whether the photos were enough to be sure."""
    chosen, most = result.chosen, result.objectives.max_loss
    if result.sure:
        sure = "the whole interval is within it"
    elif needed := chosen.needed(most):
        sure = f"its interval reaches beyond: about {needed} photos would decide"
    else:
        sure = "its interval reaches beyond: more photos would decide"
    return f"chosen: {chosen.name}, loses {chosen.loss:z.2%} of it; limit {most:.2%}: {sure}"


def _table(searched: SearchedPrecisions) -> str:
    """Every trial, and what it lacks."""
    rows = [
        (
            trial.name,
            f"{trial.size_bytes / 1e6:.2f}",
            _cpu(trial),
            f"{trial.loss:z.2%}",
            f"{trial.low:z.2%} to {trial.high:z.2%}",
            f"{trial.held_out_cosine:.4f}",
            "; ".join(searched.objectives.lacks(trial)) or "nothing",
        )
        for trial in searched.trials
    ]
    return (
        table(("tried", "MB", "CPU", "lost", "95 %", "cosine", "lacks"), rows)
        + f"\n{searched.held_out} held-out photos; the torch model's overlap@10 is {searched.torch_overlap:.3f}"
        + _layers(searched)
    )


def _layers(searched: SearchedPrecisions) -> str:
    """The costliest layers, where they were measured."""
    if not searched.layers:
        return ""
    rows = [
        (layer.name, str(layer.place), f"{layer.weights:,}", f"{layer.loss:z.2%}", f"{layer.cosine:.4f}")
        for layer in searched.layers[:COSTLIEST]
    ]
    header = ("alone in 8 bit, the costliest first", "place", "weights", "lost", "cosine")
    more = len(searched.layers) - len(rows)
    return f"\n\n{table(header, rows)}" + (f"\n{more} more in {searched.folder / 'layers.json'}\n" if more else "\n")


def _cpu(trial: ExportTrial) -> str:
    return "-" if trial.cpu_ratio is None else f"{trial.cpu_ratio:.2f} ({trial.cpu_low:.2f} to {trial.cpu_high:.2f})"


def _draw(searched: SearchedPrecisions, chosen: ExportTrial | None) -> list[Path]:
    """The plots of a search, where the libraries for them are installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    from edgecsd.report.drawing.plots import save
    from edgecsd.report.tuning_figures import Point, layers_figure, pareto_figure

    points = [
        Point(t.name, str(t.precision), t.size_bytes / 1e6, t.cpu_ratio, t.loss, t.low, t.high) for t in searched.trials
    ]
    limits = searched.objectives
    figure = pareto_figure(
        points,
        chosen.name if chosen else None,
        limits.max_loss,
        limits.max_bytes and limits.max_bytes / 1e6,
        limits.max_cpu_ratio,
    )
    paths = [*save(figure, searched.folder / "size-and-loss")]
    if searched.layers:
        floats = chosen.how.float_convolutions if chosen else frozenset()
        left = frozenset(layer.name for layer in searched.layers if layer.place in floats)
        costs = [(layer.name, layer.loss) for layer in searched.layers]
        paths += save(layers_figure(costs, left), searched.folder / "layers")
    return paths
