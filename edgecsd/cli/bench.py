"""edgecsd bench"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import ConsoleReporter, Json, Overwrite, Split, finish, table


def command(
    files: Annotated[list[Path], typer.Argument(help="Exported files.")],
    images: Annotated[Path | None, typer.Option(help="Real photos to feed (default: synthetic ones, which the row says).")] = None,
    run: Annotated[Path | None, typer.Option(help="The run they were exported from (found by itself in RUN/exports).")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Threads; may be repeated (1 and 4).")] = None,
    protocol: Annotated[str, typer.Option(help="quick (200 runs, 10 s) or report (1024 runs, 60 s, three repeats).")] = "quick",
    min_runs: Annotated[int | None, typer.Option(min=1, help="Other than the protocol's.")] = None,
    min_seconds: Annotated[float | None, typer.Option(min=0, help="Other than the protocol's.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the rows; rows that are there already are not measured again.")] = None,
    split: Split = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure latency, memory and parity on this host, each in a fresh process. Host rows are not phone rows.

    Example: edgecsd bench run/exports/tf_efficientnet_lite0-w8a8.tflite --images photos --threads 1
    """
    from edgecsd.bench.run import bench

    result = bench(
        files, images=images, split=split, run=run, threads=tuple(threads or (1, 4)), protocol=protocol, min_seconds=min_seconds,
        min_runs=min_runs, out=out, overwrite=overwrite, reporter=ConsoleReporter(),
    )  # fmt: skip
    del table
    finish(as_json, {"rows": [row.model_dump(mode="json") for row in result.rows]}, wrote=out)
