"""Intervals over queries and seeds at once: three seeds are a sample too.

The pigeonhole bootstrap (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007): queries and seeds are
each drawn with replacement, and every drawn query counts with every drawn seed. It errs on the wide side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecsd.metrics.bootstrap import (
    LEVEL,
    RESAMPLES,
    Interval,
    PairedDifference,
    bootstrap_interval,
    paired_difference,
)

Values = NDArray[np.float64]


def interval_of(values: Values) -> Interval:
    """The mean of values (S seeds, Q queries) and its percentile interval; of one seed `bootstrap_interval`'s."""
    if len(values) == 1:
        return bootstrap_interval(values[0])
    low, high = _limits(_means(values))
    return Interval(float(values.mean()), low, high)


def difference_of(a: Values, b: Values) -> PairedDifference:
    """a - b, each (S, Q) of the same seeds and queries: interval, and p as twice the share of draws beyond 0."""
    if len(a) == 1:
        return paired_difference(a[0], b[0])
    drawn = _means(a - b)
    low, high = _limits(drawn)
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return PairedDifference(float((a - b).mean()), low, high, min(1.0, 2 * (1 + beyond) / (1 + len(drawn))), a.shape[1])


def _means(values: Values) -> Values:
    """(RESAMPLES,) means of what was drawn of values (S, Q)."""
    seeds, queries = values.shape
    random = np.random.default_rng(0)
    of_seeds = random.multinomial(seeds, [1 / seeds] * seeds, RESAMPLES) / seeds
    of_queries = random.multinomial(queries, [1 / queries] * queries, RESAMPLES) / queries
    return np.asarray((of_seeds * (of_queries @ values.T)).sum(axis=1))


def _limits(drawn: Values) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
