"""edgecsd evaluate"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, quoted, table
from edgecsd.cli.options import Json, Split, Workers, photos_at

if TYPE_CHECKING:
    from edgecsd.evaluation.benchmark import RetrievalFigures
    from edgecsd.evaluation.compare import ComparisonResult
    from edgecsd.evaluation.evaluate import EvaluateResult
    from edgecsd.evaluation.per_query import EvaluationProtocol

PANELS = {
    "What is scored": ("run", "query_scales", "artifact", "gallery_images", "gallery_split", "index"),
    "What is right": ("labels", "relevance_k", "ground_truth", "distractors"),
    "Comparison of two models": ("compare", "model", "per_query"),
}


def command(
    gallery: Annotated[Path | None, typer.Option(help="Feature store of the gallery.")] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Feature store of the queries, by the same gallery model.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The photos of the query store.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder of a query model to score.")] = None,
    query_scales: Annotated[
        str | None,
        typer.Option(
            help="With --run: adds the query model's embeddings averaged over its input at these scales, e.g. "
            "1,1.4142,0.7071."
        ),
    ] = None,
    artifact: Annotated[Path | None, typer.Option(help="Exported file to score.")] = None,
    gallery_images: Annotated[
        Path | None, typer.Option(help="The photos of the gallery store: adds the query model's symmetric search.")
    ] = None,
    gallery_split: Annotated[str | None, typer.Option(help="Like --split, for --gallery-images.")] = None,
    labels: Annotated[
        bool | None,
        typer.Option(
            "--labels/--no-labels",
            help="Relevance from labels (default where both stores have them), or from the gallery model's first k.",
        ),
    ] = None,
    relevance_k: Annotated[
        int, typer.Option(min=1, help="Without labels: the gallery model's first k are relevant.")
    ] = 10,
    ground_truth: Annotated[
        Path | None, typer.Option(help="Judgements (.pkl, .json or .csv): rows for easy, medium and hard.")
    ] = None,
    distractors: Annotated[
        list[Path] | None,
        typer.Option(help="Feature store searched behind the gallery, never relevant (may be repeated)."),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            help="Gallery index over the gallery store (folder or milvus:URI#COLLECTION): adds what it finds."
        ),
    ] = None,
    per_query: Annotated[Path | None, typer.Option(help="Write the results a query to this .parquet file.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Is A really better than B? Two --per-query files, run folders or exported files."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="With --compare: which model of the files; once for both, or once for A and once for B."),
    ] = None,
    split: Split = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Symmetric and asymmetric mAP, mP@k, recall@k and overlap@k with the gallery model's own ranking.

    Example: edgecsd evaluate --gallery gallery.store --queries queries.store --images query-photos --run run
    """
    from edgecsd.errors import BadInputError

    given = {
        "--run": run,
        "--query-scales": query_scales,
        "--artifact": artifact,
        "--gallery-images": gallery_images,
        "--gallery-split": gallery_split,
        "--per-query": per_query,
        "--index": index,
    }
    if compare is not None:
        from edgecsd.evaluation.compare import compare as compare_models

        _refuse([name for name, value in given.items() if value is not None], "--compare")
        compared = compare_models(
            *compare,
            models=model or (),
            gallery=gallery,
            queries=queries,
            images=photos_at(images, split),
            labels=labels,
            relevance_k=relevance_k,
            ground_truth=ground_truth,
            distractors=distractors or (),
            workers=workers,
            reporter=console_reporter(),
        )
        finish(as_json, compared.as_dict(), text=_comparison_text(compared))
        return
    _refuse(["--model"] if model else [], "evaluate without --compare")
    if gallery is None or queries is None:
        raise BadInputError(
            f"Missing option '{'--gallery' if gallery is None else '--queries'}': a feature store, as edgecsd extract "
            "and import-features make them"
        )
    from edgecsd.cli.numbers import numbers
    from edgecsd.evaluation.evaluate import evaluate
    from edgecsd.evaluation.per_query import require_parquet_name, write_per_query
    from edgecsd.files.places import require_file_place

    if per_query is not None:
        require_parquet_name(per_query)
        require_file_place(per_query, "--per-query")
    scales = () if query_scales is None else numbers(query_scales, "--query-scales")
    result = evaluate(
        gallery,
        queries,
        images=photos_at(images, split),
        run=run,
        query_scales=scales,
        artifact=artifact,
        gallery_images=photos_at(gallery_images, gallery_split),
        labels=labels,
        relevance_k=relevance_k,
        ground_truth=ground_truth,
        distractors=distractors or (),
        index=index,
        workers=workers,
        reporter=console_reporter(),
    )
    if per_query is not None:
        write_per_query(per_query, result.per_query)
    following = f"edgecsd evaluate --compare {quoted(per_query)} OTHER.parquet" if per_query else None
    document = {
        "queries": result.queries,
        "gallery": result.gallery,
        "relevance": result.relevance,
        "protocol": result.protocol.model_dump(),
        "rows": [row.as_dict() for row in result.rows],
        "per_query": per_query,
    }
    finish(as_json, document, text=_text(result), wrote=per_query, following=following)


def _refuse(options: Sequence[str], where: str) -> None:
    from edgecsd.errors import BadInputError

    if options:
        raise BadInputError(f"{', '.join(options)}: has no meaning with {where}; leave it out")


def _text(result: EvaluateResult) -> str:
    """A table for each setting, one column a model, then how the figures were made."""
    blocks = []
    for setting in dict.fromkeys(row.setting for row in result.rows):
        rows = [row for row in result.rows if row.setting == setting]
        blocks.append(_setting_table(setting, rows))
    notes = f"{result.queries} queries, gallery of {result.gallery}\n{_notes(result.protocol)}"
    return "\n\n".join([*blocks, notes])


def _setting_table(setting: str, rows: Sequence[RetrievalFigures]) -> str:
    """Figures down, models across: four models with their intervals stay narrower than 120 characters."""
    from edgecsd.metrics.bootstrap import with_interval

    names = [row.name.rpartition(", ") for row in rows]
    header = ["" if setting == "all" else setting, *(first for first, _, _ in names)]
    lines = [["", *(last for _, _, last in names)]]
    lines += [[name, *(with_interval(row.intervals[name]) for row in rows)] for name in rows[0].intervals]
    first, rule, second, *others = table(header, lines).splitlines()
    return "\n".join([first, second, rule, *others])


def _notes(protocol: EvaluationProtocol) -> str:
    return "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in protocol.model_dump().items())


def _comparison_text(result: ComparisonResult) -> str:
    from edgecsd.metrics.bootstrap import with_interval

    rows = []
    for row in result.rows:
        found = row.difference
        rows.append(
            [
                row.figure if row.setting == "all" else f"{row.setting} {row.figure}",
                f"{row.mean_a:.4f}",
                f"{row.mean_b:.4f}",
                with_interval(found, "+.4f"),
                f"{found.p_value:.4f}",
                str(found.queries),
                row.verdict,
            ]
        )
    header = ["", "A", "B", "A - B", "p", "queries", "verdict"]
    return "\n".join(
        [
            f"A: {result.a}",
            f"B: {result.b}",
            table(header, rows),
            f"{result.queries} queries, gallery of {result.gallery}",
            result.method,
            "each figure is tested by itself, and of many some differ by chance: decide on one before you look",
            _notes(result.protocol),
        ]
    )
