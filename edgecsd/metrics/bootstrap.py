"""How sure a figure is: bootstrap intervals over queries, and paired tests of the difference between two models.

Queries are the sample: a figure is the mean of a value a query. Intervals are BCa (bias-corrected, accelerated; Efron
& Tibshirani, An Introduction to the Bootstrap, 1993, chapter 14), for retrieval figures pile up at 1 and the plain
percentiles of a skewed sample cover too little. The test of a difference is Fisher's randomisation test by flipping
signs (Smucker, Allan, Carterette, CIKM 2007; the bootstrap test of Sakai, SIGIR 2006, gives much the same).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError

Values = NDArray[np.float64]
LEVEL, RESAMPLES, SEED = 0.95, 10_000, 0
MOST_QUERIES = 10_000_000  # nobody has more; a difference that needs more is one of rounding
POWER = 0.8  # the chance to show a difference that is there, which `queries_needed` plans for
CHUNK_ENTRIES = 1 << 21  # resampled queries held at once, about 50 MB
NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A mean over queries and its confidence interval; low and high are NaN where fewer than two queries count."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """The mean of a - b over the same queries, its confidence interval, and the two-sided p-value of no difference."""

    mean: float
    low: float
    high: float
    p_value: float
    queries: int

    @property
    def shown(self) -> bool:
        """Whether the difference is real at the level: by the test, and by an interval without 0."""
        return self.p_value < 1 - LEVEL and not self.low <= 0 <= self.high


def with_interval(found: Interval | PairedDifference, form: str = ".3f") -> str:
    """ "0.701 [0.667, 0.733]", or the mean alone of one query, which has no interval. form: of each number."""
    if math.isnan(found.low):
        return f"{found.mean:{form}}"
    return f"{found.mean:{form}} [{found.low:{form}}, {found.high:{form}}]"


def describe(level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED) -> str:
    """The intervals' method in words, for the protocol that stands in every result."""
    return f"{level:.0%} BCa bootstrap over queries, {resamples} resamples, seed {seed}"


def bootstrap_interval(
    values: Values, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """The BCa interval of the mean of values (Q,); NaN, a query that cannot be measured, is left out.

    Where all queries have the same value, the bootstrap sees no spread and the interval is that value.
    """
    return bootstrap_intervals({"": values}, level=level, resamples=resamples, seed=seed)[""]


def bootstrap_intervals(
    columns: dict[str, Values], *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Interval]:
    """`bootstrap_interval` of several figures, each (Q,), over the same resamples of the queries."""
    _check(level, resamples)
    arrays = {name: np.asarray(column, np.float64) for name, column in columns.items()}
    groups: dict[bytes, list[str]] = {}
    for name, array in arrays.items():
        groups.setdefault(np.isnan(array).tobytes(), []).append(name)
    found: dict[str, Interval] = {}
    for names in groups.values():
        measured = ~np.isnan(arrays[names[0]])
        block = np.stack([arrays[name][measured] for name in names], axis=1)
        if not len(block):
            raise BadInputError(f"{names[0] or 'the figure'} cannot be measured: no query has a value")
        means = _resampled_means(block, resamples, seed) if len(block) > 1 else None
        for column, name in enumerate(names):
            found[name] = _bca(block[:, column], None if means is None else means[:, column], level)
    return {name: found[name] for name in columns}


def paired_difference(
    a: Values, b: Values, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> PairedDifference:
    """a - b over the same queries, each (Q,): BCa interval, and p by flipping the signs of the queries' differences.

    p = (1 + flips whose mean is at least as far from 0) / (1 + flips), which is valid for any number of flips. Queries
    that are NaN in a or b are left out. Raises BadInputError for other lengths or where nothing remains.
    """
    differences = _differences(a, b)
    interval = bootstrap_interval(differences, level=level, resamples=resamples, seed=seed)
    p_value = _sign_flip_p(differences, resamples, seed)
    return PairedDifference(interval.mean, interval.low, interval.high, p_value, len(differences))


def queries_needed(a: Values, b: Values, *, level: float = LEVEL, power: float = POWER) -> int | None:
    """How many queries would show a difference of the observed size and spread, by the normal approximation.

    n = ((z(1 - alpha / 2) + z(power)) s / d)^2, rounded up, with mean d and standard deviation s of a - b: with n
    queries like these the test finds the difference with probability `power`. None where d is 0, up to rounding: no
    number would do, or more than MOST_QUERIES.
    """
    differences = _differences(a, b)
    if len(differences) < 2:
        return None
    return queries_to_show(float(differences.mean()), float(differences.std(ddof=1)), level=level, power=power)


def queries_to_show(mean: float, deviation: float, *, level: float = LEVEL, power: float = POWER) -> int | None:
    """`queries_needed` of a mean difference and the standard deviation of the differences."""
    quantiles = NORMAL.inv_cdf((1 + level) / 2) + NORMAL.inv_cdf(power)
    if abs(mean) * MOST_QUERIES**0.5 <= quantiles * deviation or mean == 0:
        return None
    return max(2, math.ceil((quantiles * deviation / mean) ** 2))


def _check(level: float, resamples: int) -> None:
    if not 0 < level < 1:
        raise BadInputError(f"level {level}: must be between 0 and 1, such as 0.95")
    if resamples < 1:
        raise BadInputError(f"{resamples} resamples: 1 or more are needed")


def _differences(a: Values, b: Values) -> Values:
    if a.shape != b.shape or a.ndim != 1:
        raise BadInputError(f"values of shape {a.shape} and {b.shape}: two models are compared on the same queries")
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    measured = differences[~np.isnan(differences)]
    if not len(measured):
        raise BadInputError("nothing to compare: no query has a value in both")
    return np.asarray(measured, np.float64)


def _chunks(resamples: int, queries: int) -> Iterator[tuple[int, int]]:
    """(first, end) of the resamples that fit into memory together."""
    step = max(1, CHUNK_ENTRIES // queries)
    for first in range(0, resamples, step):
        yield first, min(first + step, resamples)


def _resampled_means(block: Values, resamples: int, seed: int) -> Values:
    """(Q, F) -> (R, F): means over Q queries drawn with replacement, the same draws for all figures."""
    random, queries = np.random.default_rng(seed), len(block)
    means = np.empty((resamples, block.shape[1]))
    for first, end in _chunks(resamples, queries):
        drawn = random.integers(0, queries, (end - first, queries))
        drawn += np.arange(end - first)[:, None] * queries
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        means[first:end] = counts.astype(np.float64) @ block / queries
    return means


def _bca(values: Values, means: Values | None, level: float) -> Interval:
    """Efron & Tibshirani 1993, equations 14.9 to 14.15; a tie with the mean counts half in the bias correction."""
    mean = float(values.mean())
    if means is None:
        return Interval(mean, float("nan"), float("nan"))
    deviations = values - mean
    spread = float((deviations**2).sum())
    slack = 1e-12 * max(1.0, float(np.abs(values).max()))  # sums of the same numbers in another order
    if spread <= len(values) * slack**2:
        return Interval(mean, mean, mean)
    below = float(np.mean(means < mean - slack) + np.mean(np.abs(means - mean) <= slack) / 2)
    bias = NORMAL.inv_cdf(min(max(below, 1 / (len(means) + 1)), len(means) / (len(means) + 1)))
    acceleration = float((deviations**3).sum()) / (6 * spread**1.5)  # the jackknife's, in closed form for a mean
    shares = []
    for z in (NORMAL.inv_cdf((1 - level) / 2), NORMAL.inv_cdf((1 + level) / 2)):
        shares.append(NORMAL.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))))
    low, high = np.quantile(means, shares)
    return Interval(mean, float(low), float(high))


def _sign_flip_p(differences: Values, flips: int, seed: int) -> float:
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    observed = abs(float(moved.sum()))
    slack = 1e-12 * float(np.abs(moved).sum())
    random, extreme = np.random.default_rng(seed), 0
    for first, end in _chunks(flips, len(moved)):
        signs = random.integers(0, 2, (end - first, len(moved)), dtype=np.int8).astype(np.float64) * 2 - 1
        extreme += int((np.abs(signs @ moved) >= observed - slack).sum())
    return (1 + extreme) / (1 + flips)
