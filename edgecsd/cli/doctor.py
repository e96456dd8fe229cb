"""edgecsd doctor"""

from __future__ import annotations

from typing import Annotated

import typer

from edgecsd.cli.console import Json, finish


def command(
    probe: Annotated[bool, typer.Option("--probe", help="Also import each library, in a process of its own.")] = False,
    as_json: Json = False,
) -> None:
    """What is installed, what each step and target can do here, and what to install for the rest.

    Example: edgecsd doctor --probe
    """
    from edgecsd.doctor import doctor

    report = doctor(probe=probe)
    finish(as_json, report.model_dump(mode="json"), text="")
