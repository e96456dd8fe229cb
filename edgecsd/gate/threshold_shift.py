"""What an artifact does to a product's threshold on the cosine: wrong accepts and rejects, and the threshold that
keeps the share of accepted queries.

A product that shows a hit only where its cosine is t or more was tuned with the gallery model's own embeddings. The
cosines of another query model are lower, so the same t rejects more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.metrics.bootstrap import LEVEL, SEED, Interval, bootstrap_intervals, with_interval

RESAMPLES = 2_000  # each sorts all queries; the ends of the interval are steady to the third digit with these
Values = NDArray[np.float64]


@dataclass(frozen=True)
class ThresholdShift:
    """Decisions at `threshold` on a query's best cosine; shares of all queries with their intervals.

    accepted, accepted_now   by the gallery model's embedding, and by this file's
    false_accepts            accepted now, rejected by the gallery model
    false_rejects            rejected now, accepted by the gallery model
    recalibrated             the threshold at which this file accepts as many; None where all or none are accepted
    """

    threshold: float
    accepted: Interval
    accepted_now: Interval
    false_accepts: Interval
    false_rejects: Interval
    recalibrated: Interval | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def words(self) -> str:
        """One sentence for people."""
        said = (
            f"at cosine {self.threshold:g} the gallery model accepts {self.accepted.mean:.1%} of the queries, this "
            f"file {self.accepted_now.mean:.1%}: {self.false_rejects.mean:.1%} wrongly rejected, "
            f"{self.false_accepts.mean:.1%} wrongly accepted"
        )
        if self.recalibrated is None:
            return f"{said}; no threshold of this file can be read off, for the gallery model accepts all or none"
        at = self.recalibrated
        return f"{said}; {with_interval(at, '.4f')} keeps the share of accepted queries"


def threshold_shift(gallery: Values, file: Values, threshold: float) -> ThresholdShift:
    """Best cosines of the same queries (Q,), by the gallery model and by the file; -inf: nothing was found.

    Raises BadInputError for a threshold that is no cosine.
    """
    if not -1 <= threshold <= 1:
        raise BadInputError(f"`threshold` {threshold}: a cosine lies between -1 and 1")
    before, now = gallery >= threshold, file >= threshold
    columns = {"accepted": before, "accepted_now": now, "false_accepts": now & ~before, "false_rejects": before & ~now}
    shares = bootstrap_intervals({name: column.astype(np.float64) for name, column in columns.items()})
    return ThresholdShift(threshold, **shares, recalibrated=_recalibrated(gallery, file, threshold))


def keeping_threshold(file: Values, accepted: int) -> float:
    """The threshold that accepts the `accepted` highest of (Q,) cosines: halfway between the last one in and the
    first one out. 0 < accepted < Q."""
    ordered = np.sort(file)[::-1]
    inside, outside = float(ordered[accepted - 1]), float(ordered[accepted])
    return (inside + outside) / 2 if np.isfinite(outside) else inside


def _recalibrated(gallery: Values, file: Values, threshold: float) -> Interval | None:
    """With the percentile interval over resampled queries; a resample that accepts all or none is left out."""
    accepted, queries = int((gallery >= threshold).sum()), len(gallery)
    if not 0 < accepted < queries or not np.isfinite(np.sort(file)[::-1][accepted - 1]):
        return None
    random, drawn = np.random.default_rng(SEED), []
    for _ in range(RESAMPLES):
        rows = random.integers(0, queries, queries)
        count = int((gallery[rows] >= threshold).sum())
        if 0 < count < queries and np.isfinite(value := keeping_threshold(file[rows], count)):
            drawn.append(value)
    middle = keeping_threshold(file, accepted)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if drawn else (middle, middle)
    return Interval(middle, min(float(low), middle), max(float(high), middle))
