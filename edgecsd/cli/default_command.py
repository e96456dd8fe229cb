"""A group of commands of which one is meant where none is named: `edgecsd index STORE` builds."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class DefaultsToBuild(TyperGroup):
    """A first word that is no command's name belongs to `build`; what is called like a command is written ./NAME."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, args if args and args[0] in known else ["build", *args])
