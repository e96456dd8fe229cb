"""edgecsd deliver"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import console_reporter, finish
from edgecsd.cli.export import Licence
from edgecsd.cli.options import Json, choices
from edgecsd.exporting.recipes import HOW_TO, RECIPES, find_recipe

INTERRUPTED = "nothing was delivered: run the same command again"


def command(
    run: Annotated[Path, typer.Argument(help="The run folder of a distilled query model.")],
    index: Annotated[Path, typer.Option(help="The gallery index that the app will search.")],
    images: Annotated[Path, typer.Option(help="Photos like the queries to come.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    device: Annotated[
        str, typer.Option(help="Whose app it is for: chooses the recipe, and what the card says.", **choices(HOW_TO))
    ] = "android",
    recipe: Annotated[
        str | None,
        typer.Option(help="Another recipe than the device's, or a TOML file.", **choices([*RECIPES, "FILE.toml"])),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Photos that w8a8 measures its ranges on, not checked on (default: some of --images)."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Store with the gallery model's features of the photos.")
    ] = None,
    bench_seconds: Annotated[
        float | None, typer.Option(help="How long each series of the measured row takes at least.")
    ] = None,
    licence: Licence = None,
    as_json: Json = False,
) -> None:
    """Export, check, measure and pack for one kind of device: the folder that an app team takes. Exit 1: a gate failed.

    Example: edgecsd deliver run --device android --index gallery.index --images photos --out for-the-app
    """
    if device not in HOW_TO:
        from edgecsd.errors import BadInputError

        raise BadInputError(f"`device` {device}: there are {', '.join(HOW_TO)}")
    from edgecsd.delivery.deliver import deliver
    from edgecsd.photos.finding import find_images

    delivery = deliver(
        run,
        index,
        find_images(images),
        out,
        recipe=find_recipe(recipe or device),
        calibration=None if calibration is None else find_images(calibration),
        reference=reference,
        bench_seconds=bench_seconds,
        licence=licence,
        how_to=HOW_TO[device],
        reporter=console_reporter(),
    )
    finish(
        as_json,
        {"folder": delivery.folder, "artifact": delivery.artifact},
        text=f"{delivery.artifact.name}, golden pack, card, check and measured row",
        wrote=delivery.folder,
        following="hand the folder to the app team; card.md is what they read first",
    )
