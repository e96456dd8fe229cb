"""edgecsd whiten"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, quoted, store_document
from edgecsd.cli.options import Json, Overwrite, choices
from edgecsd.features.shards import DTYPES


def command(
    store: Annotated[Path, typer.Argument(help="The feature store whose vectors are whitened.")],
    out: Annotated[Path, typer.Option(help="The feature store to write.")],
    dim: Annotated[
        int | None, typer.Option(min=2, help="Dimensions to keep (default: all that the vectors allow).")
    ] = None,
    shrinkage: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Amplify weak directions less: 0 (default) is plain PCA whitening, 1 none."),
    ] = None,
    learnt_on: Annotated[
        Path | None,
        typer.Option(help="Apply the transform in this whitened store instead of learning one, e.g. to queries."),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Default: as the store.", **choices(DTYPES))] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """PCA-whiten a feature store: learn mean and principal directions on it, or apply what was learnt on another.

    The transform is kept in the store and is part of the embedding space; distil against the whitened store. Learn on
    many and varied photos, and compare with edgecsd evaluate: plain whitening can lower the mAP where --shrinkage 0.8
    raises it.

    Example: edgecsd whiten gallery.store --dim 512 --out whitened.store
    """
    from edgecsd.gallery.whiten import whiten

    made = whiten(
        store,
        out,
        dim=dim,
        shrinkage=shrinkage,
        learnt_on=learnt_on,
        dtype=dtype,
        overwrite=overwrite,
        reporter=console_reporter(),
    )
    text = f"{made.count} vectors, {made.space.dim}-d; embedding space {made.space.fingerprint}"
    document = {**store_document(made), "whitening": made.space.whitening}
    following = (
        f"edgecsd index {quoted(out)} --out whitened.index, "
        f"edgecsd whiten QUERIES --learnt-on {quoted(out)} --out QUERIES.whitened, "
        f"or edgecsd extract PHOTOS --gallery-model MODEL --whitening {quoted(out)} --out more.store"
    )
    finish(as_json, document, text=text, wrote=out, following=following)
