"""The result of a search: all that was tried, and what was chosen or that nothing was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecsd.errors import GateFailedError
from edgecsd.exporting.export import ExportResult
from edgecsd.exporting.recipes import Recipe, SearchedFrom
from edgecsd.metrics.bootstrap import Interval
from edgecsd.precision_search.objectives import Objectives
from edgecsd.precision_search.sensitivity import LayerCost
from edgecsd.precision_search.trials import ExportTrial
from edgecsd.targets.metadata import Target

RECIPE = "recipe.toml"


@dataclass(frozen=True)
class SearchedPrecisions:
    """All that was tried, in the order of trying. layers: empty where they were not needed."""

    trials: tuple[ExportTrial, ...]
    layers: tuple[LayerCost, ...]
    objectives: Objectives
    held_out: int
    torch_overlap: float
    folder: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **self.objectives.as_dict(),
            "held_out": self.held_out,
            "torch_overlap": self.torch_overlap,
            "trials": [{**trial.as_dict(), "lacks": list(self.objectives.lacks(trial))} for trial in self.trials],
            "layers": [layer.as_dict() for layer in self.layers],
            "folder": str(self.folder),
        }


@dataclass(frozen=True)
class SearchResult(SearchedPrecisions):
    """What was chosen too."""

    chosen: ExportTrial
    export: ExportResult
    recipe: Recipe

    @property
    def on_card(self) -> HeldOutFigures:
        """What was measured of the chosen file, for its model card."""
        trial = self.chosen
        return HeldOutFigures(self.torch_overlap, Interval(trial.loss, trial.low, trial.high), self.held_out)

    @property
    def run(self) -> Path:
        """The run folder whose weights were exported: the tuned one's, where tuning brought something."""
        assert self.recipe.found is not None
        return Path(self.recipe.found.run)

    @property
    def again(self) -> str:
        """The command that makes the same file."""
        assert self.recipe.found is not None
        return self.recipe.found.command(self.folder / RECIPE)

    @property
    def sure(self) -> bool:
        """Whether the whole interval of the chosen one's loss is within the limit."""
        return self.chosen.surely(self.objectives.max_loss)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **super().as_dict(),
            "chosen": self.chosen.as_dict(),
            "again": self.again,
            "sure": self.sure,
            "needed": self.chosen.needed(self.objectives.max_loss),
        }


class NothingFitsError(GateFailedError):
    """No recipe keeps every limit; `searched` has what each lacks."""

    def __init__(self, message: str, searched: SearchedPrecisions) -> None:
        super().__init__(message)
        self.searched = searched


def nothing_fits(target: Target, objectives: Objectives, tried: list[ExportTrial]) -> str:
    """The message of a NothingFitsError: the limits, and the trial that comes nearest."""
    if not tried:
        return f"no file for target {target} could be made: see above"
    nearest = min(tried, key=lambda trial: (len(objectives.lacks(trial)), trial.loss))
    return (
        f"nothing that was tried for target {target} {objectives.words}; "
        f"the nearest is {nearest.name}: {', '.join(objectives.lacks(nearest))}"
    )


def recipe_of(target: Target, chosen: ExportTrial, found: SearchedFrom) -> Recipe:
    """The trial's precision, how its 8 bit is made, and of what."""
    how = chosen.how
    return Recipe(
        target=target,
        precision=chosen.precision,
        percentile=how.percentile,
        bias_correction=how.bias_correction,
        float_convolutions=tuple(sorted(how.float_convolutions)),
        equalisation=how.equalisation,
        float_weights=how.float_weights,
        found=found,
    )


@dataclass(frozen=True)
class HeldOutFigures:
    """What a search of precisions measured. lost: share of the torch model's overlap@10; photos: how many it used."""

    torch_overlap: float
    lost: Interval
    photos: int
