"""edgecsd index tune"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, quoted, table
from edgecsd.cli.options import Json, Overwrite, Split, Workers, choices, photos_at, require_there

if TYPE_CHECKING:
    from edgecsd.index.trials import Recall
    from edgecsd.index.tuning import TuneResult

PANELS = {
    "What the query model gives": ("run", "artifact", "embeddings", "images", "split"),
    "What is tried and chosen": ("recall", "k", "max_ms", "types", "prefer", "mix", "on_disk"),
}


def command(
    store: Annotated[Path, typer.Argument(help="The gallery's feature store.")],
    queries: Annotated[Path, typer.Option(help="Feature store of query photos, by the same gallery model.")],
    out: Annotated[Path, typer.Option(help="Folder for trials, figure and the chosen index.")],
    run: Annotated[Path | None, typer.Option(help="Run folder of the query model.")] = None,
    artifact: Annotated[Path | None, typer.Option(help="Exported file of the query model.")] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help=".npy of what the query model gives, a row an item of the query store.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="The photos of the query store, for --run and --artifact.")
    ] = None,
    recall: Annotated[float, typer.Option(help="Share of the exact first k that must be found.")] = 0.95,
    k: Annotated[int, typer.Option("--k", help="Results a query.")] = 10,
    max_ms: Annotated[
        float | None, typer.Option(help="Most milliseconds a query takes (90th percentile, one thread).")
    ] = None,
    types: Annotated[str, typer.Option(help="Index types to try.")] = "flat,ivf,ivfpq,hnsw",
    prefer: Annotated[
        str, typer.Option(help="Which of those that reach the recall.", **choices(("latency", "size")))
    ] = "latency",
    mix: Annotated[
        bool, typer.Option("--mix", help="Also try lists that are trained on the query model's vectors, too.")
    ] = False,
    on_disk: Annotated[bool, typer.Option("--on-disk", help="Inverted lists stay on disk.")] = False,
    split: Split = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Find the index that reaches a recall soonest, measured with the query model's vectors, and build it.

    Example: edgecsd index tune gallery.store --queries queries.store --run run --images photos --out tuned
    """
    require_there(store, queries, run, artifact, embeddings, images)
    from edgecsd.errors import BadInputError, GateFailedError
    from edgecsd.features.store import FeatureStore
    from edgecsd.index.query_vectors import load_query_vectors
    from edgecsd.index.tuning import CHOSEN, Prefer, tune_index
    from edgecsd.report.drawing.plots import save
    from edgecsd.report.tuning_figures import tuning_figure

    if prefer not in tuple(Prefer):
        raise BadInputError(f"--prefer {prefer}: there are {', '.join(Prefer)}")
    reporter, gallery = console_reporter(), FeatureStore.open(store, verify=True)
    vectors = load_query_vectors(
        gallery,
        FeatureStore.open(queries, verify=True),
        images=photos_at(images, split),
        run=run,
        artifact=artifact,
        embeddings=embeddings,
        workers=workers,
        reporter=reporter,
    )
    result = tune_index(
        gallery,
        vectors,
        out,
        recall=recall,
        k=k,
        max_ms=max_ms,
        types=[name.strip() for name in types.split(",")],
        prefer=prefer,
        mix=mix,
        on_disk=on_disk,
        overwrite=overwrite,
        reporter=reporter,
    )
    points = [(t.candidate, t.p50_ms, t.query_model.mean, t.gallery_model.mean) for t in result.trials]
    chosen = None if result.chosen is None else points[result.trials.index(result.chosen)]
    save(tuning_figure(points, recall, chosen), out / "recall")
    following = f"edgecsd check FILE --index {quoted(out / CHOSEN)} --images PHOTOS"
    finish(as_json, result.as_dict(), text=_text(result), wrote=out, following=None if chosen is None else following)
    if result.chosen is None:
        within = "" if max_ms is None else f" within {max_ms:g} ms"
        raise GateFailedError(
            f"nothing that was tried reaches recall@{k} {recall:g}{within}: the best is {result.best.name} with "
            f"{result.best.query_model.mean:.4f}; lower --recall, raise --max-ms, or try more --types"
        )
    if not result.reached:
        raise GateFailedError(
            f"{result.chosen.name} reaches {_recall(result.query_model)} on the held-out queries only, not {recall:g}: "
            "give more queries, or ask for a higher --recall to be on the safe side"
        )


def _recall(found: Recall | None) -> str:
    return "-" if found is None else f"{found.mean:.4f} +- {found.error:.4f}"


def _text(result: TuneResult) -> str:
    rows = [
        (
            trial.name,
            f"{trial.query_model.mean:.4f}",
            f"{trial.gallery_model.mean:.4f}",
            f"{trial.p50_ms:.2f}",
            f"{trial.p90_ms:.2f}",
            f"{trial.bytes / 1e6:.1f}",
            f"{trial.build_seconds:.1f}",
        )
        for trial in result.trials
    ]
    header = ("index; searched", "query model", "gallery model", "p50 ms", "p90 ms", "MB", "build s")
    lines = [f"recall@{result.k} on {result.tuned_on} queries, by whose vectors:", table(header, rows)]
    if result.chosen is not None:
        lines.append(
            f"chosen: {result.chosen.name}; on {result.held_out} held-out queries recall {_recall(result.query_model)} "
            f"(gallery model {_recall(result.gallery_model)})"
        )
    if result.naive is not None and result.naive != result.chosen:
        lines.append(
            f"tuned with the gallery model's vectors it would be {result.naive.name}, which finds "
            f"{_recall(result.naive_recall)} for the query model's"
        )
    return "\n".join(lines)
