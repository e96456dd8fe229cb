"""edgecsd bench import"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.bench.options import finish_rows
from edgecsd.cli.options import Json


def command(
    source: Annotated[Path, typer.Argument(help="What another tool printed or wrote.")],
    artifact: Annotated[Path | None, typer.Option(help="The exported file that was measured.")] = None,
    on: Annotated[str, typer.Option(help="The device, where the result does not name it.")] = "",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads, where the result does not say.")] = None,
    index: Annotated[
        str | None, typer.Option(help="Gallery index that the result's embeddings, if any, are searched in.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours, of --index.")] = 10,
    out: Annotated[Path | None, typer.Option(help="File that the rows are added to, JSON lines.")] = None,
    as_json: Json = False,
) -> None:
    """Rows from what benchmark_model, onnxruntime_perf_test, AI Hub or a program of bench script measured elsewhere.

    Example: edgecsd bench import log.txt --artifact lite0.tflite --on "Pixel 8, Android 15" --out imported.jsonl
    """
    from edgecsd.measuring.imports import import_rows

    rows = import_rows(source, artifact=artifact, device=on, threads=threads, index=index, k=k, out=out)
    finish_rows(rows, out, as_json)
