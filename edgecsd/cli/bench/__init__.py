"""edgecsd bench: one file a sub-command; `measure` is meant where none is named."""

from __future__ import annotations

import typer

from edgecsd.cli.bench import browser, compare, imported, measure, native, script, show, soak
from edgecsd.cli.console import DefaultsToMeasure

app = typer.Typer(
    add_completion=False,
    cls=DefaultsToMeasure,
    help="Measure latency, memory and parity of exported files: edgecsd bench FILE, which is short for edgecsd bench "
    "measure FILE; the other commands measure elsewhere, for longer, or read what was measured.\n\n"
    "Example: edgecsd bench run/exports/tf_efficientnet_lite0-w8a8.tflite --images photos --threads 1",
)
for name, command in (
    ("measure", measure.command),
    ("compare", compare.command),
    ("soak", soak.command),
    ("browser", browser.command),
    ("native", native.command),
    ("script", script.command),
    ("import", imported.command),
    ("show", show.command),
):
    app.command(name)(command)
