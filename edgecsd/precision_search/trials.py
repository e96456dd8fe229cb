"""A trial: one recipe exported, run on held-out photos, and compared with the torch model in what it finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from edgecsd.files.json_lines import JsonLog
from edgecsd.index.stored_vectors import Floats
from edgecsd.metrics.bootstrap import bootstrap_intervals, queries_to_show
from edgecsd.precision_search.held_out import HeldOut
from edgecsd.quantisation.precisions import EightBit, Precision

# 1 knew no equalisation, no float weights and no CPU time; 2 was of one limit; 3 had Core ML files that overflow
SCHEMA_VERSION = 4
TrialKey = tuple[Precision, EightBit, str]


@dataclass(frozen=True)
class ExportTrial:
    """What one recipe costs. loss: share of the torch model's overlap@10 that is gone, with its 95 % interval.

    held_out_cosine   mean cosine to the torch model's embeddings
    deviation         standard deviation of the photos' losses
    losses            (photos,) of the single photos, whose mean is `loss`: for paired comparisons
    tuned             of which quantisation-aware distillation its weights are: the name of its folder; "" of none
    cpu_ratio         CPU time by the fp32 file's, one thread, measured by turns: median, 10th and 90th percentile of
    cpu_low, cpu_high the blocks; None where it was not asked for
    """

    precision: Precision
    how: EightBit
    size_bytes: int
    loss: float
    low: float
    high: float
    held_out_cosine: float
    file: str
    deviation: float = 0.0
    tuned: str = ""
    cpu_ratio: float | None = None
    cpu_low: float | None = None
    cpu_high: float | None = None
    losses: tuple[float, ...] = ()

    @property
    def key(self) -> TrialKey:
        """What no other trial of a search has."""
        return self.precision, self.how, self.tuned

    @property
    def name(self) -> str:
        """The precision, and what of its recipe is not the default."""
        return " ".join(filter(None, (str(self.precision), self.how.changes, self.tuned)))

    def fits(self, most: float) -> bool:
        """Whether its mean loss is within the limit."""
        return self.loss <= most

    def surely(self, most: float) -> bool:
        """Whether the whole interval is."""
        return self.high <= most

    def needed(self, most: float) -> int | None:
        """How many photos would decide whether the loss is above the limit; None where these do, or none would."""
        decided = self.surely(most) or self.low > most
        return None if decided else queries_to_show(self.loss - most, self.deviation)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the single photos'."""
        return {name: value for name, value in self.as_line().items() if name != "losses"}

    def as_line(self) -> dict[str, Any]:
        """Plain values for the log."""
        how = {**asdict(self.how), "float_convolutions": sorted(self.how.float_convolutions)}
        plain = {**asdict(self), "precision": str(self.precision), "how": how, "name": self.name}
        return {**plain, "losses": list(self.losses)}


def measure(
    held_out: HeldOut, vectors: Floats, precision: Precision, how: EightBit, size: int, file: str, tuned: str = ""
) -> ExportTrial:
    """The trial of a recipe whose file gave these embeddings (n, D) for the held-out photos."""
    values = held_out.lost(vectors)
    interval = bootstrap_intervals({"": values})[""]
    return ExportTrial(
        precision,
        how,
        size,
        interval.mean,
        interval.low,
        interval.high,
        held_out.cosine(vectors),
        file,
        float(np.std(values, ddof=1)),
        tuned,
        losses=tuple(values.tolist()),
    )


class ExportTrialLog:
    """TRIALS.jsonl: a header with what all trials share, then a trial a line.

    The file of another search, or of an edgecsd with another schema, is begun anew.
    """

    def __init__(self, file: Path, settings: dict[str, Any]) -> None:
        self.file, self._log = file, JsonLog(file, {"schema_version": SCHEMA_VERSION, "settings": settings})
        self.known: dict[TrialKey, ExportTrial] = {}
        for line in self._log.lines:
            trial = trial_from(line)
            self.known[trial.key] = trial

    def add(self, trial: ExportTrial) -> None:
        self.known[trial.key] = trial
        self._log.add(trial.as_line())


def trial_from(line: dict[str, Any]) -> ExportTrial:
    """A trial from a line of the log."""
    how = line["how"]
    recipe = EightBit(**{**how, "float_convolutions": frozenset(how["float_convolutions"])})
    named = {field.name: line[field.name] for field in fields(ExportTrial)}
    return ExportTrial(
        **{**named, "precision": Precision(line["precision"]), "how": recipe, "losses": tuple(line["losses"])}
    )
