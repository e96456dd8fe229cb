"""Trials: an index of some make, searched at some depth by two models' vectors; measured, kept, never repeated."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.features.exact import without_own
from edgecsd.files.json_lines import JsonLog, has_other_header
from edgecsd.index.engines.faiss.folder import faiss_of
from edgecsd.index.engines.faiss.index import one_thread
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.kinds import IndexType
from edgecsd.metrics.retrieval import overlap_at

TIMED_QUERIES = 200  # one after the other, as they come from phones
WARM_UP = 5
MOST_EF_SEARCH = 1024
FACTORS = (4, 16)  # candidates a result that are ranked again
BISECTIONS = 2  # between the last depth below the target and the first that reaches it
ONE_SIDED = 1.645  # standard errors: the recall of all queries is below with 5 % probability

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Candidate:
    """What is built. mixed: training looks at vectors of the query model too."""

    type: IndexType
    options: dict[str, int] = field(default_factory=dict)
    mixed: bool = False

    @property
    def name(self) -> str:
        words = [self.type.value]
        words += [f"{name.replace('_', ' ')} {value}" for name, value in sorted(self.options.items())]
        return ", ".join([*words, *(["queries mixed in"] if self.mixed else [])])


@dataclass(frozen=True)
class Recall:
    """The mean share of the exact first k that queries find, and its standard error."""

    mean: float
    error: float

    @staticmethod
    def of(shares: NDArray[np.float64]) -> Recall:
        return Recall(float(shares.mean()), float(shares.std()) / math.sqrt(len(shares)))

    def reaches(self, target: float) -> bool:
        """Whether the recall of queries to come is above the target, too, with 95 % probability."""
        return self.mean - ONE_SIDED * self.error >= target

    def may_reach(self, target: float) -> bool:
        """Whether these queries leave it possible: a recall below the target is not shown with 95 % confidence."""
        return self.mean + ONE_SIDED * self.error >= target


@dataclass(frozen=True)
class IndexTrial:
    """One candidate at one depth. query_model and gallery_model: recall of the queries that are tuned on, by each.

    p50_ms, p90_ms   of one query of the query model at a time, one thread
    bytes            of the index without ids
    """

    candidate: str
    search: dict[str, int]
    query_model: Recall
    gallery_model: Recall
    p50_ms: float
    p90_ms: float
    bytes: int
    build_seconds: float

    @property
    def name(self) -> str:
        searched = ", ".join(f"{name} {value}" for name, value in self.search.items())
        return f"{self.candidate}; {searched}" if searched else self.candidate


@dataclass(frozen=True)
class TuningQueries:
    """vectors (Q, D), their exact first k (Q, k) and own gallery rows (Q,), which do not count."""

    vectors: Floats
    wanted: Rows
    own: Rows

    def subset(self, chosen: Rows) -> TuningQueries:
        """Only those at the chosen positions."""
        return TuningQueries(self.vectors[chosen], self.wanted[chosen], self.own[chosen])


def shares_found(index: GalleryIndex, queries: TuningQueries) -> NDArray[np.float64]:
    """(Q,) the share of the exact first k among the index's first k."""
    k = queries.wanted.shape[1]
    _, rows = without_own(*index.search(queries.vectors, k + 1), queries.own, k)
    return overlap_at(rows, queries.wanted, k)


def measure(
    index: GalleryIndex,
    candidate: Candidate,
    search: dict[str, int],
    queries: TuningQueries,
    usual: TuningQueries,
    seconds: float,
) -> IndexTrial:
    """One trial. usual: the same photos by the gallery model."""
    faiss_of(index).set_search(index.type, {**index.parameters, **search})
    k = queries.wanted.shape[1]
    with one_thread():
        times = _times(index, queries.vectors, k)
    recall, usual_recall = (Recall.of(shares_found(index, each)) for each in (queries, usual))
    folder = Path(str(index.path))
    size = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".faiss", ".ivfdata"))
    p50, p90 = (round(float(value), 4) for value in np.percentile(times, (50, 90)))
    return IndexTrial(candidate.name, search, recall, usual_recall, p50, p90, size, round(seconds, 2))


def _times(index: GalleryIndex, vectors: Floats, k: int) -> NDArray[np.float64]:
    """(n,) milliseconds a query."""
    times = []
    for number in range(WARM_UP + TIMED_QUERIES):
        query = vectors[number % len(vectors)][None]
        begun = time.perf_counter()
        index.search(query, k)
        times.append(1000 * (time.perf_counter() - begun))
    return np.array(times[WARM_UP:])


def depths(index: GalleryIndex) -> list[dict[str, int]]:
    """The search parameters to try, shallow ones first, for each refine factor; an empty entry where there are none."""
    if index.type is IndexType.FLAT:
        return [{}]
    if index.type is IndexType.HNSW:
        return [{"ef_search": value} for value in _doubling(16, min(MOST_EF_SEARCH, max(16, len(index.ids))))]
    probes = [{"nprobe": value} for value in _doubling(1, index.parameters["nlist"])]
    if "refine" not in index.parameters:
        return probes
    return [{**depth, "refine_factor": factor} for factor in FACTORS for depth in probes]


def _doubling(first: int, most: int) -> Iterator[int]:
    value = first
    while value < most:
        yield value
        value *= 2
    yield most


def between(low: dict[str, int], high: dict[str, int]) -> dict[str, int] | None:
    """The depth in the middle of two that differ in the parameter that doubles, or None where there is none."""
    name = next(iter(low))
    middle = (low[name] + high[name]) // 2
    return {**low, name: middle} if low[name] < middle < high[name] else None


class IndexTrialLog:
    """trials.jsonl of one set of inputs, gone on with by a later run."""

    def __init__(self, folder: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
        file, header = folder / "trials.jsonl", {"settings": settings}
        if has_other_header(file, header) and not overwrite:
            raise BadInputError(
                f"{folder}: holds trials of another gallery, other queries or another depth; choose another `out`, or "
                "`overwrite` to throw them away"
            )
        self._log = JsonLog(file, header)
        self.trials = [_trial(line, file) for line in self._log.lines]

    def find(self, candidate: Candidate, search: dict[str, int]) -> IndexTrial | None:
        return next((t for t in self.trials if (t.candidate, t.search) == (candidate.name, search)), None)

    def add(self, trial: IndexTrial) -> None:
        self._log.add(asdict(trial))
        self.trials.append(trial)


def _trial(line: dict[str, Any], file: Path) -> IndexTrial:
    try:
        recalls: Any = {name: Recall(**line[name]) for name in ("query_model", "gallery_model")}
        return IndexTrial(**{**line, **recalls})
    except (TypeError, KeyError) as error:
        raise DamagedFileError(f"{file}: {error}; delete the file to try again") from None


def fastest(
    trials: Sequence[IndexTrial], target: float, max_ms: float | None, *, usual: bool = False
) -> IndexTrial | None:
    """The trial that reaches the recall soonest, within max_ms; None where none does. usual: by the gallery model."""
    good = _good(trials, target, max_ms, usual=usual)
    return min(good, key=lambda trial: (trial.p50_ms, trial.bytes), default=None)


def smallest(
    trials: Sequence[IndexTrial], target: float, max_ms: float | None, *, usual: bool = False
) -> IndexTrial | None:
    """The one that reaches the recall in the least memory, then soonest."""
    good = _good(trials, target, max_ms, usual=usual)
    return min(good, key=lambda trial: (trial.bytes, trial.p50_ms), default=None)


def _good(trials: Sequence[IndexTrial], target: float, max_ms: float | None, *, usual: bool) -> list[IndexTrial]:
    return [
        trial
        for trial in trials
        if (trial.gallery_model if usual else trial.query_model).reaches(target)
        and (max_ms is None or trial.p90_ms <= max_ms)
    ]
