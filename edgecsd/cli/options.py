"""Options: shared by commands, arranged in panels, and put in the place of the library's parameters in messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecsd.errors import PARAMETER

if TYPE_CHECKING:
    from edgecsd.photos.images import ImageSet

RUNNING = "Running and printing"  # the panel of options that most commands share

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on stdout and nothing else there.", rich_help_panel=RUNNING),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at --out.", rich_help_panel=RUNNING)]
Split = Annotated[
    str | None, typer.Option("--split", help="Of a CSV list, only the rows whose 'split' column says this.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Decoding threads (default: one a core).", rich_help_panel=RUNNING),
]


def choices(values: Iterable[str]) -> dict[str, Any]:
    """What shows the allowed values of a text option in its help, and completes them in the shell."""
    allowed = [str(value) for value in values]
    return {
        "metavar": f"[{' | '.join(allowed)}]",
        "autocompletion": lambda incomplete: [value for value in allowed if value.startswith(incomplete)],
    }


def arrange(command: Any, panels: Mapping[str, Sequence[str]]) -> Any:
    """The command with its options in titled panels, in the order of `panels` (title -> parameters).

    Options in no panel come first, those of RUNNING last. Raises ValueError for a name that is no parameter.
    """
    title_of = {name: title for title, names in panels.items() for name in names}
    if unknown := set(title_of) - {parameter.name for parameter in command.params}:
        raise ValueError(f"{command.name}: no such parameters: {sorted(unknown)}")
    for parameter in command.params:
        if parameter.name in title_of:
            parameter.rich_help_panel = title_of[parameter.name]
    places = {title: place for place, title in enumerate([None, *panels, RUNNING])}
    command.params.sort(key=lambda parameter: places.get(getattr(parameter, "rich_help_panel", None), 0))
    return command


_spelling: dict[str, tuple[str, str]] = {}  # of the command that runs: parameter -> option, and the option for False


def remember(command: Any) -> None:
    """Messages from now on are about this command's options."""
    _spelling.clear()
    for parameter in command.params:
        opts = [option for option in parameter.opts if option.startswith("--")]
        if opts:
            off = next(iter(parameter.secondary_opts), f"--no-{opts[0][2:]}")
            _spelling[parameter.name] = (opts[0], off)
        else:
            _spelling[parameter.name] = ((parameter.metavar or parameter.name).upper(),) * 2


def with_options(text: str) -> str:
    """A message of the library with its parameters, "`gallery_model`", as the options of the command that runs."""

    def option(found: re.Match[str]) -> str:
        spelt = _spelling.get(found[1])
        return found[0] if spelt is None else spelt[1 if found[2] else 0]

    return PARAMETER.sub(option, text)


def photos_at(images: Path | None, split: str | None = None) -> ImageSet | None:
    """The photos of an option that may be left out."""
    if images is None:
        return None
    from edgecsd.photos.finding import find_images

    return find_images(images, split=split)


def require_there(*paths: Path | None) -> None:
    """Raise BadInputError for a path without a file: before seconds of importing frameworks. URLs and {..} pass."""
    from edgecsd.errors import BadInputError

    for path in paths:
        text = str(path)
        elsewhere = path is None or "{" in text or ":/" in text or text.startswith("milvus:")
        if path is not None and not elsewhere and not path.exists():
            raise BadInputError(f"{path}: no such file or folder")
