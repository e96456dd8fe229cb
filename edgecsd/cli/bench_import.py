"""edgecsd bench import"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import Json, finish, table

if TYPE_CHECKING:
    from edgecsd.bench.tool_row import ToolRow


def command(
    source: Annotated[Path, typer.Argument(help="What another tool printed or wrote.")],
    artifact: Annotated[Path | None, typer.Option(help="The exported file that was measured.")] = None,
    on: Annotated[str, typer.Option(help="The device, where the result does not name it.")] = "",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads, where the result does not tell.")] = None,
    out: Annotated[Path | None, typer.Option(help="File that the rows are added to, JSON lines.")] = None,
    as_json: Json = False,
) -> None:
    """Rows from what benchmark_model, onnxruntime_perf_test, AI Hub or a program of bench script measured elsewhere.

    Example: edgecsd bench import log.txt --artifact lite0.tflite --on "Pixel 8, Android 15" --out imported.jsonl
    """
    from edgecsd.bench.imports import import_rows

    rows = import_rows(source, artifact=artifact, device=on, threads=threads, out=out)
    finish_tool_rows(rows, out, as_json)


def finish_tool_rows(rows: Sequence[ToolRow], out: Path | None, as_json: bool) -> None:
    """Print them; exit 1 if one failed."""
    document = {"rows": [row.model_dump(mode="json") for row in rows], "out": out}
    finish(as_json, document, text=tool_table(rows), wrote=out)
    if any(row.figures is None for row in rows):
        raise typer.Exit(1)


def tool_table(rows: Sequence[ToolRow]) -> str:
    """Rows of other tools; "-" for what a tool did not tell."""
    header = ("file", "threads", "units", "status", "mean ms", "p50 ms", "p90 ms", "p95 ms", "first ms", "cosine")
    lines = [table(header, [_cells(row) for row in rows])]
    lines += [f"{row.file}: {row.reason}" for row in rows if row.reason]
    lines += sorted({f"{row.provenance}: {row.label}" for row in rows})
    if any(row.figures and row.parity is None for row in rows):
        lines.append("no embeddings came with these times: whether they were right there is not known")
    return "\n".join(lines)


def _cells(row: ToolRow) -> tuple[str, ...]:
    figures = row.figures
    told = (
        (figures.mean_ms, figures.p50_ms, figures.p90_ms, figures.p95_ms, figures.first_ms) if figures else (None,) * 5
    )
    times = tuple("-" if value is None else f"{value:.2f}" for value in told)
    if figures is not None and figures.mean_ms is None and figures.estimate_ms is not None:
        times = (f"about {figures.estimate_ms:.2f}", *times[1:])
    threads, units = "-" if row.threads is None else str(row.threads), row.compute_units or "-"
    cosine = f"{row.parity.cosine_mean:.5f}" if row.parity else "-"
    return (Path(row.file).name, threads, units, row.status.value, *times, cosine)
