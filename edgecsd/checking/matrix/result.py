"""What the matrix found: a pairing for each artifact and index, updates between artifacts, the roll-out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.metrics.bootstrap import Interval, PairedDifference

SCHEMA_VERSION = 1
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Pairing:
    """One artifact and one index. reason: why they must not talk; else figures, each a mean with its interval.

    overlap            overlap@k with the gallery model's own results through the same index
    right              queries whose first result is right: of the query's label, or, without labels, the gallery
                       model's own first
    average_precision  mAP over the first results, where labels exist
    values             figure -> (Q,) values, one a query
    """

    artifact: str
    index: str
    compatible: bool
    reason: str = ""
    overlap: Interval | None = None
    right: Interval | None = None
    average_precision: Interval | None = None
    values: dict[str, Values] = field(default_factory=dict, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without those of single queries."""
        figures = {"overlap": self.overlap, "right": self.right, "average_precision": self.average_precision}
        plain = {name: figure and asdict(figure) for name, figure in figures.items()}
        return {
            "artifact": self.artifact,
            "index": self.index,
            "compatible": self.compatible,
            "reason": self.reason,
            **plain,
        }


@dataclass(frozen=True)
class Update:
    """From an older artifact to a newer one, on one index that both may be searched in.

    negative_flips   share of queries that were right before and are wrong now; positive_flips: the reverse
    flipped          the first ids of the negative flips, and flips, how many there are
    figure           what the criterion compares: average_precision where labels exist, else overlap
    difference       new - old over the same queries
    needed           queries that would show a difference of this size (None: no number would)
    """

    index: str
    old: str
    new: str
    negative_flips: Interval
    positive_flips: Interval
    flips: int
    flipped: tuple[str, ...]
    figure: str
    difference: PairedDifference
    needed: int | None

    @property
    def shown(self) -> bool:
        """Whether the difference is real, as the paired bootstrap has it."""
        return self.difference.shown

    @property
    def criterion(self) -> str:
        """met, violated or not shown: new queries in this gallery against old queries in this gallery."""
        if not self.shown:
            return "not shown"
        return "met" if self.difference.mean > 0 else "violated"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "criterion": self.criterion}


@dataclass(frozen=True)
class MatrixResult:
    """Artifacts and indexes in the order given (older first), everything between them, and what a roll-out may do."""

    artifacts: tuple[str, ...]
    indexes: tuple[str, ...]
    pairings: tuple[Pairing, ...]
    updates: tuple[Update, ...]
    rollout: tuple[str, ...]
    queries: int
    left_out: int
    k: int
    relevance: str

    @property
    def unsearchable(self) -> tuple[str, ...]:
        """Indexes that no artifact may be searched in."""
        return tuple(index for index in self.indexes if not self.talks(index=index))

    @property
    def passed(self) -> bool:
        return not self.unsearchable

    def talks(self, *, index: str | None = None, artifact: str | None = None) -> list[Pairing]:
        """The compatible pairings of an index or of an artifact."""
        return [
            pairing
            for pairing in self.pairings
            if pairing.compatible and index in (None, pairing.index) and artifact in (None, pairing.artifact)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "passed": self.passed,
            "artifacts": list(self.artifacts),
            "indexes": list(self.indexes),
            "pairings": [pairing.as_dict() for pairing in self.pairings],
            "updates": [update.as_dict() for update in self.updates],
            "unsearchable": list(self.unsearchable),
            "rollout": list(self.rollout),
            "queries": self.queries,
            "left_out": self.left_out,
            "k": self.k,
            "relevance": self.relevance,
        }
