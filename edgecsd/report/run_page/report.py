"""report: one HTML page and its figures, for people to look at what a run's query model finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

from edgecsd import __version__
from edgecsd.errors import BadInputError
from edgecsd.evaluation.relevance import make_benchmark
from edgecsd.features.space import require_same_space
from edgecsd.features.store import FeatureStore
from edgecsd.files.places import holding_out, require_free
from edgecsd.files.whole import replace_whole, write_json
from edgecsd.models.embedding import embed_store_items
from edgecsd.models.query import QueryModelEmbedder, load_query_model
from edgecsd.photos.images import ImageSet
from edgecsd.progress import SILENT, Reporter
from edgecsd.report.drawing.html import Page, PageFigure, Section, render
from edgecsd.report.drawing.plots import save
from edgecsd.report.drawing.retrieval_page import Card, Thumbnails, retrieval_figure
from edgecsd.report.run_page.cards import cards_note, make_cards
from edgecsd.report.run_page.compared import ComparedModels, gather, means, table, table_note
from edgecsd.report.run_page.figures import DrawnFigure, distributions, maps, of_run, of_study
from edgecsd.report.run_page.search import choose_queries
from edgecsd.report.run_page.study_figures import Study, read_study
from edgecsd.training.log import read_records
from edgecsd.training.run_folder import DistillResult, read_result

KIND, SCHEMA_VERSION, MANIFEST = "report", 1, "report.json"
PAGE = "report.html"


@dataclass(frozen=True)
class ReportOptions:
    """What is shown. labels: None = use them where both stores have them; seed: of the choice and of the maps."""

    show: int = 12
    depth: int = 6
    seed: int = 0
    labels: bool | None = None

    def __post_init__(self) -> None:
        for option, value, most in (("`show`", self.show, 200), ("`depth`", self.depth, 50)):
            if not 1 <= value <= most:
                raise BadInputError(f"{option} {value}: between 1 and {most} is allowed")
        if not 0 <= self.seed < 2**32:
            raise BadInputError(f"`seed` {self.seed}: between 0 and {2**32 - 1} is allowed")


@dataclass(frozen=True)
class ReportResult:
    """What was written. shown: ids of the queries; figures: means over the queries; problems: photos left out."""

    path: Path
    page: Path
    files: tuple[Path, ...]
    shown: tuple[str, ...]
    figures: dict[str, float]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Photos:
    queries: ImageSet
    gallery: ImageSet | None


@holding_out
def report(
    run: Path,
    gallery: Path,
    queries: Path,
    images: ImageSet,
    out: Path,
    *,
    gallery_images: ImageSet | None = None,
    study: Path | None = None,
    options: ReportOptions | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> ReportResult:
    """Write `out`: report.html (one file, nothing outside it), each figure as PNG and SVG, and report.json.

    run             a run that ended; gallery, queries: feature stores of its space
    images          the photos of the query store, which the query model embeds
    gallery_images  the photos of the gallery store; without them what is retrieved is shown by id
    study           a study's JSON file, whose plots are added (see report/study_figures.py)
    """
    options = options or ReportOptions()
    require_free(out, KIND, overwrite=overwrite, manifest=MANIFEST)
    plots = None if study is None else read_study(study)
    result = read_result(run)
    photos = _Photos(images, gallery_images)
    evidence, facts = _gather(run, gallery, queries, photos.queries, options, workers, reporter)
    cards, problems = _cards(evidence, photos, options)
    for problem in problems:
        reporter.message(f"not shown: {problem}")
    drawn = chain(
        maps(evidence, seed=options.seed, reporter=reporter),
        distributions(evidence),
        of_run(result, _records(run)),
        () if plots is None else of_study(plots),
    )
    with replace_whole(out) as folder:
        folder.mkdir()
        names = _write(folder, evidence, cards, drawn, _facts(result, plots, facts), options, photos)
    return ReportResult(
        out,
        out / PAGE,
        tuple(out / name for name in names),
        tuple(card.query.item for card in cards),
        means(evidence),
        problems,
    )


def _records(run: Path) -> list[dict[str, object]]:
    file = run / "metrics.jsonl"
    return read_records(file) if file.is_file() else []


def _gather(
    run: Path,
    gallery: Path,
    queries: Path,
    photos: ImageSet,
    options: ReportOptions,
    workers: int | None,
    reporter: Reporter,
) -> tuple[ComparedModels, list[tuple[str, str]]]:
    """Both models' embeddings of the queries and what they find; and facts about where they come from."""
    gallery_store, query_store = (FeatureStore.open(path, verify=True) for path in (gallery, queries))
    model = load_query_model(run)
    space = model.config.space
    require_same_space(space, gallery_store.space, str(run), str(gallery))
    benchmark = make_benchmark(gallery_store, query_store, labels=options.labels)
    have = gallery_store.items.labels is not None and query_store.items.labels is not None
    embedded = embed_store_items(
        photos, query_store, QueryModelEmbedder(model), name="query model: queries", workers=workers, reporter=reporter
    )
    evidence = gather(
        gallery_store,
        query_store,
        benchmark.gallery,
        embedded,
        tuple(benchmark.relevance),
        by_label=have and options.labels is not False,
        depth=options.depth,
    )
    facts = [
        ("Query model", f"{model.config.backbone}, {model.config.preprocess.size} px, {run.name}"),
        ("Gallery model", space.gallery_model),
        ("Embedding space", f"{space.fingerprint}, {space.dim} dimensions"),
        ("Queries", f"{query_store.count} ({queries.name})"),
        ("Gallery", f"{gallery_store.count} ({gallery.name})"),
        ("Relevance", benchmark.described),
        (
            "Search",
            "exact, by cosine, ties by row; trapezoidal AP (revisited Oxford/Paris); the query's own photo ignored",
        ),
    ]
    return evidence, facts


def _facts(result: DistillResult, study: Study | None, facts: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    if result.stages:
        facts = [*facts, ("Stages", ", ".join(stage.name for stage in result.stages))]
    if study is not None:
        facts = [*facts, ("Study", study.title)]
    return (*facts, ("Made by", f"edgecsd {__version__}"))


def _cards(
    evidence: ComparedModels, photos: _Photos, options: ReportOptions
) -> tuple[tuple[Card, ...], tuple[str, ...]]:
    """The cards of the chosen queries, and the photos that could not be shown."""
    queries = _thumbnails(photos.queries, evidence.queries)
    gallery = None if photos.gallery is None else _thumbnails(photos.gallery, evidence.gallery)
    choices = choose_queries(evidence.loss, options.show, seed=options.seed)
    cards = make_cards(evidence, choices, queries, gallery, depth=options.depth)
    if gallery is not None and gallery.none_was_found:
        first = next(iter(gallery.problems.values()))
        raise BadInputError(
            f"`gallery_images`: none of the photos that are to be shown is there ({first}); give the photos that "
            f"{evidence.gallery.path} was extracted from, or leave the option out"
        )
    return cards, tuple(chain(queries.problems.values(), gallery.problems.values() if gallery else ()))


def _thumbnails(images: ImageSet, store: FeatureStore) -> Thumbnails:
    return Thumbnails(images, dict(zip(store.items.ids, store.items.digests, strict=True)))


def _write(
    folder: Path,
    evidence: ComparedModels,
    cards: tuple[Card, ...],
    drawn: Iterator[DrawnFigure],
    facts: Sequence[tuple[str, str]],
    options: ReportOptions,
    photos: _Photos,
) -> list[str]:
    """Write everything into `folder`; the names of the files."""
    files = list(save(retrieval_figure(cards), folder / "retrieval"))
    shown: list[tuple[str, PageFigure]] = []
    for each in drawn:
        png, svg = save(each.figure, folder / each.stem)
        files += [png, svg]
        shown.append((each.section, PageFigure(each.title, svg.read_text("utf-8"), each.caption, each.alternative)))
    sections = tuple(
        Section(title, tuple(figure for _, figure in group)) for title, group in groupby(shown, lambda pair: pair[0])
    )
    page = Page(
        "What the query model finds",
        f"{evidence.queries.count} queries searched among {evidence.gallery.count} gallery images, with the gallery "
        "model's embedding of each query and with the query model's.",
        table(evidence),
        table_note(evidence),
        cards,
        cards_note(evidence, depth=options.depth, seed=options.seed, photos=photos.gallery is not None),
        sections,
        tuple(facts),
    )
    (folder / PAGE).write_text(render(page), encoding="utf-8")
    manifest = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "edgecsd": __version__,
        "figures": means(evidence),
        "shown": [card.query.item for card in cards],
        "facts": dict(facts),
    }
    write_json(folder / MANIFEST, manifest)
    return [PAGE, *(file.name for file in files), MANIFEST]
