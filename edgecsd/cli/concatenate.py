"""edgecsd concatenate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, quoted, store_document
from edgecsd.cli.options import Json, Overwrite


def command(
    stores: Annotated[
        list[Path], typer.Argument(help="Feature stores of the same items by different gallery models, two or more.")
    ],
    out: Annotated[Path, typer.Option(help="The feature store to write.")],
    weights: Annotated[
        str | None, typer.Option(help="Share of each store's cosine in the joint cosine, e.g. 1,0.5 (default: equal).")
    ] = None,
    common: Annotated[
        bool, typer.Option("--common", help="Keep the items that every store has instead of refusing.")
    ] = False,
    dtype: Annotated[
        str | None,
        typer.Option(help="float16, float32 or int8 (default: as the stores, or the one of them that keeps most)."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Join the features of several gallery models: one store in which cosines are the weighted mean of theirs.

    Items are matched by id and by the digest of the photo. Cached views are joined too; their recipes must agree.

    Example: edgecsd concatenate first.store second.store --weights 1,0.5 --out gallery.store
    """
    from edgecsd.cli.numbers import numbers
    from edgecsd.gallery.concatenate import concatenate

    store = concatenate(
        stores,
        out,
        weights=None if weights is None else numbers(weights, "--weights"),
        common=common,
        dtype=dtype,
        overwrite=overwrite,
        reporter=console_reporter(),
    )
    document = {**store_document(store), "parts": [part.model_dump(mode="json") for part in store.space.parts]}
    shares = ", ".join(f"{part.weight:.3g}" for part in store.space.parts)
    text = (
        f"{store.count} items, {store.space.dim}-d, weights {shares}; embedding space {store.space.fingerprint} "
        f"({store.space.gallery_model})"
    )
    whitened = quoted(f"{out}.whitened")
    following = f"edgecsd index {quoted(out)} --out gallery.index, or edgecsd whiten {quoted(out)} --out {whitened}"
    finish(as_json, document, text=text, wrote=out, following=following)
