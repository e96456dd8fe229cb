"""Options that the sub-commands of edgecsd bench share, and how their rows are printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.bench.table import exit_code, rows_table
from edgecsd.cli.console import finish
from edgecsd.cli.options import choices

if TYPE_CHECKING:
    from edgecsd.measuring.schema import BenchRow

LENGTH, DEVICE, NEIGHBOURS = "How long", "Where", "What the embeddings find"
PROTOCOLS = ("quick", "report")

Images = Annotated[Path | None, typer.Option(help="Real photos to feed (default: synthetic ones, which the row says).")]
Run = Annotated[Path | None, typer.Option(help="The run they were exported from (found by itself in RUN/exports).")]
Threads = Annotated[list[int] | None, typer.Option(min=1, help="Threads; may be repeated (1 and 4).")]
Protocol = Annotated[
    str,
    typer.Option(
        help="quick: 200 runs, 10 s; report: 1024 runs, 60 s, three repeats.",
        rich_help_panel=LENGTH,
        **choices(PROTOCOLS),
    ),
]
MinRuns = Annotated[int | None, typer.Option(min=1, help="Other than the protocol's.", rich_help_panel=LENGTH)]
MinSeconds = Annotated[float | None, typer.Option(min=0, help="Other than the protocol's.", rich_help_panel=LENGTH)]
TimeoutSeconds = Annotated[
    float | None,
    typer.Option(
        help="Give one measuring process up after this (default: enough for 2 s a run).", rich_help_panel=LENGTH
    ),
]
Device = Annotated[
    str | None, typer.Option(help="ssh://USER@HOST[:PORT] or adb[:SERIAL] (default: here).", rich_help_panel=DEVICE)
]
DevicePython = Annotated[
    str | None, typer.Option(help="The Python there (default: python3 on its PATH).", rich_help_panel=DEVICE)
]
SshConfig = Annotated[
    Path | None, typer.Option(help="Configuration for ssh, in place of your own.", rich_help_panel=DEVICE)
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the temporary folder on the device.", rich_help_panel=DEVICE)]
Index = Annotated[
    str | None,
    typer.Option(
        help="Gallery index (folder or milvus:URI#COLLECTION): how many neighbours each row finds.",
        rich_help_panel=NEIGHBOURS,
    ),
]
K = Annotated[int, typer.Option("--k", min=1, help="Neighbours, of --index.", rich_help_panel=NEIGHBOURS)]
Out = Annotated[
    Path | None, typer.Option(help="File for the rows; rows that are there already are not measured again.")
]
Added = Annotated[Path | None, typer.Option(help="File that the rows are added to, JSON lines.")]
Plot = Annotated[
    Path | None, typer.Option(help="Folder for figures: distribution, latency against what is found, minutes.")
]


def finish_rows(rows: Sequence[BenchRow], out: Path | None, as_json: bool) -> None:
    """Print the rows; exit 1 if one failed, 4 if none can be measured there."""
    document = {"rows": [row.model_dump(mode="json") for row in rows], "out": out}
    finish(as_json, document, text=rows_table(rows), wrote=out)
    if code := exit_code(rows):
        raise typer.Exit(code)
