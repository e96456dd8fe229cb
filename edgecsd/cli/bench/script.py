"""edgecsd bench script"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import finish, quoted
from edgecsd.cli.options import Json, Overwrite, Split


def command(
    file: Annotated[Path, typer.Argument(help="Exported .mlpackage.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    images: Annotated[Path | None, typer.Option(help="Real photos to feed (default: synthetic ones).")] = None,
    run: Annotated[Path | None, typer.Option(help="The run it was exported from (found by itself).")] = None,
    split: Split = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """A folder with a Python program for a Mac and a Swift file for an iPhone, which measure a Core ML artifact there.

    Example: edgecsd bench script run/exports/tf_efficientnet_lite0-fp16.mlpackage --images photos --out for-the-mac
    """
    from edgecsd.measuring.mac_program import write_program
    from edgecsd.photos.finding import find_images

    photos = None if images is None else find_images(images, split=split)
    write_program(file, out, images=photos, run=run, overwrite=overwrite)
    following = f"on a Mac: python3 bench_coreml.py; here: edgecsd bench import coreml.json --artifact {quoted(file)}"
    finish(as_json, {"folder": out, "artifact": file}, wrote=out, following=following)
