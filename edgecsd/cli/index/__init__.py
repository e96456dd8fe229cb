"""edgecsd index: one file a sub-command; `build` is meant where none is named."""

from __future__ import annotations

import typer

from edgecsd.cli.console import DefaultsToBuild
from edgecsd.cli.index import build, merge, push, tune

app = typer.Typer(
    add_completion=False,
    cls=DefaultsToBuild,
    help="Build a gallery index over a feature store: edgecsd index STORE --out INDEX, which is short for edgecsd "
    "index build STORE --out INDEX; the other commands merge indexes, push one to Milvus, and tune.\n\n"
    "Example: edgecsd index gallery.store --out gallery.index --type ivf",
)
for name, command in (
    ("build", build.command),
    ("merge", merge.command),
    ("push", push.command),
    ("tune", tune.command),
):
    app.command(name)(command)
