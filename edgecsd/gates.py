"""Gates: a figure, its interval, its threshold, and what that means for shipping; thresholds and their TOML file.

A figure that is a mean over queries fails only where its whole interval is on the wrong side of the threshold: other
queries of this kind would have said the same. Where the interval holds the threshold, the gate is undecided, and says
how many queries would decide. What is exact (numerics, the contract) has no interval and passes or fails.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecsd.attribution import LinkFigures
from edgecsd.errors import BadInputError, validation_text
from edgecsd.evidence_facts import LinkName
from edgecsd.metrics.bootstrap import Interval, queries_needed
from edgecsd.quantisation.precisions import Precision
from edgecsd.threshold_shift import ThresholdShift

ALL = "all"  # the section of a thresholds file that is for every precision
Values = NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
# The cause and what to do, by the link that loses.
ADVICE = {
    LinkName.QUERY: "the query model itself finds too little: train it longer or on photos more like the gallery's",
    LinkName.FP32: "the conversion changed the network, before any precision: export again, and try another target",
    LinkName.FILE: "the precision costs too much: calibrate on photos like the queries', or take a higher precision",
    LinkName.DEVICE: "the device computes other embeddings than this machine: check its delegate, runtime and input",
    LinkName.INDEX: "the index loses it: raise nprobe or ef_search, take more bytes a vector, or build the index again "
    "from its store",
}
NOT_THE_NETWORK = (
    "the file does not compute what torch computes: it holds other weights, a broken layer or another state than the "
    "run's query model, or fails in this precision: export it again from this run"
)
EIGHT_BIT_COSTS = (
    "the file does not compute what torch computes: 8 bit costs too much here, if these are the run's weights: "
    "calibrate on 64 photos like the queries', one scale a channel and the tail in float, as edgecsd export does, "
    "or take a higher precision"
)


def not_torch(precision: str) -> str:
    """What to do about a file of this precision whose embeddings are not torch's."""
    return EIGHT_BIT_COSTS if precision in (Precision.W8A32, Precision.W8A8) else NOT_THE_NETWORK


class Kind(StrEnum):
    """What a gate looks at."""

    HANDSHAKE = "handshake"  # do the parts belong together by what they say of themselves
    PROBE = "probe"  # and by what is in them
    NUMERICS = "numerics"  # does the file compute what torch computes
    RETRIEVAL = "retrieval"  # is found what should be found


class Verdict(StrEnum):
    """Of a gate, and of all of them."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


class Thresholds(BaseModel):
    """What an artifact must reach. A `loss` is relative: 0.05 = a twentieth of what the link before had is gone.

    min_cosine_mean, min_cosine   of the exported embeddings to torch's
    max_difference                of one element to torch's; only asked of fp32
    max_norm_error                largest |length - 1|
    max_overlap_loss, max_rbo_loss, max_recall_loss, max_map_loss   of the file against torch, both searched exactly:
                                  of overlap@k, of rank-biased overlap, of recall@k of the gallery model's first hit
    max_score_shift               mean change of the best cosine against torch, in either direction
    min_device_cosine             mean cosine of a device's embeddings to this machine's of the same file
    min_calibration               photos that the ranges of 8-bit activations come from
    max_device_loss               overlap lost by a device's embeddings against the host's of the same file
    max_index_loss                overlap lost by the index against exact search
    min_overlap                   overlap@k of what the app gets with what the gallery model finds
    max_leaked                    share of queries that are byte-identical to a gallery image of another id
    max_false_accepts, max_false_rejects   shares at the product's threshold, where one is given
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)  # true is no number

    min_cosine_mean: Cosine
    min_cosine: Cosine
    max_overlap_loss: Share
    max_rbo_loss: Share
    max_recall_loss: Share
    max_map_loss: Share
    max_score_shift: Annotated[float, Field(ge=0, le=2)]
    max_difference: Annotated[float, Field(gt=0)] | None = None
    max_norm_error: Annotated[float, Field(gt=0)] = 1e-2
    min_device_cosine: Cosine = 0.995  # a decoder that rounds one value in ten otherwise: 0.998 to 0.9999 a photo
    min_calibration: Annotated[int, Field(ge=0)] = 0
    max_device_loss: Share = 0.02
    max_index_loss: Share = 0.1
    min_overlap: Share = 0.3
    max_leaked: Share = 0.05
    max_false_accepts: Share | None = None
    max_false_rejects: Share | None = None


FEWEST = 20  # queries that may pass a gate: the interval of a handful that happen to be alike has no width
# From benchmarks/results/defects.md, with room for other processors: what is sound passes, every seeded defect fails. 8
# bit gave cosines of 0.98 to 0.997 and lost 0 to 2 % of the overlap; calibrated on one photo 0.93, on noise 0.72.
DEFAULT_THRESHOLDS = {
    Precision.FP32: Thresholds(
        min_cosine_mean=0.99999, min_cosine=0.9999, max_overlap_loss=0.005, max_rbo_loss=0.005, max_recall_loss=0.02,
        max_map_loss=0.005, max_score_shift=1e-4, max_difference=1e-3,
    ),
    Precision.FP16: Thresholds(
        min_cosine_mean=0.9999, min_cosine=0.999, max_overlap_loss=0.01, max_rbo_loss=0.01, max_recall_loss=0.02,
        max_map_loss=0.01, max_score_shift=1e-3,
    ),
    Precision.W8A32: Thresholds(
        min_cosine_mean=0.99, min_cosine=0.95, max_overlap_loss=0.05, max_rbo_loss=0.06, max_recall_loss=0.06,
        max_map_loss=0.03, max_score_shift=0.02,
    ),
    Precision.W8A8: Thresholds(
        min_cosine_mean=0.96, min_cosine=0.85, max_overlap_loss=0.08, max_rbo_loss=0.1, max_recall_loss=0.1,
        max_map_loss=0.05, max_score_shift=0.03, min_device_cosine=0.98, min_calibration=16,
    ),
}  # fmt: skip


def read_thresholds(file: Path) -> dict[str, dict[str, Any]]:
    """Section -> changes, of a TOML file with the sections [all] and [<precision>]; another section is refused."""
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInputError(f"--thresholds {file}: no such file") from None
    except (OSError, ValueError) as error:
        raise BadInputError(f"--thresholds {file}: not readable as TOML: {error}") from None
    known = [ALL, *Precision]
    for section, values in document.items():
        if section not in known or not isinstance(values, dict):
            raise BadInputError(f"--thresholds {file}: {section!r} is no section of it; there are: {', '.join(known)}")
    for precision in Precision:  # a mistake in another precision's section must not wait for its first file
        choose_thresholds(precision, document)
    return document


def choose_thresholds(
    precision: str, file: Mapping[str, Mapping[str, Any]] | None = None, changes: Mapping[str, float] | None = None
) -> Thresholds:
    """The precision's defaults, changed by the file's [all], then its [<precision>], then `changes`."""
    sections = file or {}
    merged = {**sections.get(ALL, {}), **sections.get(precision, {}), **(changes or {})}
    try:
        return Thresholds.model_validate({**DEFAULT_THRESHOLDS[Precision(precision)].model_dump(), **merged})
    except ValidationError as error:
        raise BadInputError(f"thresholds: {validation_text(error)}") from None


@dataclass(frozen=True)
class Gate:
    """One threshold and the measured figure.

    at_most    the figure must not be above the threshold; else not below it
    interval   (low, high) of the figure, or None where it is exact
    message    the cause and what to do, where it did not pass
    link       the link of the waterfall that it is about, if any
    """

    name: str
    kind: Kind
    figure: float
    threshold: float
    verdict: Verdict
    at_most: bool = False
    interval: tuple[float, float] | None = None
    queries_needed: int | None = None
    message: str = ""
    link: LinkName | None = None

    @property
    def passed(self) -> bool:
        """It did not fail; an undecided gate fails only where the caller is strict."""
        return self.verdict is not Verdict.FAILED

    def measured(self) -> str:
        """The figure with its interval, for people."""
        figure = f"{self.figure:.6g}"
        return figure if self.interval is None else f"{figure} [{self.interval[0]:.4g}, {self.interval[1]:.4g}]"

    def needed(self) -> str:
        """The threshold, for people; "-" for a probe, which says itself what it expects."""
        return "-" if np.isnan(self.threshold) else f"{'<=' if self.at_most else '>='} {self.threshold:g}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **vars(self), "kind": str(self.kind), "verdict": str(self.verdict), "passed": self.passed,
            "interval": None if self.interval is None else list(self.interval),
            "link": None if self.link is None else str(self.link),
        }  # fmt: skip


def _right(figure: float, threshold: float, at_most: bool) -> bool:
    return bool(np.isfinite(figure) and (figure <= threshold if at_most else figure >= threshold))


def exact_gate(
    name: str, kind: Kind, figure: float, threshold: float, advice: str, *, at_most: bool = False,
    link: LinkName | None = None,
) -> Gate:  # fmt: skip
    """A gate on an exact figure; one that is not finite fails. advice: the cause and what to do if it fails."""
    verdict = Verdict.PASSED if _right(figure, threshold, at_most) else Verdict.FAILED
    message = advice if verdict is Verdict.FAILED else ""
    return Gate(name, kind, figure, threshold, verdict, at_most, message=message, link=link)


def sampled_gate(
    name: str, values: Values, interval: Interval, threshold: float, advice: str, *, at_most: bool = False,
    link: LinkName | None = None,
) -> Gate:  # fmt: skip
    """A gate on the mean of (Q,) values, by its interval; fewer than FEWEST values pass none."""
    low, high = interval.low, interval.high
    ends = (interval.mean, interval.mean) if np.isnan(low) else (low, high)
    right = [_right(end, threshold, at_most) for end in ends]
    needed = None
    few = len(values) < FEWEST
    if np.isnan(low) or len(set(right)) == 2 or (few and right[0]):
        verdict = Verdict.UNDECIDED
        needed = queries_needed(values, np.full(len(values), threshold))
        needed = max(needed or 0, FEWEST) if few else needed
        message = _undecided(threshold, needed, interval, len(values), advice, at_most)
    else:
        verdict = Verdict.PASSED if right[0] else Verdict.FAILED
        message = "" if right[0] else advice
    return Gate(
        name, Kind.RETRIEVAL, interval.mean, threshold, verdict, at_most,
        None if np.isnan(low) else (low, high), needed, message, link,
    )  # fmt: skip


def _undecided(
    threshold: float, needed: int | None, interval: Interval, queries: int, advice: str, at_most: bool
) -> str:
    said = f"{queries} queries cannot tell whether it is {'above' if at_most else 'below'} {threshold:g}"
    if needed is None:
        decide = "more would have to"
    elif needed <= queries:
        decide = f"a few more than these {queries} would"
    else:
        decide = f"about {needed} would"
    wrong = not _right(interval.mean, threshold, at_most)
    return f"{said}; {decide}" + (f". If it is: {advice}" if wrong else "")


@dataclass(frozen=True)
class Judgement:
    """All gates, the waterfall and the other figures of one evidence. strict: undecided is not enough to ship."""

    gates: tuple[Gate, ...]
    links: tuple[LinkFigures, ...]
    figures: dict[str, float]
    thresholds: Thresholds
    shift: ThresholdShift | None = None
    strict: bool = False

    @property
    def verdict(self) -> Verdict:
        """Failed if any gate is, else undecided if any is, else passed."""
        found = {gate.verdict for gate in self.gates}
        return next((v for v in (Verdict.FAILED, Verdict.UNDECIDED) if v in found), Verdict.PASSED)

    @property
    def passed(self) -> bool:
        """Whether the file may ship."""
        return self.verdict is Verdict.PASSED or (self.verdict is Verdict.UNDECIDED and not self.strict)
