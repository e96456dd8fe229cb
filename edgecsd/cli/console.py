"""What every command prints with: progress on stderr, the result on stdout as text or as one JSON document.

An error is one line on stderr and an exit code, never a traceback.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import typer
from typer.core import TyperGroup

from edgecsd.cli.options import remember, with_options
from edgecsd.errors import INTERRUPTED_EXIT_CODE, EdgecsdError
from edgecsd.progress import ConsoleReporter


def console_reporter() -> ConsoleReporter:
    """Progress and messages on stderr, with this command's options in the place of the library's parameters."""
    return ConsoleReporter(with_options)


def finish(
    as_json: bool, document: dict[str, Any], *, text: str = "", wrote: Path | None = None, following: str | None = None
) -> None:
    """Print the result: the JSON document, or `text`, what was written where, and the next command."""
    if as_json:
        print(json.dumps(_plain(document), indent=2, allow_nan=False))
        return
    if text:
        print(with_options(text))
    if wrote is not None:
        print(f"wrote {wrote}")
    if following:
        print(f"next: {following}")


def quoted(path: Path | str) -> str:
    """As a shell takes it, for commands that are to be pasted."""
    return shlex.quote(str(path))


def run_option(file: Path, run: Path | None) -> str:
    """ " --run RUN", with a space before it, for a file that does not lie in RUN/exports, where check finds its run."""
    beside = file.resolve().parent.parent
    if (beside / "query_model.json").is_file() and (run is None or run.resolve() == beside):
        return ""
    return f" --run {'RUN' if run is None else quoted(run)}"


def quoted_photos(images: Path, split: str | None) -> str:
    """The photos of a command, with --split if it was given, as arguments of the next one."""
    return quoted(images) if split is None else f"{quoted(images)} --split {quoted(split)}"


def _plain(value: Any) -> Any:
    """Plain JSON values: paths as text, NaN and infinity, which JSON has not, as null."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces; the first to the left, figures to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def store_document(store: Any) -> dict[str, Any]:
    """A feature store in JSON."""
    return {
        "store": str(store.path),
        "count": store.count,
        "dim": store.space.dim,
        "fingerprint": store.space.fingerprint,
        "views": store.views.count,
        "unreadable": store.manifest["unreadable"],
    }


class DefaultCommandGroup(TyperGroup):
    """A first word that is no command's name belongs to `default`; what is called like a command is written ./NAME."""

    default: ClassVar[str]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = (
            args[0] in {*self.commands, *ctx.help_option_names} if args else ctx.resilient_parsing
        )  # a shell completes
        return super().parse_args(ctx, args if named else [self.default, *args])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        found = super().resolve_command(ctx, args)
        remember(found[1])
        return found


class DefaultsToBuild(DefaultCommandGroup):
    default = "build"


class DefaultsToMeasure(DefaultCommandGroup):
    default = "measure"


def end_with(act: Callable[[], object], program: str, kept: Callable[[], str]) -> NoReturn:
    """Run `act` and exit with its code. kept: says what an interruption leaves."""
    try:
        code = act()
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED_EXIT_CODE
    except EdgecsdError as error:
        _fail(program, with_options(str(error)), error.exit_code)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        advice = "; free some space and run the same command again: finished parts are kept" if full else ""
        _fail(program, f"{error.strerror or error}: {error.filename or ''}{advice}", 2)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            _fail(program, error.format_message(), 2)
        if os.environ.get("EDGECSD_DEBUG"):
            raise
        text = f"internal error, which is a bug: {type(error).__name__}: {error}"
        _fail(program, f"{text}; EDGECSD_DEBUG=1 shows the traceback", 70)
    if code == INTERRUPTED_EXIT_CODE:  # typer turns the key into this code
        _fail(program, f"interrupted; {kept()}", INTERRUPTED_EXIT_CODE)
    sys.exit(code if isinstance(code, int) else 0)  # the code of typer.Exit comes back as the app's value


def _fail(program: str, text: str, code: int) -> NoReturn:
    print(f"{program}: error: {text}", file=sys.stderr)
    sys.exit(code)
