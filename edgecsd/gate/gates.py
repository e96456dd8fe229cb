"""Gates: a figure, its interval, its threshold, and what that means for shipping; thresholds and their TOML file.

A figure that is a mean over queries fails only where its whole interval is on the wrong side of the threshold: other
queries of this kind would have said the same. Where the interval holds the threshold, the gate is undecided, and says
how many queries would decide. What is exact (numerics, the contract) has no interval and passes or fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.gate.facts import LinkName
from edgecsd.gate.threshold_shift import ThresholdShift
from edgecsd.gate.thresholds import Thresholds
from edgecsd.gate.waterfall import LinkFigures
from edgecsd.metrics.bootstrap import Interval, queries_needed
from edgecsd.quantisation.precisions import Precision

Values = NDArray[np.float64]
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


FEWEST = 20  # queries that may pass a gate: the interval of a handful that happen to be alike has no width


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
            **vars(self),
            "kind": str(self.kind),
            "verdict": str(self.verdict),
            "passed": self.passed,
            "interval": None if self.interval is None else list(self.interval),
            "link": None if self.link is None else str(self.link),
        }


def _right(figure: float, threshold: float, at_most: bool) -> bool:
    return bool(np.isfinite(figure) and (figure <= threshold if at_most else figure >= threshold))


def exact_gate(
    name: str,
    kind: Kind,
    figure: float,
    threshold: float,
    advice: str,
    *,
    at_most: bool = False,
    link: LinkName | None = None,
) -> Gate:
    """A gate on an exact figure; one that is not finite fails. advice: the cause and what to do if it fails."""
    verdict = Verdict.PASSED if _right(figure, threshold, at_most) else Verdict.FAILED
    message = advice if verdict is Verdict.FAILED else ""
    return Gate(name, kind, figure, threshold, verdict, at_most, message=message, link=link)


def sampled_gate(
    name: str,
    values: Values,
    interval: Interval,
    threshold: float,
    advice: str,
    *,
    at_most: bool = False,
    link: LinkName | None = None,
) -> Gate:
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
        name,
        Kind.RETRIEVAL,
        interval.mean,
        threshold,
        verdict,
        at_most,
        None if np.isnan(low) else (low, high),
        needed,
        message,
        link,
    )


def _undecided(
    threshold: float, needed: int | None, interval: Interval, queries: int, advice: str, at_most: bool
) -> str:
    said = f"{queries} queries do not decide whether it is {'above' if at_most else 'below'} {threshold:g}"
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
