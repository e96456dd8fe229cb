"""edgecsd report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import console_reporter, finish
from edgecsd.cli.options import Json, Overwrite, Split, Workers, photos_at

PANELS = {
    "The gallery's photos": ("gallery_images", "gallery_split"),
    "What is shown": ("show", "depth", "labels", "study", "seed"),
}


def command(
    run: Annotated[Path, typer.Argument(help="The run folder of the query model.")],
    gallery: Annotated[Path, typer.Option(help="Feature store of the gallery.")],
    queries: Annotated[Path, typer.Option(help="Feature store of the queries, by the same gallery model.")],
    images: Annotated[Path, typer.Option(help="The photos of the query store: a folder or a CSV list.")],
    out: Annotated[Path, typer.Option(help="Folder to write the report to.")],
    gallery_images: Annotated[
        Path | None, typer.Option(help="The photos of the gallery store; without them results are shown by id.")
    ] = None,
    gallery_split: Annotated[str | None, typer.Option(help="Like --split, for --gallery-images.")] = None,
    study: Annotated[Path | None, typer.Option(help="JSON file of a study, whose plots are added.")] = None,
    show: Annotated[int, typer.Option(min=1, max=200, help="Queries to show.")] = 12,
    depth: Annotated[int, typer.Option(min=1, max=50, help="Retrieved images to show of each query and model.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of queries and of the maps.")] = 0,
    labels: Annotated[
        bool | None,
        typer.Option(
            "--labels/--no-labels",
            help="Mark results by labels (default where both stores have them), or by what both models found.",
        ),
    ] = None,
    split: Split = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """A page to look at: queries with what both models find, embedding maps, curves. One HTML file, PNG and SVG.

    Example: edgecsd report run --gallery gallery.store --queries queries.store --images query-photos --out report
    """
    from edgecsd.photos.finding import find_images
    from edgecsd.report.run_page.report import ReportOptions, report

    result = report(
        run,
        gallery,
        queries,
        find_images(images, split=split),
        out,
        gallery_images=photos_at(gallery_images, gallery_split),
        study=study,
        options=ReportOptions(show, depth, seed, labels),
        overwrite=overwrite,
        workers=workers,
        reporter=console_reporter(),
    )
    document = {
        "report": str(result.page),
        "files": [str(file) for file in result.files],
        "figures": result.figures,
        "shown": list(result.shown),
        "problems": list(result.problems),
    }
    text = ", ".join(f"{name} {value:.4f}" for name, value in result.figures.items())
    finish(as_json, document, text=text, wrote=out, following=f"open {result.page} in a browser")
