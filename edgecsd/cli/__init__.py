"""The command line: one file a command; each parses, calls one library function and prints."""

from __future__ import annotations

import typer

from edgecsd import __version__
from edgecsd.cli import (
    adapt,
    check,
    concatenate,
    demo,
    distill,
    doctor,
    evaluate,
    export,
    extract,
    gate,
    golden,
    import_features,
    inspect,
    matrix,
    report,
    serve,
    whiten,
    wire,
)
from edgecsd.cli.bench import imported as bench_import
from edgecsd.cli.bench import measure as bench
from edgecsd.cli.bench import script as bench_script
from edgecsd.cli.bench import show as bench_show
from edgecsd.cli.console import end_with
from edgecsd.cli.index import build as index
from edgecsd.cli.index import merge as index_merge
from edgecsd.cli.index import push as index_push
from edgecsd.cli.index import tune as index_tune

app = typer.Typer(
    name="edgecsd",
    help="Small query models for a gallery that a large model embedded: distil, export, check, measure.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 a gate failed, 2 usage or bad input, 3 incompatible pair, 4 missing back end, "
    "130 interrupted.",
)
for name, command in (
    ("extract", extract.command),
    ("import-features", import_features.command),
    ("whiten", whiten.command),
    ("concatenate", concatenate.command),
    ("distill", distill.command),
    ("adapt", adapt.command),
    ("evaluate", evaluate.command),
    ("export", export.command),
    ("golden", golden.command),
    ("check", check.command),
    ("gate", gate.command),
    ("matrix", matrix.command),
    ("serve", serve.command),
    ("inspect", inspect.command),
    ("report", report.command),
    ("doctor", doctor.command),
    ("wire", wire.command),
    ("demo", demo.command),
):
    app.command(name)(command)
index.app.command("merge")(index_merge.command)
index.app.command("push")(index_push.command)
index.app.command("tune")(index_tune.command)
app.add_typer(index.app, name="index")
bench.app.command("import")(bench_import.command)
bench.app.command("script")(bench_script.command)
bench.app.command("show")(bench_show.command)
app.add_typer(bench.app, name="bench")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    del version


def main() -> None:
    """Run a command; every error becomes one clear line on stderr and its exit code."""
    end_with(
        lambda: app(standalone_mode=False), "edgecsd", "finished parts are kept: the same command goes on from there"
    )
