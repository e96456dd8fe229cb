"""Options that a settings model describes: written once, in the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgecsd.cli.options import choices


def with_settings(model: type[BaseModel]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every described field of `model`, in the place of its **settings.

    A setting that is not given is None. A field names its panel in its json_schema_extra (training/settings.py).
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "settings"]
        made = [_option(name, field) for name, field in model.model_fields.items() if field.description]
        parameters = [p for p in own if p.default is p.empty] + made + [p for p in own if p.default is not p.empty]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

        def called(**given: Any) -> None:
            command(**given)

        called.__doc__, called.__module__ = command.__doc__, command.__module__
        called.__annotations__ = {p.name: p.annotation for p in parameters}
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return called

    return decorate


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    extra = field.json_schema_extra
    assert isinstance(extra, dict) and field.description is not None, "a described field has a panel"
    kind, allowed = _kind(field.annotation)
    flag = f"--{name.replace('_', '-')}"
    words = [f"{flag}/{extra.get('off') or f'--no-{flag[2:]}'}"] if kind is bool else [flag]
    default = None if field.is_required() else field.default
    said = "" if default is None or kind is bool else f" ({f'{default:g}' if isinstance(default, float) else default})"
    option = typer.Option(
        *words,
        help=f"{field.description}{said}.",
        rich_help_panel=str(extra["panel"]),
        **choices(allowed) if allowed else {},
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _kind(annotation: Any) -> tuple[type, tuple[str, ...]]:
    """What the command line reads for a field (bool, int, float, str or a path), and the values of a choice."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return str, get_args(annotation)
    if issubclass(annotation, Enum):
        return str, tuple(str(value) for value in annotation)
    assert annotation in (bool, int, float, str, Path), annotation
    return annotation, ()
