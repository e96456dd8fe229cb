"""edgecsd bench --device browser and --device adb-browser[:SERIAL]: the phone page's rows, printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgecsd.cli.console import ConsoleReporter, finish, table
from edgecsd.errors import BadInputError

if TYPE_CHECKING:
    from edgecsd.serve.reports import PhoneRow


def is_browser(device: str | None) -> bool:
    """Whether --device names a browser."""
    return device is not None and device.partition(":")[0] in ("browser", "adb-browser")


def measure_in_browser(
    device: str, files: Sequence[Path], given: Mapping[str, Any], refused: Mapping[str, Any], out: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """given: arguments of bench_in_browser; refused: options that a browser cannot honour, by their names."""
    from edgecsd.bench.browser import BROWSER, bench_in_browser, bench_in_phone_browser

    if wrong := [name for name, value in refused.items() if value]:
        raise BadInputError(f"{wrong[0]} cannot be honoured with --device {device}: leave it out")
    reporter = ConsoleReporter()
    if device == BROWSER:
        rows = bench_in_browser(files, **given, out=out, reporter=reporter)
    elif device.startswith(f"{BROWSER}:"):
        raise BadInputError(f"--device {device}: a browser here has no serial number; give --device browser")
    else:
        chosen = {name: given[name] for name in ("images", "timeout_seconds")}
        for name in ("threads", "min_runs", "min_seconds"):
            if name in given and given[name] not in (None, ()):
                raise BadInputError(f"--{name.replace('_', '-')}: it is chosen on the phone's page; leave it out")
        rows = bench_in_phone_browser(files, device, **chosen, out=out, reporter=reporter)
    document = {"rows": [row.model_dump(mode="json") for row in rows], "out": out}
    finish(as_json, document, text=page_table(rows), wrote=out)
    if any(row.figures is None for row in rows):
        raise typer.Exit(1)


def page_table(rows: Sequence[PhoneRow]) -> str:
    """Rows of the phone page; browsers tell neither CPU time nor memory."""
    header = ("file", "back end", "threads", "status", "p90 ms", "p50 ms", "first ms", "cold ms", "runs", "cosine")
    lines = [table(header, [_cells(row) for row in rows])]
    lines += [f"{row.file}: {row.reason}" for row in rows if row.reason]
    lines += sorted({f"{row.provenance}: {row.label}; input: {row.input_count} {row.input}" for row in rows})
    return "\n".join(lines)


def _cells(row: PhoneRow) -> tuple[str, ...]:
    figures = row.figures
    times = (figures.p90_ms, figures.p50_ms, figures.first_ms, figures.cold_ms) if figures else (None,) * 4
    shown = tuple("-" if value is None else f"{value:.2f}" for value in times)
    runs, cosine = str(figures.runs) if figures else "-", f"{row.parity.cosine_mean:.5f}" if row.parity else "-"
    return (row.file, row.backend, str(row.threads), row.status.value, *shown, runs, cosine)
