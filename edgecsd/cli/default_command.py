"""A group with a default command: `edgecsd index STORE` builds, `edgecsd bench FILE` measures."""

from __future__ import annotations

from typing import Any, ClassVar

from typer.core import TyperGroup


class DefaultCommandGroup(TyperGroup):
    """A first word that is no command's name belongs to `default`; what is called like a command is written ./NAME."""

    default: ClassVar[str]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, args if args and args[0] in known else [self.default, *args])


class DefaultsToBuild(DefaultCommandGroup):
    default = "build"


class DefaultsToMeasure(DefaultCommandGroup):
    default = "measure"
