"""edgecsd check"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgecsd.cli.console import console_reporter
from edgecsd.cli.gate import Junit, Strict, Threshold, ThresholdsFile, conclude
from edgecsd.cli.options import RUNNING, Json, Split, photos_at
from edgecsd.cli.settings import with_settings
from edgecsd.gate.thresholds import Thresholds

PANELS = {
    "What else is known of the pair": (
        "run",
        "reference",
        "weights",
        "gallery",
        "gallery_images",
        "fp32",
        "device",
        "golden",
        "bench",
    ),
    "Gates": ("thresholds", "threshold", "strict_decision"),
    RUNNING: ("threads", "junit"),
}


@with_settings(Thresholds)
def command(
    file: Annotated[Path, typer.Argument(help="The exported file.")],
    index: Annotated[Path, typer.Option(help="The gallery index to search: a folder or milvus:URI#COLLECTION.")],
    images: Annotated[
        Path, typer.Option(help="Photos like the queries to come: a folder, a list, tars, Parquet or a URL.")
    ],
    run: Annotated[
        Path | None, typer.Option(help="The run it was exported from (found by itself in RUN/exports).")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Store with the gallery model's features of the photos (default: run the gallery model)."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the gallery model, where it has to be run and needs a file.")
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(help="Store the index was built from: for exact results (ivfpq needs it), copies and labels."),
    ] = None,
    gallery_images: Annotated[Path | None, typer.Option(help="The gallery's photos, to be shown on the page.")] = None,
    fp32: Annotated[
        Path | None,
        typer.Option(
            help="Of another precision: the fp32 file of the same weights (default: the one beside the file)."
        ),
    ] = None,
    device: Annotated[
        Path | None, typer.Option(help=".npz with `ids` and `embeddings` of the photos, computed on a device.")
    ] = None,
    golden: Annotated[
        Path | None, typer.Option(help="The file's golden pack (edgecsd golden): does it still hold here?")
    ] = None,
    bench: Annotated[
        Path | None, typer.Option(help="Rows of edgecsd bench, for the page (default: bench*.jsonl in the run).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the evidence (default: one of its own in RUN/checks).")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Depth of the overlap.")] = 10,
    limit: Annotated[int | None, typer.Option(min=2, help="Use this many photos, spread evenly.")] = None,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    thresholds: ThresholdsFile = None,
    threshold: Threshold = None,
    strict_decision: Strict = False,
    junit: Junit = None,
    split: Split = None,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Does this file find, in this index, what the gallery model would find? Exit 1: a gate failed; 3: incompatible.

    Example: edgecsd check run/exports/tf_efficientnet_lite0-w8a8.tflite --index gallery.index --images photos
    """
    from edgecsd.checking.check import check, default_folder
    from edgecsd.checking.pairing import CheckOptions
    from edgecsd.files.places import require_file_place
    from edgecsd.photos.finding import find_images

    if junit is not None:
        require_file_place(junit, "--junit")
    folder = out or default_folder(file, index, run)
    options = CheckOptions(
        fp32=fp32,
        gallery=gallery,
        gallery_images=photos_at(gallery_images),
        device=device,
        threshold=threshold,
        thresholds_file=thresholds,
        strict=strict_decision,
        golden=golden,
        bench=bench,
    )
    changes = {name: value for name, value in settings.items() if value is not None}
    result = check(
        file,
        index,
        find_images(images, split=split),
        run=run,
        reference=reference,
        weights=weights,
        k=k,
        limit=limit,
        threads=threads,
        thresholds=changes,
        options=options,
        out=folder,
        reporter=console_reporter(),
    )
    conclude(result, as_json=as_json, junit=junit, wrote=folder)
