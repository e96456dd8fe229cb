"""edgecsd check"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import ConsoleReporter, Json, Split, finish, table


def command(
    file: Annotated[Path, typer.Argument(help="The exported file.")],
    index: Annotated[Path, typer.Option(help="The gallery index that it will be searched in.")],
    images: Annotated[Path, typer.Option(help="Photos like the queries to come: a folder or a CSV list.")],
    run: Annotated[
        Path | None, typer.Option(help="The run it was exported from (found by itself in RUN/exports).")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Store with the gallery model's features of the photos (default: run the gallery model)."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the gallery model, where it has to be run and needs a file.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Depth of the overlap.")] = 10,
    limit: Annotated[int | None, typer.Option(min=2, help="Use this many photos, spread evenly.")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    min_overlap: Annotated[
        float | None, typer.Option(help="Gate: overlap@k with the gallery model's results, at least (0.3).")
    ] = None,
    max_overlap_loss: Annotated[
        float | None,
        typer.Option(help="Gate: relative loss of overlap against the torch model, at most (by precision)."),
    ] = None,
    min_cosine_mean: Annotated[
        float | None, typer.Option(help="Gate: mean cosine to the torch model, at least (by precision).")
    ] = None,
    min_cosine: Annotated[
        float | None, typer.Option(help="Gate: lowest cosine to the torch model, at least (by precision).")
    ] = None,
    split: Split = None,
    as_json: Json = False,
) -> None:
    """Does this file find, in this index, what the gallery model would find? Exit 1: a gate failed; 3: incompatible.

    Example: edgecsd check run/exports/tf_efficientnet_lite0-w8a8.tflite --index gallery.index --images photos
    """
    from edgecsd.check import check

    given = {
        "min_overlap": min_overlap,
        "max_overlap_loss": max_overlap_loss,
        "min_cosine_mean": min_cosine_mean,
        "min_cosine": min_cosine,
    }
    result = check(
        file,
        index,
        images,
        split=split,
        run=run,
        reference=reference,
        weights=weights,
        k=k,
        limit=limit,
        threads=threads,
        thresholds={name: value for name, value in given.items() if value is not None},
        reporter=ConsoleReporter(),
    )
    rows = [
        (
            gate.name,
            f"{gate.figure:.6f}",
            f"{'<=' if gate.at_most else '>='} {gate.threshold:g}",
            "pass" if gate.passed else "FAIL",
        )
        for gate in result.gates
    ]
    verdict = "PASS: may ship against this index" if result.passed else "FAIL: must not ship against this index"
    figures = result.figures
    notes = (
        f"{result.images} photos ({result.unreadable} left out), run by {result.runtime}; "
        f"overlap@{k} {figures['overlap']:.4f}, of the torch model {figures['overlap_torch']:.4f}; "
        f"first hit kept {figures['top1_kept']:.4f}"
    )
    finish(as_json, result.as_dict(), text="\n".join([table(("gate", "measured", "needed", ""), rows), notes, verdict]))
    if not result.passed:
        raise typer.Exit(1)
