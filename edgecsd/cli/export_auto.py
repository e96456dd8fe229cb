"""edgecsd export --precision auto"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecsd.cli.console import ConsoleReporter, finish, quoted, run_option, table
from edgecsd.cli.numbers import ratio_from_text, share_from_text, size_from_text
from edgecsd.errors import BadInputError

if TYPE_CHECKING:
    from edgecsd.delivery.beside import Beside
    from edgecsd.exporting.export import ExportResult
    from edgecsd.precision_search.objectives import Objectives
    from edgecsd.precision_search.results import HeldOutFigures, SearchedPrecisions
    from edgecsd.precision_search.trials import ExportTrial


COSTLIEST = 8  # layers that are printed


@dataclass(frozen=True)
class SearchLimits:
    """What the options say."""

    max_loss: str
    max_size: str | None
    max_cpu_ratio: str | None

    def objectives(self) -> Objectives:
        """The same in numbers."""
        loss = share_from_text(self.max_loss, "--max-loss")
        size, share = size_from_text(self.max_size, "--max-size") if self.max_size else (None, None)
        cpu = ratio_from_text(self.max_cpu_ratio, "--max-cpu-ratio") if self.max_cpu_ratio else None
        from edgecsd.precision_search.objectives import Objectives

        return Objectives(loss, size, share, cpu)


def search_and_print(
    run: Path,
    target: str,
    calibration: Path | None,
    gallery: Path | None,
    limits: SearchLimits,
    held_out: int,
    split: str | None,
    calibration_count: int,
    seed: int,
    out: Path | None,
    licence: str | None,
    ort_format: bool,
    overwrite: bool,
    as_json: bool,
    tuning: dict[str, Any],
    beside: Callable[[ExportResult, HeldOutFigures, Path], Beside],
) -> None:
    """Tell every trial, and what was chosen and why, or what each lacks."""
    if calibration is None or gallery is None:
        raise BadInputError(
            "--precision auto measures retrieval: give --calibration PHOTOS and --gallery STORE with their features"
        )
    if ort_format:
        raise BadInputError("--ort-format: not with --precision auto; export again with the precision that it chooses")
    if tuning["tune_steps"] == 0 and (tuning["tune_images"] or tuning["tune_features"]):
        raise BadInputError("--tune-images and --tune-features go with --tune STEPS")
    objectives = limits.objectives()
    from edgecsd.precision_search.results import NothingFitsError
    from edgecsd.precision_search.search import search_precision

    try:
        result = search_precision(
            run,
            target,
            calibration,
            gallery,
            objectives=objectives,
            held_out=held_out,
            split=split,
            calibration_count=calibration_count,
            seed=seed,
            out=out,
            licence=licence,
            overwrite=overwrite,
            reporter=ConsoleReporter(),
            **tuning,
        )
    except NothingFitsError as error:
        figures = _draw(error.searched, None)
        document = {**error.searched.as_dict(), "chosen": None, "figures": [str(path) for path in figures]}
        finish(as_json, document, text=_table(error.searched))
        raise
    put = beside(result.export, result.on_card, result.run)
    parity = result.export.parity
    figures, chosen, most = _draw(result, result.chosen), result.chosen, result.objectives.max_loss
    sure = (
        "the whole interval is within it"
        if result.sure
        else f"its interval reaches beyond: about {needed} photos would decide"
        if (needed := chosen.needed(most))
        else "its interval reaches beyond: more photos would decide"
    )
    finish(
        as_json,
        {
            **result.as_dict(),
            "artifact": str(result.export.path),
            "figures": [str(path) for path in figures],
            **put.as_dict(),
        },
        text=f"{_table(result)}\nchosen: {chosen.name}, loses {chosen.loss:z.2%} of it; limit {most:.2%}: {sure}"
        f"\nagainst the torch model, on {result.export.compared_on}: cosine mean {parity['cosine_mean']:.6f}, lowest "
        f"{parity['cosine_min']:.6f}"
        f"{put.told}\nthe same file again: {result.again}",
        wrote=result.export.path,
        following=f"edgecsd check {quoted(result.export.path)} --index gallery.index --images PHOTOS"
        f"{run_option(result.export.path, result.run)}",
    )


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
