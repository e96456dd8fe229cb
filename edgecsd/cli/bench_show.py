"""edgecsd bench show"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.bench_table import rows_table
from edgecsd.cli.console import Json, finish


def command(
    files: Annotated[list[Path], typer.Argument(help="Result files of bench, bench import and serve.")],
    plot: Annotated[
        Path | None, typer.Option(help="Folder for figures: distribution, and latency against what is found.")
    ] = None,
    as_json: Json = False,
) -> None:
    """One table, and figures, of rows that were measured on different devices, in browsers and by other tools.

    Example: edgecsd bench show bench.jsonl imported.jsonl --plot figures
    """
    from edgecsd.bench.rows_file import read_rows

    rows = [row for file in files for row in read_rows(file)]
    document = {"rows": [row.model_dump(mode="json") for row in rows]}
    text, written = rows_table(rows), []
    if plot is not None:
        from edgecsd.bench.plots import plot_rows

        written = [str(path) for path in plot_rows(rows, plot)]
        text += "".join(f"\nwrote {path}" for path in written)
    finish(as_json, {**document, "figures": written}, text=text)
