"""edgecsd index merge"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, quoted
from edgecsd.cli.index.build import index_document, index_text
from edgecsd.cli.options import Json, Overwrite


def command(
    indexes: Annotated[list[Path], typer.Argument(help="Gallery indexes of one space and one training, two or more.")],
    out: Annotated[Path, typer.Option(help="The gallery index to write.")],
    on_disk: Annotated[
        bool, typer.Option("--on-disk", help="ivf, ivfpq: lists stay on disk, and a search reads what it needs.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Join indexes of several stores, all but the first built with --like FIRST, without building anew.

    Example: edgecsd index merge monday.index tuesday.index --out week.index
    """
    from edgecsd.index.engines.faiss.merging import merge_indexes

    merged = merge_indexes(indexes, out, on_disk=on_disk, overwrite=overwrite, reporter=console_reporter())
    document = {**index_document(merged), "merged": [str(path) for path in indexes]}
    following = f"edgecsd check FILE --index {quoted(out)} --images PHOTOS"
    finish(as_json, document, text=index_text(merged), wrote=out, following=following)
