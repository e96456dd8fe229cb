"""What an export has to fulfil: how much retrieval it may lose, how large it may be, how much CPU time it may take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecsd.errors import BadInputError
from edgecsd.metrics.bootstrap import paired_difference
from edgecsd.precision_search.trials import ExportTrial
from edgecsd.quantisation.precisions import Precision

if TYPE_CHECKING:
    from edgecsd.models.query import QueryModel


BYTES = {Precision.W8A8: 1, Precision.W8A32: 1, Precision.FP16: 2, Precision.FP32: 4}  # of a weight
ALIKE = 0.98  # of a w8a8 file's size: recipes that differ in ranges and biases alone make no smaller one


def weight_count(model: QueryModel) -> int:
    """Weights of convolutions and linear layers, which every file of the model holds."""
    from torch import nn

    return sum(each.weight.numel() for each in model.modules() if isinstance(each, nn.Conv2d | nn.Linear))


def least_bytes(precision: Precision, weights: int, tried: Iterable[ExportTrial]) -> int:
    """What a file of this precision takes at least, given how many weights there are and what was tried."""
    sizes = {trial.precision: trial.size_bytes for trial in tried}
    alike = {Precision.W8A8: ALIKE * sizes.get(Precision.W8A8, 0), Precision.FP32: sizes.get(Precision.FP16, 0)}
    return max(BYTES[precision] * weights, int(alike.get(precision, 0)))


@dataclass(frozen=True)
class Objectives:
    """Limits, all of which the chosen export keeps; None: none.

    max_loss         share of the torch model's overlap@10 that may be gone, 0 to 1
    max_bytes        size of the file
    max_size_share   the same, as a share of the fp32 file's
    max_cpu_ratio    CPU time by the fp32 file's, measured by turns on one thread
    """

    max_loss: float = 0.01
    max_bytes: int | None = None
    max_size_share: float | None = None
    max_cpu_ratio: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_loss < 1:
            raise BadInputError(f"`max_loss` {self.max_loss:g}: from 0 to 1, or in percent: 1% is 0.01")
        if self.max_bytes is not None and self.max_size_share is not None:
            raise BadInputError("`max_size`: either a size or a share of the fp32 file's")
        for option, limit in (
            ("`max_size`", self.max_bytes),
            ("`max_size`", self.max_size_share),
            ("`max_cpu_ratio`", self.max_cpu_ratio),
        ):
            if limit is not None and not limit > 0:
                raise BadInputError(f"{option} {limit:g}: above 0")

    @property
    def need_fp32(self) -> bool:
        """Whether a limit is measured by the fp32 file."""
        return self.max_size_share is not None or self.max_cpu_ratio is not None

    def against(self, fp32_bytes: int) -> Objectives:
        """These limits with the size in bytes, where it was a share of the fp32 file."""
        if self.max_size_share is None:
            return self
        return Objectives(self.max_loss, int(self.max_size_share * fp32_bytes), None, self.max_cpu_ratio)

    def too_large(self, trial: ExportTrial) -> bool:
        """Whether the trial's file is."""
        return self.max_bytes is not None and trial.size_bytes > self.max_bytes

    def too_slow(self, trial: ExportTrial) -> bool:
        """Whether the trial's file takes more than its share of CPU time."""
        return self.max_cpu_ratio is not None and (trial.cpu_ratio is None or trial.cpu_ratio > self.max_cpu_ratio)

    def gained(self, before: ExportTrial, after: ExportTrial) -> tuple[bool, str]:
        """Whether tuning brought something, and the difference in words.

        It did if the limits were missed before and are kept after, or if the same photos show that less is lost (a
        paired test) and nothing that was kept is missed.
        """
        change = paired_difference(np.array(after.losses), np.array(before.losses))
        kept, was_kept = not self.lacks(after), not self.lacks(before)
        interval = f"[{change.low:+.2%}, {change.high:+.2%}]"
        words = f"the loss changes by {change.mean:+.2%} {interval} over {change.queries} photos"
        return (kept and not was_kept) or (change.shown and change.mean < 0 and (kept or not was_kept)), words

    def lacks(self, trial: ExportTrial) -> tuple[str, ...]:
        """What the trial lacks, each in a few words; nothing for one that fits."""
        said = []
        if not trial.fits(self.max_loss):
            said.append(f"loses {trial.loss:z.2%}, limit {self.max_loss:.2%}")
        if self.too_large(trial):
            said.append(f"{trial.size_bytes / 1e6:.2f} MB, limit {(self.max_bytes or 0) / 1e6:.2f}")
        if self.too_slow(trial):
            said.append(f"CPU {trial.cpu_ratio or float('nan'):.2f} of fp32's, limit {self.max_cpu_ratio:.2f}")
        return tuple(said)

    @property
    def words(self) -> str:
        """All limits."""
        said = [f"loses at most {self.max_loss:.2%} of overlap@10"]
        if self.max_bytes is not None:
            said.append(f"is at most {self.max_bytes / 1e6:.2f} MB")
        if self.max_size_share is not None:
            said.append(f"is at most {self.max_size_share:.0%} of the fp32 file")
        if self.max_cpu_ratio is not None:
            said.append(f"takes at most {self.max_cpu_ratio:g} of the fp32 file's CPU time")
        return " and ".join(said)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
