"""edgecsd adapt"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, quoted
from edgecsd.cli.options import Json, Overwrite, require_there


def command(
    run: Annotated[Path, typer.Argument(help="The run folder of a distilled query model.")],
    gallery: Annotated[
        Path, typer.Option(help="Feature store of the gallery that will be searched; 1,000 vectors and more.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write, to export from.")],
    error: Annotated[
        float | None,
        typer.Option(
            help="Variance of the query model's error in a dimension, by the slope squared (as the photos that "
            "distill held out gave it)."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Adapt a query model to a gallery of other kinds of photos than it was distilled on: no photos, no training.

    The gallery's vectors show in which directions a query can mean something; the others are turned down (a Wiener
    filter), inside the projection, so that the file stays as large and as fast. Where the training photos are the
    gallery it finds less.

    Example: edgecsd adapt run --gallery gallery.store --out adapted
    """
    require_there(run, gallery)
    from edgecsd.training.adapt import adapt

    made = adapt(run, gallery, out, error=error, overwrite=overwrite, reporter=console_reporter())
    finish(
        as_json,
        {
            "run": str(made.path),
            "count": made.count,
            "error": made.ratio,
            "dimensions": made.dimensions,
            "dim": made.dim,
        },
        text=f"filtered by {made.count} vectors and an error of {made.ratio:.2e}: {made.dimensions:.0f} of {made.dim} "
        "dimensions count",
        wrote=made.path,
        following=f"edgecsd export {quoted(made.path)} --target tflite, or edgecsd evaluate --gallery "
        f"{quoted(gallery)} --queries QUERIES.store --images QUERIES --run {quoted(made.path)} to compare",
    )
