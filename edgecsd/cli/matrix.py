"""edgecsd matrix"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, table
from edgecsd.cli.options import Json, Split

if TYPE_CHECKING:
    from edgecsd.checking.matrix.result import MatrixResult, Pairing
    from edgecsd.metrics.bootstrap import Interval


def command(
    artifact: Annotated[list[Path], typer.Option(help="Exported file, once for each app version, the oldest first.")],
    index: Annotated[list[Path], typer.Option(help="Gallery index, once for each, the oldest first.")],
    images: Annotated[
        Path, typer.Option(help="Photos like the queries to come: a folder, a list, tars, Parquet or a URL.")
    ],
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            help="Store with the gallery model's features of the photos, one a space (default: run the gallery model)."
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Store with labels or CSV list (path, label) of the gallery's items: adds mAP.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the gallery model, where it has to be run and needs a file.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Depth of the overlap.")] = 10,
    limit: Annotated[int | None, typer.Option(min=2, help="Use this many photos, spread evenly.")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    split: Split = None,
    as_json: Json = False,
) -> None:
    """Which app version may talk to which index, and what a roll-out may do in which order. Exit 1: an index has none.

    Example: edgecsd matrix --artifact v1.onnx --artifact v2.onnx --index old.index --index new.index --images photos
    """
    from edgecsd.checking.matrix.matrix import matrix
    from edgecsd.photos.finding import find_images

    result = matrix(
        artifact,
        index,
        find_images(images, split=split),
        references=reference or (),
        labels=labels,
        weights=weights,
        k=k,
        limit=limit,
        threads=threads,
        reporter=console_reporter(),
    )
    finish(as_json, result.as_dict(), text=_text(result))
    if not result.passed:
        raise typer.Exit(1)


def _text(result: MatrixResult) -> str:
    header = ("artifact", "index", "may talk", f"overlap@{result.k}", "first right", "mAP")
    rows = [_row(pairing) for pairing in result.pairings]
    refused = [pairing.reason for pairing in result.pairings if not pairing.compatible]
    notes = f"{result.queries} photos ({result.left_out} left out); {result.relevance}"
    verdict = "PASS: every index has an artifact that may be searched in it"
    if not result.passed:
        verdict = f"FAIL: no artifact may be searched in {', '.join(result.unsearchable)}"
    parts = [table(header, rows), notes, *(f"refused: {reason}" for reason in refused)]
    return "\n".join([*parts, "roll-out:", *(f"- {line}" for line in result.rollout), verdict])


def _row(pairing: Pairing) -> tuple[str, ...]:
    if not pairing.compatible:
        return pairing.artifact, pairing.index, "NO", "-", "-", "-"
    figures = (pairing.overlap, pairing.right, pairing.average_precision)
    return pairing.artifact, pairing.index, "yes", *(_interval(figure) for figure in figures)


def _interval(figure: Interval | None) -> str:
    from edgecsd.metrics.bootstrap import with_interval

    return "-" if figure is None else with_interval(figure)
