"""The command line: one file a command; each parses, calls one library function and prints.

A command's module is loaded when the command is called: `edgecsd --help` reads COMMANDS alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from edgecsd import __version__
from edgecsd.cli.console import end_with
from edgecsd.cli.options import arrange, remember


class Entry(NamedTuple):
    """Where a command stands, what it does in one line, and its panel in `edgecsd --help`."""

    module: str
    summary: str
    panel: str


GALLERY, QUERY, FILE, PROOF, START = (
    "The gallery: vectors and index",
    "The query model: train and compare",
    "The file for the phone",
    "Before shipping, and in service",
    "Start here",
)
COMMANDS = {  # in the order in which one uses them
    "demo": Entry("demo", "Run the whole job on real photos: extract, distil, export, check, measure.", START),
    "doctor": Entry("doctor", "Show what is installed, what works here, and what to install for the rest.", START),
    "extract": Entry("extract", "Embed photos with the gallery model into a feature store.", GALLERY),
    "import-features": Entry("import_features", "Make a feature store from vectors that already exist.", GALLERY),
    "whiten": Entry("whiten", "PCA-whiten a feature store.", GALLERY),
    "concatenate": Entry("concatenate", "Join the features of several gallery models in one store.", GALLERY),
    "index": Entry("index", "Build a gallery index; merge, push and tune indexes.", GALLERY),
    "models": Entry("models", "List query networks by size, time and target; gallery models too.", QUERY),
    "distill": Entry("distill", "Distil a query model against cached gallery features; no labels.", QUERY),
    "adapt": Entry("adapt", "Adapt a query model to a gallery of other kinds of photos.", QUERY),
    "evaluate": Entry("evaluate", "Measure mAP, mP@k, recall@k and overlap@k; compare two models.", QUERY),
    "report": Entry("report", "Write a page: queries with what both models find, maps, curves.", QUERY),
    "export": Entry("export", "Export to one file for ONNX, TFLite or Core ML, quantised or not.", FILE),
    "precision": Entry("precision", "Find the smallest file that keeps retrieval, and export it.", FILE),
    "inspect": Entry("inspect", "Show what is in a file: metadata, sizes, operators.", FILE),
    "golden": Entry("golden", "Write a golden pack: photos and results by which an app tests itself.", FILE),
    "deliver": Entry("deliver", "Export, check, measure and pack for one kind of device.", FILE),
    "check": Entry("check", "Does this file find in this index what the gallery model would find?", PROOF),
    "gate": Entry("gate", "Judge saved evidence again by other thresholds; runs no model.", PROOF),
    "bench": Entry("bench", "Measure latency, memory and parity, here and on devices.", PROOF),
    "matrix": Entry("matrix", "Which app version may talk to which index; the order of a roll-out.", PROOF),
    "wire": Entry("wire", "Measure what compressed vectors cost in retrieval.", PROOF),
    "serve": Entry("serve", "Serve the gallery's search, and a page that makes a phone the query device.", PROOF),
}


def load(name: str) -> Any:
    """The command of that name, ready to be called; its module is imported."""
    global _called
    module = _called = import_module(f"edgecsd.cli.{COMMANDS[name].module}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command(name)(module.command)
    command: Any = typer.main.get_command(app)
    command.name = name
    for each in getattr(command, "commands", {"": command}).values():
        arrange(each, getattr(sys.modules[each.callback.__module__], "PANELS", {}))
    return command


_called: ModuleType | None = None  # the module of the command that runs: what it says of an interruption


class LoadedWhenCalled(TyperGroup):
    """The commands of COMMANDS: help shows their summaries, a call loads the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands or cmd_name not in COMMANDS:
            return self.commands.get(cmd_name)
        entry = COMMANDS[cmd_name]
        return TyperCommand(cmd_name, help=entry.summary, rich_help_panel=entry.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = load(args[0])
        found = super().resolve_command(ctx, args)
        remember(found[1])
        return found


app = typer.Typer(
    name="edgecsd",
    cls=LoadedWhenCalled,
    help="Small query models for a gallery that a large model embedded: distil, export, check, measure.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 a gate failed, 2 usage or bad input, 3 incompatible pair, 4 missing back end, "
    "130 interrupted.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    del version


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; every error becomes one clear line on stderr and its exit code. arguments: by default sys.argv."""
    end_with(
        lambda: app(arguments, standalone_mode=False),
        "edgecsd",
        lambda: getattr(_called, "INTERRUPTED", "finished parts are kept: the same command goes on from there"),
    )
