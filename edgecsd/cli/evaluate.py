"""edgecsd evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import ConsoleReporter, Json, Split, Workers, finish, table


def command(
    gallery: Annotated[Path, typer.Option(help="Feature store of the gallery.")],
    queries: Annotated[Path, typer.Option(help="Feature store of the queries, by the same gallery model.")],
    images: Annotated[Path | None, typer.Option(help="The photos of the query store.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder of a query model to score.")] = None,
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
    split: Split = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Symmetric and asymmetric mAP, mP@k, recall@k and overlap@k with the gallery model's own ranking.

    Example: edgecsd evaluate --gallery gallery.store --queries queries.store --images query-photos --run run
    """
    from edgecsd.evaluate import evaluate

    result = evaluate(
        gallery,
        queries,
        images=images,
        split=split,
        run=run,
        artifact=artifact,
        gallery_images=gallery_images,
        gallery_split=gallery_split,
        labels=labels,
        relevance_k=relevance_k,
        workers=workers,
        reporter=ConsoleReporter(),
    )
    depths = list(result.rows[0].precision)
    header = [
        "",
        "mAP",
        *(f"mP@{k}" for k in depths),
        *(f"recall@{k}" for k in depths),
        *(f"overlap@{k}" for k in depths),
    ]
    rows = [
        [
            row.name,
            f"{row.mean_average_precision:.4f}",
            *(f"{figures[k]:.4f}" for figures in (row.precision, row.recall, row.overlap) for k in depths),
        ]
        for row in result.rows
    ]
    notes = f"{result.queries} queries, gallery of {result.gallery}; {result.relevance}; {result.protocol}"
    document = {
        "queries": result.queries,
        "gallery": result.gallery,
        "relevance": result.relevance,
        "protocol": result.protocol,
        "rows": [vars(row) for row in result.rows],
    }
    finish(as_json, document, text=table(header, rows) + "\n" + notes)
