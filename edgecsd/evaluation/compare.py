"""comparison: is one model really better than another on the same queries, or is the difference chance?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.evaluation.benchmark import mean_name
from edgecsd.evaluation.evaluate import OWN_ROW, evaluate
from edgecsd.evaluation.per_query import EvaluationProtocol, PerQuery, QueryScores, read_per_query
from edgecsd.metrics.bootstrap import LEVEL, PairedDifference, paired_difference, queries_needed
from edgecsd.metrics.retrieval import mean_of
from edgecsd.photos.images import ImageSet
from edgecsd.progress import SILENT, Reporter

METHOD = "paired: BCa bootstrap interval of the mean difference; p by flipping the signs of the queries' differences"


@dataclass(frozen=True)
class Compared:
    """One figure of A and B in one setting. needed: how many queries would show such a difference (None: no number)."""

    setting: str
    figure: str
    mean_a: float
    mean_b: float
    difference: PairedDifference
    needed: int | None

    @property
    def shown(self) -> bool:
        """Whether the difference is real, as the paired bootstrap has it."""
        return self.difference.shown

    @property
    def verdict(self) -> str:
        if self.shown:
            return "A better" if self.difference.mean > 0 else "B better"
        if self.needed is None:
            return "no difference"
        return f"no difference shown: {self.needed} queries would be needed"


@dataclass(frozen=True)
class ComparisonResult:
    """Every figure of A against B, in the order of the settings and figures; the names of both, and how it was made."""

    a: str
    b: str
    queries: int
    gallery: int
    rows: tuple[Compared, ...]
    protocol: EvaluationProtocol
    method: str = METHOD

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "a": self.a,
            "b": self.b,
            "queries": self.queries,
            "gallery": self.gallery,
            "level": LEVEL,
            "rows": [{**asdict(row), "shown": row.shown, "verdict": row.verdict} for row in self.rows],
            "protocol": self.protocol.model_dump(),
            "method": self.method,
        }


def compare(
    a: Path,
    b: Path,
    *,
    models: Sequence[str] = (),
    gallery: Path | None = None,
    queries: Path | None = None,
    images: ImageSet | None = None,
    labels: bool | None = None,
    relevance_k: int = 10,
    ground_truth: Path | None = None,
    distractors: Sequence[Path] = (),
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> ComparisonResult:
    """Compare two per-query files (.parquet; no model is run), run folders or artifacts, or one with another kind.

    models  which model of the per-query files: one name for both, or one for A and one for B; by default the one that
            is not the gallery model
    The others are `evaluate`'s and needed for runs and artifacts only. Raises IncompatibleError (exit 3) for another
    embedding space, gallery or distractors, BadInputError (exit 2) for other queries or another protocol.
    """
    if len(models) > 2:
        raise BadInputError(f"`model`: {len(models)} names; give one for both, or one for A and one for B")
    given = {"`gallery`": gallery, "`queries`": queries, "`images`": images, "`labels`": labels}
    _check_options(a, b, given | {"`ground_truth`": ground_truth, "`distractors`": distractors or None})

    def results(path: Path) -> PerQuery:
        if _is_per_query(path):
            return read_per_query(path)
        assert gallery is not None and queries is not None
        is_run = (path / "query_model.json").is_file()
        return evaluate(
            gallery,
            queries,
            images=images,
            run=path if is_run else None,
            artifact=None if is_run else path,
            labels=labels,
            relevance_k=relevance_k,
            ground_truth=ground_truth,
            distractors=distractors,
            workers=workers,
            reporter=reporter,
        ).per_query

    first, second = results(a), results(b)
    require_comparable(first, second, str(a), str(b))
    chosen = (models[0], models[-1]) if models else (None, None)
    name_a, name_b = _choose(first, chosen[0], a), _choose(second, chosen[1], b)
    rows = compare_scores(first.of_model(name_a), second.of_model(name_b))
    return ComparisonResult(
        f"{a} ({name_a})",
        f"{b} ({name_b})",
        len(first.scores[0].queries),
        _gallery_size(first),
        rows,
        first.header.protocol,
    )


def compare_scores(a: dict[str, QueryScores], b: dict[str, QueryScores]) -> tuple[Compared, ...]:
    """Every figure of every setting; a and b: setting -> scores of the same queries in the same order."""
    rows = []
    for setting, ours in a.items():
        for figure, values in ours.values.items():
            theirs, name = b[setting].values[figure], mean_name(figure)
            rows.append(
                Compared(
                    setting,
                    name,
                    mean_of(values, name),
                    mean_of(theirs, name),
                    paired_difference(values, theirs),
                    queries_needed(values, theirs),
                )
            )
    return tuple(rows)


def require_comparable(a: PerQuery, b: PerQuery, a_name: str, b_name: str) -> None:
    """Raise unless both were found with one gallery (else exit 3), the same queries and one protocol (else exit 2)."""
    left, right = a.header, b.header
    both = f"{a_name} and {b_name}"
    if left.gallery.fingerprint != right.gallery.fingerprint:
        raise IncompatibleError(
            f"{both}: different embedding spaces ({left.gallery.fingerprint} and {right.gallery.fingerprint})"
        )
    for what, one, other in (
        ("galleries", (left.gallery,), (right.gallery,)),
        ("distractors", left.distractors, right.distractors),
    ):
        if [each.digest for each in one] != [each.digest for each in other]:
            names = [", ".join(f"{each.path}, {each.count} items" for each in side) or "none" for side in (one, other)]
            raise IncompatibleError(f"{both}: different {what} ({'; '.join(names)}); evaluate both against the same")
    if left.queries.digest != right.queries.digest:
        raise BadInputError(
            f"{both}: other queries ({left.queries.path}, {left.queries.count} items; {right.queries.path}, "
            f"{right.queries.count} items); a paired comparison needs the same query store in both"
        )
    if left.ground_truth != right.ground_truth:
        raise BadInputError(f"{both}: other judgements: their ground truth files differ; evaluate both with the same")
    ours, theirs = left.protocol.model_dump(), right.protocol.model_dump()
    differing = [f"{name}: {ours[name]!r} against {theirs[name]!r}" for name in ours if ours[name] != theirs[name]]
    if differing:
        raise BadInputError(f"{both}: other protocols: {'; '.join(differing)}; evaluate both in the same way")
    asked, theirs_asked = ({score.queries for score in each.scores} for each in (a, b))
    if asked != theirs_asked:
        numbers = " and ".join(str(max(map(len, side))) for side in (asked, theirs_asked))
        raise BadInputError(f"{both}: other queries of one store ({numbers} of them, or in another order)")
    if [(s.setting, *s.values) for s in a.scores[:1]] != [(s.setting, *s.values) for s in b.scores[:1]]:
        raise BadInputError(f"{both}: they hold other figures; evaluate both with the same edgecsd")


def _check_options(a: Path, b: Path, given: Mapping[str, object]) -> None:
    to_evaluate = [path for path in (a, b) if not _is_per_query(path)]
    missing = [name for name in ("`gallery`", "`queries`", "`images`") if given[name] is None]
    if to_evaluate and missing:
        raise BadInputError(
            f"`compare` {to_evaluate[0]}: a run or an artifact is evaluated first, which needs {', '.join(missing)} "
            "too; files of edgecsd evaluate --per-query (.parquet) don't"
        )
    useless = [name for name, value in given.items() if value is not None]
    if useless and not to_evaluate:
        raise BadInputError(
            f"{', '.join(useless)}: has no meaning where two per-query files are compared; leave it out"
        )


def _is_per_query(path: Path) -> bool:
    return path.suffix == ".parquet"


def _choose(results: PerQuery, model: str | None, path: Path) -> str:
    """The model that is compared, of those that the results hold."""
    there = list(results.header.models)
    names = "; ".join(there)
    if model is not None:
        if model not in there:
            raise BadInputError(f"{path}: has no model {model!r}; it has: {names}")
        return model
    others = [name for name in there if name != OWN_ROW]
    if len(others) != 1:
        raise BadInputError(f"{path}: choose with `model` which of its models to compare: {names}")
    return others[0]


def _gallery_size(results: PerQuery) -> int:
    return results.header.gallery.count + sum(store.count for store in results.header.distractors)
