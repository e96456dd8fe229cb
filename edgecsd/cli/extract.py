"""edgecsd extract"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, quoted, quoted_photos, store_document
from edgecsd.cli.options import RUNNING, Json, Overwrite, Split, Workers, choices
from edgecsd.features.shards import DTYPES
from edgecsd.models.frozen_forward import Engine, parse_engine
from edgecsd.photos.views import ViewStrength, parse_strength

PANELS = {
    "Gallery model": (
        "weights",
        "gallery_size",
        "gallery_pooling",
        "gallery_head",
        "gallery_output",
        "preprocess",
        "scales",
        "whitening",
    ),
    "Augmented views, for distillation": ("views", "view_strength", "seed"),
    "Photos": ("split", "ground_truth", "strict"),
    RUNNING: ("dtype", "engine", "batch_size"),
}


def command(
    images: Annotated[
        Path,
        typer.Argument(
            help="Photos: a folder (any depth), a .csv list with a 'path' column and maybe 'label' and 'split', a .txt "
            "list, a .parquet file, tar shards x-{00..99}.tar, or a URL such as s3://bucket/photos."
        ),
    ],
    gallery_model: Annotated[
        str,
        typer.Option(
            help="timm:NAME, open_clip:MODEL/TAG, transformers:FOLDER or a name on the hub, onnx:FILE or "
            "module:function (docs/gallery-models.md)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The feature store to write.")],
    weights: Annotated[
        Path | None,
        typer.Option(
            help="State dict for timm:NAME or open_clip:MODEL, folder for transformers:NAME (default: an installed "
            "weights package, else the hub)."
        ),
    ] = None,
    gallery_size: Annotated[
        int | None, typer.Option(help="Input side of the gallery model in pixels (default: its own).")
    ] = None,
    gallery_pooling: Annotated[
        str,
        typer.Option(
            help="How its features are pooled, where it has a choice: token, avg, map ... (default: its own)."
        ),
    ] = "",
    gallery_head: Annotated[
        bool | None,
        typer.Option(
            "--gallery-head/--no-gallery-head",
            help="The vector is what the projection behind the features gives (default: with CLIP's kind of networks).",
            show_default=False,
        ),
    ] = None,
    gallery_output: Annotated[
        str, typer.Option(help="Which output of an ONNX file is the vector (default: the first).")
    ] = "",
    preprocess: Annotated[
        Path | None, typer.Option(help="JSON pixel contract of the gallery model (default: its own).")
    ] = None,
    scales: Annotated[
        str, typer.Option(help="Average the vectors of the input at these scales, e.g. 1,1.4142,0.7071.")
    ] = "1",
    whitening: Annotated[
        Path | None,
        typer.Option(help="A whitened feature store: every vector goes through its transform (see edgecsd whiten)."),
    ] = None,
    views: Annotated[
        int, typer.Option(min=0, max=64, help="Also cache the features of this many augmented views of each image.")
    ] = 0,
    view_strength: Annotated[
        str,
        typer.Option(help="strong: crops from a tenth of the photo; mild: from half of it.", **choices(ViewStrength)),
    ] = "strong",
    seed: Annotated[int, typer.Option(help="Seed of the views.")] = 0,
    dtype: Annotated[str, typer.Option(help="int8 is half of float16 (docs/wire.md).", **choices(DTYPES))] = "float16",
    engine: Annotated[
        str,
        typer.Option(help="What runs a torch network; auto: onnxruntime for 1,000 images or more.", **choices(Engine)),
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    ground_truth: Annotated[
        Path | None, typer.Option(help="Embed its queries only, cropped to their boxes: gnd_*.pkl, JSON or CSV.")
    ] = None,
    split: Split = None,
    workers: Workers = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail at the first unreadable image instead of skipping it.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Embed photos with the gallery model into a feature store. Resumes; unreadable images are listed and skipped.

    Example: edgecsd extract photos --gallery-model timm:tf_efficientnet_lite2 --views 3 --out gallery.store
    """
    from edgecsd.cli.numbers import numbers
    from edgecsd.distributed import ranks
    from edgecsd.evaluation.ground_truth import read_ground_truth
    from edgecsd.gallery.extract import extract
    from edgecsd.photos.finding import find_images

    averaged, strength, runs = numbers(scales, "--scales"), parse_strength(view_strength), parse_engine(engine)
    photos = find_images(images, split=split)
    if ground_truth is not None:
        photos = read_ground_truth(ground_truth).query_images(photos)
    store = extract(
        photos,
        gallery_model,
        out,
        weights=weights,
        gallery_size=gallery_size,
        gallery_pooling=gallery_pooling,
        gallery_head=gallery_head,
        gallery_output=gallery_output,
        preprocess=preprocess,
        scales=averaged,
        whitening=whitening,
        views=views,
        view_strength=strength,
        seed=seed,
        dtype=dtype,
        engine=runs,
        batch_size=batch_size,
        workers=workers,
        strict=strict,
        overwrite=overwrite,
        reporter=console_reporter(),
    )
    if not ranks().first:  # one of torchrun's processes speaks for all
        return
    text = (
        f"{store.count} images, {store.space.dim}-d, {store.views.count} views each; "
        f"embedding space {store.space.fingerprint}"
    )
    finish(
        as_json,
        store_document(store),
        text=text,
        wrote=out,
        following=f"edgecsd index {quoted(out)} --out gallery.index, "
        f"or edgecsd distill {quoted_photos(images, split)} --gallery {quoted(out)} --out run",
    )
