"""edgecsd distill"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from edgecsd.cli.console import console_reporter, finish, quoted, quoted_photos, table
from edgecsd.cli.options import RUNNING, Json, Overwrite, Split, Workers, require_there
from edgecsd.cli.settings import with_settings
from edgecsd.files.whole import named
from edgecsd.training.settings import ANCHORS, HEAD, HELD_OUT, MODEL, NETWORK, DistillConfig, make_config

PANELS: dict[str, tuple[str, ...]] = dict.fromkeys((MODEL, ANCHORS, HEAD, NETWORK, HELD_OUT), ())  # their order


@with_settings(DistillConfig)
def command(
    images: Annotated[Path, typer.Argument(help="The training photos: the folder or list that extract was given.")],
    gallery: Annotated[Path, typer.Option(help="The feature store that anchors come from.")],
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    features: Annotated[
        Path | None, typer.Option(help="A store with the photos' own features, where --gallery does not hold them.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML with any of the settings below and more; options override it.")
    ] = None,
    split: Split = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder for pooled features and anchors, to share among runs (OUT/cache).", rich_help_panel=RUNNING
        ),
    ] = None,
    workers: Workers = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Demand that there is an unfinished run to go on with.", rich_help_panel=RUNNING),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Distil a query model against cached gallery features: closed-form start, projection, whole network. No labels.

    Example: edgecsd distill photos --gallery gallery.store --query-model tf_efficientnet_lite0 --out run
    """
    require_there(images, gallery, features, config)
    from edgecsd.distributed import ranks
    from edgecsd.photos.finding import find_images
    from edgecsd.training.distill import distill

    result = distill(
        find_images(images, split=split),
        gallery,
        out,
        features=features,
        config=make_config(config, settings),
        cache=cache,
        workers=workers,
        resume=resume,
        overwrite=overwrite,
        reporter=console_reporter(),
    )
    if not ranks().first:  # one of torchrun's processes speaks for all
        return
    gains = ["", *(f"{b.overlap - a.overlap:+.4f}" for a, b in pairwise(result.stages))]
    rows = [
        (stage.name, f"{stage.overlap:.4f}", gain, f"{stage.cosine:.4f}")
        for stage, gain in zip(result.stages, gains, strict=True)
    ]
    document = {
        "run": str(out),
        "overlap_k": result.overlap_k,
        "stages": [vars(stage) for stage in result.stages],
        "refit": result.refit,
    }
    place = named(out)
    text = table(("stage (held-out photos)", f"overlap@{result.overlap_k}", "gain", "cosine"), rows)
    finish(
        as_json,
        document,
        text=text,
        wrote=out,
        following=f"edgecsd export {quoted(out)} --target tflite --precision w8a8 "
        f"--calibration {quoted_photos(images, split)}; for a gallery of other kinds of photos first edgecsd adapt "
        f"{quoted(out)} --gallery ITS.store --out {quoted(place.with_name(f'{place.name}-adapted'))}",
    )
