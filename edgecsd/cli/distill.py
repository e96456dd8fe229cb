"""edgecsd distill"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import (
    ConsoleReporter,
    Json,
    Overwrite,
    Split,
    Workers,
    finish,
    quoted,
    quoted_photos,
    require_there,
    table,
)
from edgecsd.files.whole import named
from edgecsd.training.settings import DistillConfig, make_config


def _with_default(name: str, text: str) -> str:
    """The help of an option, and the setting's default behind it."""
    default = DistillConfig.model_fields[name].default
    return f"{text} ({f'{default:g}' if isinstance(default, float) else default})."


def command(
    images: Annotated[Path, typer.Argument(help="The training photos: the folder or list that extract was given.")],
    gallery: Annotated[Path, typer.Option(help="The feature store that anchors come from.")],
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    features: Annotated[
        Path | None, typer.Option(help="A store with the photos' own features, where --gallery does not hold them.")
    ] = None,
    query_model: Annotated[str | None, typer.Option(help=_with_default("query_model", "Any timm backbone"))] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="State dict of the backbone (default: an installed weights package, else timm's hub)."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Input side in pixels (default: the backbone's own).")] = None,
    resize: Annotated[str | None, typer.Option(help="squash or shorter-side (default: as the gallery model).")] = None,
    views: Annotated[
        int | None, typer.Option(help="Use only the first so many of the cached views (default: all).")
    ] = None,
    pooling: Annotated[str | None, typer.Option(help=_with_default("pooling", "gem, average, or gem+average"))] = None,
    gem_p: Annotated[float | None, typer.Option(help=_with_default("gem_p", "Exponent of gem"))] = None,
    learn_gem_p: Annotated[
        bool | None, typer.Option("--learn-gem-p/--fix-gem-p", help="Learn the exponent of gem.")
    ] = None,
    projection: Annotated[
        str | None,
        typer.Option(
            help=_with_default("projection", "linear, bottleneck (1x1 convolution, ReLU, pooling, linear) or none")
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help=_with_default("loss", "csd-kl, csd-l2, csd-l1, regression, ssp, rop, d3still or raml")),
    ] = None,
    order: Annotated[
        str | None, typer.Option(help=_with_default("order", "Terms of the csd losses: both, first or second"))
    ] = None,
    anchors: Annotated[
        str | None, typer.Option(help=_with_default("anchors", "topk, random, fixed or codebook"))
    ] = None,
    k: Annotated[
        int | None, typer.Option("--k", help=_with_default("k", "Anchors an image, 1 to the whole gallery"))
    ] = None,
    anchor_views: Annotated[
        int | None,
        typer.Option(
            help="Cached views of each training photo among the anchors, beside the gallery (default: as many as there "
            "are, up to 16,384 vectors in all)."
        ),
    ] = None,
    mining: Annotated[
        str | None,
        typer.Option(
            help=_with_default(
                "mining", "How the nearest are found: exact; for large galleries ivf, or ivf-pq in little disk space"
            )
        ),
    ] = None,
    sub_spaces: Annotated[
        int | None, typer.Option(help=_with_default("sub_spaces", "ssp: sub-spaces of the product quantiser"))
    ] = None,
    centroids: Annotated[
        int | None, typer.Option(help=_with_default("centroids", "ssp: centroids of each sub-space"))
    ] = None,
    first_order: Annotated[
        float | None, typer.Option(help=_with_default("first_order", "ssp: weight of a first-order term"))
    ] = None,
    tau_q: Annotated[float | None, typer.Option(help=_with_default("tau_q", "Temperature of the query side"))] = None,
    tau_g: Annotated[float | None, typer.Option(help=_with_default("tau_g", "Temperature of the gallery side"))] = None,
    init: Annotated[
        str | None, typer.Option(help=_with_default("init", "closed-form or random start of the projection"))
    ] = None,
    head_steps: Annotated[
        int | None,
        typer.Option(help=_with_default("head_steps", "Steps of the projection alone, on cached pooled features")),
    ] = None,
    interpolate: Annotated[
        bool | None,
        typer.Option(
            "--interpolate/--no-interpolate",
            help="Go back from a stage's end towards its start as held-out photos have it (done; not for a network "
            "with --train-norm). By kinds the most trained weights are kept that are not measurably worse than the "
            "best, of the projection 0.7 of the way at least, or none of it; by photos the best.",
        ),
    ] = None,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit", help="At the end fit the head once more, to the held-out photos too (done)."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help=_with_default("epochs", "Epochs of the whole network; 0 leaves it out"))
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help=_with_default("batch_size", "Images a step of the whole network"))
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(
            help=_with_default(
                "accumulate", "Parts that a batch goes through the network in: less memory, the same step"
            )
        ),
    ] = None,
    backbone_lr: Annotated[
        float | None, typer.Option(help=_with_default("backbone_lr", "Peak learning rate of the backbone"))
    ] = None,
    projection_lr: Annotated[
        float | None, typer.Option(help=_with_default("projection_lr", "Peak learning rate of the projection"))
    ] = None,
    freeze_norm: Annotated[
        bool | None, typer.Option("--freeze-norm/--train-norm", help="Keep the batch-norm statistics (kept).")
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(help=_with_default("ema", "Decay of a moving average of the weights, such as 0.99; 0: none")),
    ] = None,
    precision: Annotated[str | None, typer.Option(help=_with_default("precision", "32-true or bf16-mixed"))] = None,
    held_out: Annotated[
        float | None,
        typer.Option(help=_with_default("held_out", "Share of the photos kept for validation by retrieval")),
    ] = None,
    held_out_by: Annotated[
        str | None,
        typer.Option(
            help=_with_default(
                "held_out_by",
                "Which photos those are: kinds, whole kinds of photos, for queries that may show what no training "
                "photo does; photos, single ones, where the training photos are the gallery or of all its kinds",
            )
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help=_with_default("seed", "Seed of all that is drawn at random"))] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML with any of these settings and more; options override it.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for pooled features and anchors, to share among runs (OUT/cache).")
    ] = None,
    split: Split = None,
    workers: Workers = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Demand that there is an unfinished run to go on with.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Distil a query model against cached gallery features: closed-form start, projection, whole network. No labels.

    Example: edgecsd distill photos --gallery gallery.store --query-model tf_efficientnet_lite0 --out run
    """
    require_there(images, gallery, features, config)
    from edgecsd.distributed import ranks
    from edgecsd.training.distill import distill

    options = {
        "query_model": query_model,
        "weights": weights,
        "size": size,
        "resize": resize,
        "views": views,
        "pooling": pooling,
        "gem_p": gem_p,
        "learn_gem_p": learn_gem_p,
        "projection": projection,
        "loss": loss,
        "order": order,
        "anchors": anchors,
        "k": k,
        "anchor_views": anchor_views,
        "mining": mining,
        "sub_spaces": sub_spaces,
        "centroids": centroids,
        "first_order": first_order,
        "tau_q": tau_q,
        "tau_g": tau_g,
        "init": init,
        "head_steps": head_steps,
        "interpolate": interpolate,
        "refit": refit,
        "epochs": epochs,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "backbone_lr": backbone_lr,
        "projection_lr": projection_lr,
        "freeze_norm": freeze_norm,
        "ema": ema,
        "precision": precision,
        "held_out": held_out,
        "held_out_by": held_out_by,
        "seed": seed,
    }
    result = distill(
        images,
        gallery,
        out,
        features=features,
        split=split,
        config=make_config(config, options),
        cache=cache,
        workers=workers,
        resume=resume,
        overwrite=overwrite,
        reporter=ConsoleReporter(),
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
