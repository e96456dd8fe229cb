"""edgecsd index push"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import console_reporter, finish
from edgecsd.cli.options import Json, choices, require_there
from edgecsd.index.kinds import IndexType

PANELS = {
    "Types ivf and ivfpq": ("nlist", "nprobe", "pq_bytes"),
    "Type hnsw": ("links", "ef_construction", "ef_search"),
}


def command(
    store: Annotated[Path, typer.Argument(help="The gallery's feature store.")],
    milvus: Annotated[
        str, typer.Option(help="Server (http://host:19530; password in MILVUS_TOKEN) or file of Milvus Lite (x.db).")
    ],
    collection: Annotated[str, typer.Option(help="The collection to make, or to go on with.")],
    type: Annotated[
        str | None,
        typer.Option(help="flat is exact (default: flat to 100,000 vectors, then hnsw).", **choices(IndexType)),
    ] = None,
    nlist: Annotated[int | None, typer.Option(help="ivf, ivfpq: inverted lists a segment.")] = None,
    nprobe: Annotated[
        int | None, typer.Option(help="ivf, ivfpq: lists searched (default: an eighth of them, at least 8).")
    ] = None,
    pq_bytes: Annotated[int | None, typer.Option(help="ivfpq: bytes a vector.")] = None,
    links: Annotated[int | None, typer.Option(help="hnsw: links a node (32).")] = None,
    ef_construction: Annotated[int | None, typer.Option(help="hnsw: candidates while building (200).")] = None,
    ef_search: Annotated[int | None, typer.Option(help="hnsw: candidates while searching (64).")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a collection of another store, space or index type.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Push a feature store into a Milvus collection; a killed push goes on where it stopped. Exit 3: another space.

    Example: edgecsd index push gallery.store --milvus http://localhost:19530 --collection gallery
    """
    from edgecsd.index.addresses import MilvusAddress

    address = MilvusAddress(milvus, collection)
    require_there(store)
    from edgecsd.index.engines.milvus.push import push

    result = push(
        store,
        address,
        type=type,
        nlist=nlist,
        nprobe=nprobe,
        pq_bytes=pq_bytes,
        links=links,
        ef_construction=ef_construction,
        ef_search=ef_search,
        overwrite=overwrite,
        reporter=console_reporter(),
    )
    index = result.index
    document = {
        "index": str(address),
        "type": index.type.value,
        "parameters": index.parameters,
        "count": len(index.ids),
        "sent": result.sent,
        "kept": result.kept,
        "verified": result.verified,
        "fingerprint": index.space.fingerprint,
    }
    parameters = ", ".join(f"{name} {value}" for name, value in index.parameters.items()) or "exact"
    text = (
        f"{len(index.ids)} vectors, type {index.type.value} ({parameters}); {result.sent} sent, {result.kept} were "
        f"there, {result.verified} read back and compared; embedding space {index.space.fingerprint}\nwrote {address}"
    )
    finish(as_json, document, text=text, following=f"edgecsd check FILE --index '{address}' --images PHOTOS")
