"""index tune: the index that reaches a recall soonest, or in least memory, for vectors as the query model makes them.

OUT/
  trials.jsonl                  every index at every depth that was measured; a run that goes on reads them back
  tune.json                     what was chosen, and what it reaches on queries that nothing was chosen by
  recall.png, recall.svg        recall against time, query model and gallery model
  gallery.index                 the chosen index, with its search parameters

Vectors of a distilled model lie beside the gallery's distribution, not in it: an index tuned with the gallery model's
own vectors finds less for them than it promised. Both are measured; the first decides. (Chen et al.: "RoarGraph", VLDB
2024, describes the same gap between text queries and image galleries.)
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from edgecsd.errors import BadInputError
from edgecsd.features.exact import exact_neighbours, store_blocks, without_own
from edgecsd.features.store import FeatureStore
from edgecsd.files.places import holding_out
from edgecsd.files.whole import remove, replace_whole, write_json
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.engines.faiss.folder import faiss_of, open_folder, set_search_parameters
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.kinds import IndexType
from edgecsd.index.query_vectors import Floats, QueryVectors
from edgecsd.index.trials import (
    BISECTIONS,
    Candidate,
    IndexTrial,
    IndexTrialLog,
    Recall,
    TuningQueries,
    between,
    depths,
    fastest,
    measure,
    shares_found,
    smallest,
)
from edgecsd.metrics.retrieval import require_depth
from edgecsd.progress import SILENT, Reporter

FEWEST_FOR_GRAPH = 1_000  # vectors: below it flat is as fast
FEWEST_FOR_CODES = 5_000  # vectors, from which product-quantiser codes can be learnt
CHOSEN = "gallery.index"


class Prefer(StrEnum):
    """Which of the indexes that reach the recall is chosen."""

    LATENCY = "latency"
    SIZE = "size"


@dataclass(frozen=True)
class TuneResult:
    """chosen, and what it reaches on the held-out half of the queries; None where nothing reaches the recall.

    query_model, gallery_model  recall of the chosen index on the held-out queries, by each model's vectors
    naive                       the index that tuning with the gallery model's vectors would have chosen
    naive_recall                and what that one reaches for the query model's on the held-out half
    best                        the highest recall among all trials, for when none is high enough
    """

    folder: Path
    k: int
    target: float
    max_ms: float | None
    trials: tuple[IndexTrial, ...]
    chosen: IndexTrial | None
    query_model: Recall | None
    gallery_model: Recall | None
    naive: IndexTrial | None
    naive_recall: Recall | None
    best: IndexTrial
    tuned_on: int
    held_out: int

    @property
    def reached(self) -> bool:
        """Whether the chosen index reaches the recall on queries that it was not chosen by, as far as they show."""
        return self.query_model is not None and self.query_model.may_reach(self.target)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "folder": str(self.folder), "reached": self.reached}


@holding_out
def tune_index(
    gallery: Path | FeatureStore,
    queries: QueryVectors,
    out: Path,
    *,
    recall: float = 0.95,
    k: int = 10,
    max_ms: float | None = None,
    types: Sequence[str | IndexType] = tuple(IndexType),
    prefer: str | Prefer = Prefer.LATENCY,
    mix: bool = False,
    on_disk: bool = False,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> TuneResult:
    """Build indexes over a store and search each deeper, until its recall@k for the query model's vectors is reached.

    recall   of the exact first k, reached with 95 % confidence on the half of the queries that is tuned on
    max_ms   the 90th percentile of one query, one thread; deeper searches are not tried beyond it
    mix      also try inverted lists that are trained on the query model's vectors beside the gallery's
    on_disk  inverted lists stay on disk

    A tuning that was killed goes on: measured trials are read back. Raises BadInputError for what cannot be tuned.
    """
    store = gallery if isinstance(gallery, FeatureStore) else FeatureStore.open(gallery, verify=True)
    if not 0 < recall < 1:
        raise BadInputError(f"`recall` {recall}: above 0 and below 1; of type flat it is 1 anyway")
    require_depth(k, store.count)
    tried = candidates([_type(name) for name in types], store.count, on_disk=on_disk, mix=mix)
    tuning = _IndexTuning(
        store, queries, out, k, recall, max_ms, Prefer(prefer), on_disk=on_disk, overwrite=overwrite, reporter=reporter
    )
    return tuning.run(tried)


def _type(name: str | IndexType) -> IndexType:
    try:
        return IndexType(name)
    except ValueError:
        raise BadInputError(f"`types` {name}: there are {', '.join(t.value for t in IndexType)}") from None


def candidates(types: Sequence[IndexType], count: int, *, on_disk: bool = False, mix: bool = False) -> list[Candidate]:
    """What is built for a gallery of so many vectors, quickly built ones first."""
    disk = {"on_disk": 1} if on_disk else {}
    listed: list[Candidate] = []
    if IndexType.IVF in types:
        listed += [Candidate(IndexType.IVF, disk), Candidate(IndexType.IVF, {"bits": 8, **disk})]
    if IndexType.IVFPQ in types and count >= FEWEST_FOR_CODES:
        listed += [Candidate(IndexType.IVFPQ, disk), Candidate(IndexType.IVFPQ, {"refine": 8, **disk})]
    if mix:
        listed += [Candidate(each.type, each.options, mixed=True) for each in listed]
    found = [Candidate(IndexType.FLAT), Candidate(IndexType.FLAT, {"bits": 8})] if IndexType.FLAT in types else []
    found += listed
    if IndexType.HNSW in types and count >= FEWEST_FOR_GRAPH:
        found.append(Candidate(IndexType.HNSW))
    if not found:
        raise BadInputError(f"`types`: a gallery of {count} vectors is too small for them; add flat")
    return found


class _IndexTuning:
    def __init__(
        self,
        store: FeatureStore,
        queries: QueryVectors,
        out: Path,
        k: int,
        target: float,
        max_ms: float | None,
        prefer: Prefer,
        *,
        on_disk: bool,
        overwrite: bool,
        reporter: Reporter,
    ) -> None:
        self.store, self.queries, self.out, self.k, self.target = store, queries, out, k, target
        self.max_ms, self.prefer, self.reporter = max_ms, prefer, reporter
        self.tuned, self.held_out = queries.halves()
        shards = [shard["sha256"] for shard in store.manifest["shards"]]
        settings = {"shards": shards, "queries": queries.digest, "k": k, "target": target, "max_ms": max_ms}
        self.log = IndexTrialLog(out, settings, overwrite=overwrite)
        self.by_query_model, self.by_gallery_model = (
            self._wanted(vectors) for vectors in (queries.query_model, queries.gallery_model)
        )

    def _wanted(self, vectors: Floats) -> TuningQueries:
        """All queries by one model, with their exact first k of the whole gallery."""
        found = exact_neighbours(vectors, store_blocks(self.store), self.k + 1)
        return TuningQueries(vectors, without_own(*found, self.queries.own, self.k)[1], self.queries.own)

    def run(self, tried: Sequence[Candidate]) -> TuneResult:
        with self.reporter.task("tuning", len(tried)) as advance:
            for candidate in tried:
                self._try(candidate)
                advance(1)
        names = {candidate.name: candidate for candidate in tried}
        trials = [trial for trial in self.log.trials if trial.candidate in names]
        choose = fastest if self.prefer is Prefer.LATENCY else smallest
        chosen = choose(trials, self.target, self.max_ms)
        naive = choose(trials, self.target, self.max_ms, usual=True)
        reached: dict[str, tuple[Recall, Recall]] = {}
        for trial in {each.name: each for each in (chosen, naive) if each is not None}.values():
            index = self._build(names[trial.candidate])
            faiss_of(index).set_search(index.type, {**index.parameters, **trial.search})
            held_out = (each.subset(self.held_out) for each in (self.by_query_model, self.by_gallery_model))
            ours, usual = (Recall.of(shares_found(index, each)) for each in held_out)
            reached[trial.name] = (ours, usual)
        if chosen is not None:
            self._keep(names[chosen.candidate], chosen)
        remove(self.out / "candidates")
        result = TuneResult(
            self.out,
            self.k,
            self.target,
            self.max_ms,
            tuple(trials),
            chosen,
            None if chosen is None else reached[chosen.name][0],
            None if chosen is None else reached[chosen.name][1],
            naive,
            None if naive is None else reached[naive.name][0],
            max(trials, key=lambda trial: trial.query_model.mean),
            len(self.tuned),
            len(self.held_out),
        )
        write_json(self.out / "tune.json", result.as_dict())
        return result

    def _try(self, candidate: Candidate) -> None:
        """Deeper and deeper until both models' recalls are reached; then nearer to the depth where they were."""
        before: dict[str, int] | None = None
        for depth in self._depths(candidate):
            if before is not None and depth.get("refine_factor") != before.get("refine_factor"):
                before = None
            trial = self._measure(candidate, depth)
            if self._enough(trial):
                high = depth
                for _ in range(BISECTIONS):
                    middle = between(before, high) if before else None
                    if middle is None:
                        break
                    if self._enough(self._measure(candidate, middle)):
                        high = middle
                    else:
                        before = middle
                return
            if self.max_ms is not None and trial.p90_ms > self.max_ms:
                return
            before = depth

    def _enough(self, trial: IndexTrial) -> bool:
        return trial.query_model.reaches(self.target) and trial.gallery_model.reaches(self.target)

    def _depths(self, candidate: Candidate) -> Sequence[dict[str, int]]:
        return depths(self._build(candidate))

    def _measure(self, candidate: Candidate, search: dict[str, int]) -> IndexTrial:
        known = self.log.find(candidate, search)
        if known is not None:
            return known
        index = self._build(candidate)
        seconds = float((self._folder(candidate) / "seconds").read_text())
        ours, usual = (each.subset(self.tuned) for each in (self.by_query_model, self.by_gallery_model))
        trial = measure(index, candidate, search, ours, usual, seconds)
        self.log.add(trial)
        self.reporter.message(
            f"{trial.name}: recall@{self.k} {trial.query_model.mean:.4f} for the query model's vectors, "
            f"{trial.gallery_model.mean:.4f} for the gallery model's; {trial.p50_ms:.2f} ms"
        )
        return trial

    def _folder(self, candidate: Candidate) -> Path:
        return self.out / "candidates" / hashlib.sha256(candidate.name.encode()).hexdigest()[:16]

    def _build(self, candidate: Candidate) -> GalleryIndex:
        """The candidate's index; kept until the end, so that a run that goes on need not build it again."""
        folder = self._folder(candidate)
        if (folder / "seconds").exists():
            return open_folder(folder / CHOSEN)
        mixed = self.queries.query_model[self.tuned] if candidate.mixed else None
        begun = time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        remove(folder / CHOSEN)
        options: Any = candidate.options
        built = build_index(
            self.store, folder / CHOSEN, type=candidate.type, training_queries=mixed, reporter=self.reporter, **options
        )
        with replace_whole(folder / "seconds") as file:
            file.write_text(f"{time.perf_counter() - begun:.3f}")
        return built

    def _keep(self, candidate: Candidate, trial: IndexTrial) -> None:
        """The chosen index in OUT, with its depth in the manifest."""
        self._build(candidate)
        with replace_whole(self.out / CHOSEN) as place:
            shutil.copytree(self._folder(candidate) / CHOSEN, place)
            set_search_parameters(place, trial.search)
