"""edgecsd index build"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecsd.cli.console import console_reporter, finish, quoted
from edgecsd.cli.options import Json, Overwrite, choices
from edgecsd.index.kinds import IndexType

if TYPE_CHECKING:
    from edgecsd.index.gallery_index import GalleryIndex

PANELS = {
    "Types ivf and ivfpq": ("nlist", "nprobe", "on_disk"),
    "Type ivfpq": ("pq_bytes", "opq", "refine", "refine_factor"),
    "Type hnsw": ("links", "ef_construction", "ef_search"),
}


def command(
    store: Annotated[Path, typer.Argument(help="The gallery's feature store.")],
    out: Annotated[Path, typer.Option(help="The gallery index to write.")],
    type: Annotated[str, typer.Option(help="flat is exact.", **choices(IndexType))] = "flat",
    bits: Annotated[
        int | None, typer.Option(help="flat, ivf, hnsw: bits a number of the vectors kept: 32 (default), 16 or 8.")
    ] = None,
    nlist: Annotated[int | None, typer.Option(help="ivf, ivfpq: inverted lists (default: about 4 sqrt N).")] = None,
    nprobe: Annotated[
        int | None, typer.Option(help="ivf, ivfpq: lists searched (default: an eighth of them, at least 8).")
    ] = None,
    pq_bytes: Annotated[int | None, typer.Option(help="ivfpq: bytes a vector.")] = None,
    opq: Annotated[bool, typer.Option("--opq", help="ivfpq: learn a rotation that suits the codes better.")] = False,
    refine: Annotated[
        int | None, typer.Option(help="ivfpq: rank the first candidates again by vectors of 8, 16 or 32 bits a number.")
    ] = None,
    refine_factor: Annotated[
        int | None, typer.Option(help="ivfpq with --refine: candidates a result that are ranked again (4).")
    ] = None,
    links: Annotated[int | None, typer.Option(help="hnsw: links a node (32).")] = None,
    ef_construction: Annotated[int | None, typer.Option(help="hnsw: candidates while building (200).")] = None,
    ef_search: Annotated[int | None, typer.Option(help="hnsw: candidates while searching (64).")] = None,
    on_disk: Annotated[
        bool, typer.Option("--on-disk", help="ivf, ivfpq: lists stay on disk, and a search reads what it needs.")
    ] = False,
    like: Annotated[
        Path | None, typer.Option(help="Type, options and training of this index, so that the two can be merged.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Build the gallery index over a feature store; its search parameters are kept with it.

    Example: edgecsd index gallery.store --out gallery.index --type ivf
    """
    from edgecsd.index.engines.faiss.building import build_index

    built = build_index(
        store,
        out,
        type=type,
        bits=bits,
        nlist=nlist,
        nprobe=nprobe,
        pq_bytes=pq_bytes,
        opq=1 if opq else None,
        refine=refine,
        refine_factor=refine_factor,
        links=links,
        ef_construction=ef_construction,
        ef_search=ef_search,
        on_disk=1 if on_disk else None,
        like=like,
        overwrite=overwrite,
        reporter=console_reporter(),
    )
    following = f"edgecsd check FILE --index {quoted(out)} --images PHOTOS"
    finish(as_json, index_document(built), text=index_text(built), wrote=out, following=following)


def index_document(index: GalleryIndex) -> dict[str, Any]:
    """An index in JSON."""
    return {
        "index": str(index.path),
        "type": index.type.value,
        "parameters": index.parameters,
        "count": len(index.ids),
        "fingerprint": index.space.fingerprint,
    }


def index_text(index: GalleryIndex) -> str:
    parameters = ", ".join(f"{name} {value}" for name, value in index.parameters.items()) or "exact"
    space = f"embedding space {index.space.fingerprint}"
    return f"{len(index.ids)} vectors, type {index.type.value} ({parameters}); {space}"
