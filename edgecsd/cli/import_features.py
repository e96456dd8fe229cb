"""edgecsd import-features"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, quoted, store_document
from edgecsd.cli.options import Json, Overwrite, choices
from edgecsd.features.shards import DTYPES

PANELS = {"Rows that are not as they should be": ("normalise", "drop_invalid", "drop_duplicates")}


def command(
    file: Annotated[
        Path,
        typer.Argument(
            help=".npy (N, D), .npz, .parquet or a folder of them (columns id, vector or embedding, maybe label), or a "
            "faiss index file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The feature store to write.")],
    space: Annotated[
        str, typer.Option(help="Name and version of the gallery model that made the vectors, e.g. acme-embedder-v7.")
    ],
    ids: Annotated[
        Path | None, typer.Option(help="Item ids in row order: one a line, or a CSV with 'id' and maybe 'label'.")
    ] = None,
    dim: Annotated[int | None, typer.Option(help="The dimension that is expected.")] = None,
    normalise: Annotated[
        bool, typer.Option("--normalise", help="Scale vectors to unit length instead of refusing.")
    ] = False,
    drop_invalid: Annotated[
        bool, typer.Option("--drop-invalid", help="Leave out NaN, infinite and zero vectors instead of refusing.")
    ] = False,
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="Of a repeated id keep the first row instead of refusing.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="int8 is half of float16 (docs/wire.md).", **choices(DTYPES))] = "float16",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a feature store from vectors that already exist, when the gallery model is not yours to run.

    Example: edgecsd import-features vectors.npy --ids ids.txt --space acme-embedder-v7 --out gallery.store
    """
    from edgecsd.gallery.import_features import import_features

    store = import_features(
        file,
        out,
        space=space,
        ids=ids,
        dim=dim,
        normalise=normalise,
        drop_invalid=drop_invalid,
        drop_duplicates=drop_duplicates,
        dtype=dtype,
        overwrite=overwrite,
        reporter=console_reporter(),
    )
    text = f"{store.count} vectors, {store.space.dim}-d; embedding space {store.space.fingerprint}"
    following = f"edgecsd index {quoted(out)} --out gallery.index"
    finish(as_json, store_document(store), text=text, wrote=out, following=following)
