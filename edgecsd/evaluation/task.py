"""EvaluationTask: the opened stores and judgements of one evaluation, and what its results say of how it was done."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from edgecsd.errors import BadInputError
from edgecsd.evaluation.benchmark import Benchmark, RetrievalFigures
from edgecsd.evaluation.ground_truth import GroundTruth, match_ids, read_ground_truth
from edgecsd.evaluation.per_query import EvaluationProtocol, PerQuery, PerQueryHeader, QueryScores, StoreIdentity
from edgecsd.evaluation.relevance import ground_truth_benchmarks, make_benchmark
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import sha256_file
from edgecsd.metrics import bootstrap
from edgecsd.photos.images import ImageSet
from edgecsd.progress import Reporter


@dataclass(frozen=True)
class EvaluationTask:
    """What is asked of every model.

    rows         of the query store: the queries that are asked, in the order of the benchmarks
    benchmarks   one, or one for each of easy, medium and hard; they differ in relevance alone
    """

    gallery: FeatureStore
    queries: FeatureStore
    distractors: tuple[FeatureStore, ...]
    truth_file: Path | None
    truth: GroundTruth | None
    rows: tuple[int, ...]
    benchmarks: tuple[Benchmark, ...]

    @cached_property
    def query_ids(self) -> tuple[str, ...]:
        return tuple(self.queries.items.ids[row] for row in self.rows)

    @cached_property
    def _digests(self) -> list[str]:
        return [self.queries.items.digests[row] for row in self.rows]

    @cached_property
    def _cropped(self) -> int:
        """How many queries of the store are crops: the digest of a crop ends in its box."""
        return sum("[" in digest for digest in self._digests)

    @cached_property
    def _uses_boxes(self) -> bool:
        """Whether the ground truth's boxes apply: as the query store was made, and where that is not known, yes."""
        boxed = self.truth is not None and any(self.truth.boxes)
        return boxed and (self._cropped > 0 or not all(self._digests))

    def crop(self, photos: ImageSet, reporter: Reporter) -> ImageSet:
        """The query photos, cropped to the ground truth's boxes where those of the query store were too."""
        if self.truth is None or not any(self.truth.boxes):
            return photos
        if not self._uses_boxes:
            reporter.message(f"{self.queries.path} was made of whole photos: the ground truth's boxes are not used")
            return photos
        boxes = dict(zip(photos.ids, photos.boxes or (None,) * len(photos), strict=True))
        for item, box in zip(self.query_ids, self.truth.boxes, strict=True):
            if box is not None and item in boxes:
                boxes[item] = box
        return photos.with_boxes(boxes)

    def protocol(self) -> EvaluationProtocol:
        """How the figures are made, in words."""
        ignored, relevance = "the query's own photo", self.benchmarks[0].described
        if self.truth is not None:
            ignored += " unless judged; ground truth's junk, hard items for easy, easy items for hard"
            relevance = "ground truth: " + ", ".join(benchmark.setting for benchmark in self.benchmarks)
        scales = ", ".join(f"{scale:g}" for scale in self.gallery.space.scales)
        behind = sum(store.count for store in self.distractors)
        return EvaluationProtocol(
            relevance=relevance,
            ignored=ignored,
            crop=self._crop_in_words(),
            scales=f"gallery model {scales}; query model 1 unless its name says others",
            distractors=f"{behind} items, never relevant" if behind else "none",
            intervals=bootstrap.describe(),
        )

    def _crop_in_words(self) -> str:
        if self._cropped:
            return f"{self._cropped} of {len(self.rows)} queries cropped to their box before resizing"
        if self._uses_boxes:
            return "query model: to the ground truth's boxes; gallery model: unknown, its vectors were imported"
        boxed = self.truth is not None and any(self.truth.boxes)
        return "none, although the ground truth has boxes: the figures are higher for it" if boxed else "none"

    def per_query(self, rows: Sequence[RetrievalFigures], models: dict[str, str], relevance_k: int) -> PerQuery:
        """The values behind the rows, with what is needed to compare them. models: name -> digest."""
        header = PerQueryHeader(
            protocol=self.protocol(),
            gallery=StoreIdentity.of(self.gallery),
            queries=StoreIdentity.of(self.queries),
            distractors=tuple(StoreIdentity.of(store) for store in self.distractors),
            ground_truth=None if self.truth_file is None else sha256_file(self.truth_file),
            models=models,
            thresholds={"level": bootstrap.LEVEL, "relevance_k": relevance_k},
        )
        return PerQuery(header, tuple(self._scores(row) for row in rows))

    def _scores(self, row: RetrievalFigures) -> QueryScores:
        found = tuple(tuple(self._item(int(each)) for each in first if each >= 0) for first in row.found)
        return QueryScores(row.name, row.setting, self.query_ids, row.relevant, row.values, found)

    def _item(self, row: int) -> str:
        """The id of a row of gallery and distractors."""
        searched = (self.gallery, *self.distractors)
        starts = list(accumulate((store.count for store in searched), initial=0))
        store = bisect_right(starts, row) - 1
        return searched[store].items.ids[row - starts[store]]


def open_task(
    gallery: Path,
    queries: Path,
    *,
    labels: bool | None = None,
    relevance_k: int = 10,
    ground_truth: Path | None = None,
    distractors: Sequence[Path] = (),
) -> EvaluationTask:
    """Open the stores and read the judgements. Raises IncompatibleError (exit 3) for stores of different spaces.

    The query store may hold more than the ground truth's queries; the others are not asked.
    """
    opened, query_store = (FeatureStore.open(path, verify=True) for path in (gallery, queries))
    behind = tuple(FeatureStore.open(path, verify=True) for path in distractors)
    searched = {StoreIdentity.of(opened).digest}
    for store in behind:
        if (digest := StoreIdentity.of(store).digest) in searched:
            raise BadInputError(f"`distractors` {store.path}: is searched already; give other photos")
        searched.add(digest)
    if ground_truth is None:
        benchmark = make_benchmark(opened, query_store, labels=labels, relevance_k=relevance_k, distractors=behind)
        rows = tuple(range(query_store.count))
        return EvaluationTask(opened, query_store, behind, None, None, rows, (benchmark,))
    truth = read_ground_truth(ground_truth)
    rows = tuple(match_ids(truth.query_ids, query_store.row_of, "queries"))
    benchmarks = ground_truth_benchmarks(opened, query_store, rows, truth, behind)
    return EvaluationTask(opened, query_store, behind, ground_truth, truth, rows, benchmarks)
