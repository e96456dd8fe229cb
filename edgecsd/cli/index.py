"""edgecsd index: the group of commands about gallery indexes, and `build`, which is meant where none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import ConsoleReporter, Json, Overwrite, finish
from edgecsd.cli.default_command import DefaultsToBuild

app = typer.Typer(
    cls=DefaultsToBuild,
    help="Build a gallery index over a feature store (edgecsd index STORE --out INDEX; options: edgecsd index build "
    "--help), and what else there is to do about indexes.\n\n"
    "Example: edgecsd index gallery.store --out gallery.index --type ivf --nprobe 16",
)


@app.command("build")
def build(
    store: Annotated[Path, typer.Argument(help="The gallery's feature store.")],
    out: Annotated[Path, typer.Option(help="The gallery index to write.")],
    type: Annotated[str, typer.Option(help="flat (exact), ivf, ivfpq or hnsw.")] = "flat",
    nlist: Annotated[int | None, typer.Option(help="ivf, ivfpq: inverted lists (default: about 4 sqrt N).")] = None,
    nprobe: Annotated[int | None, typer.Option(help="ivf, ivfpq: lists searched (default: an eighth of them).")] = None,
    pq_bytes: Annotated[int | None, typer.Option(help="ivfpq: bytes a vector.")] = None,
    links: Annotated[int | None, typer.Option(help="hnsw: links a node (32).")] = None,
    ef_construction: Annotated[int | None, typer.Option(help="hnsw: candidates while building (200).")] = None,
    ef_search: Annotated[int | None, typer.Option(help="hnsw: candidates while searching (64).")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Build the gallery index over a feature store; its search parameters are kept with it.

    Example: edgecsd index gallery.store --out gallery.index --type ivf --nprobe 16
    """
    from edgecsd.index import build_index

    built = build_index(
        store,
        out,
        type=type,
        nlist=nlist,
        nprobe=nprobe,
        pq_bytes=pq_bytes,
        links=links,
        ef_construction=ef_construction,
        ef_search=ef_search,
        overwrite=overwrite,
        reporter=ConsoleReporter(),
    )
    parameters = ", ".join(f"{name} {value}" for name, value in built.parameters.items()) or "exact"
    document = {
        "index": str(out),
        "type": built.type.value,
        "parameters": built.parameters,
        "count": len(built.ids),
        "fingerprint": built.space.fingerprint,
    }
    text = (
        f"{len(built.ids)} vectors, type {built.type.value} ({parameters}); embedding space {built.space.fingerprint}"
    )
    finish(as_json, document, text=text, wrote=out, following=f"edgecsd check FILE --index {out} --images PHOTOS")
