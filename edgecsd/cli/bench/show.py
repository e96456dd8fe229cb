"""edgecsd bench show"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.bench.table import rows_table
from edgecsd.cli.console import console_reporter, finish, quoted
from edgecsd.cli.options import Json
from edgecsd.errors import BadInputError

if TYPE_CHECKING:
    from edgecsd.measuring.schema import BenchRow


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
    rows = [row for file in files for row in _rows(file)]
    document = {"rows": [row.model_dump(mode="json") for row in rows]}
    text, written = rows_table(rows), []
    if plot is not None:
        from edgecsd.measuring.plots import plot_rows

        written = [str(path) for path in plot_rows(rows, plot)]
        text += "".join(f"\nwrote {path}" for path in written)
    finish(as_json, {**document, "figures": written}, text=text)


def _rows(file: Path) -> list[BenchRow]:
    from edgecsd.measuring.rows import read_rows

    rows = read_rows(file, console_reporter())
    if not rows:
        raise BadInputError(f"{file}: holds no bench row; edgecsd bench FILE --out {quoted(file)} measures some")
    return rows
