"""edgecsd wire"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, quoted, table
from edgecsd.cli.numbers import whole_numbers
from edgecsd.cli.options import Json, Overwrite, Split, Workers, photos_at, require_there

if TYPE_CHECKING:
    from edgecsd.serve.wire_costs import WireCosts

PANELS = {"What the query model gives": ("run", "artifact", "embeddings", "images", "split")}


def command(
    store: Annotated[Path, typer.Argument(help="The gallery's feature store.")],
    queries: Annotated[Path, typer.Option(help="Feature store of query photos, by the same gallery model.")],
    run: Annotated[Path | None, typer.Option(help="Run folder of the query model.")] = None,
    artifact: Annotated[Path | None, typer.Option(help="Exported file of the query model.")] = None,
    embeddings: Annotated[
        Path | None, typer.Option(help=".npy of what the query model gives, a row an item of the query store.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The query store's photos, for --run and --artifact.")] = None,
    pq_bytes: Annotated[
        str, typer.Option(help="Sizes of product-quantiser codes, such as 64,32; each divides the dimension.")
    ] = "",
    k: Annotated[int, typer.Option("--k", help="Results a query.")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the codebooks (pq-64.safetensors, ...) that pq codes need.")
    ] = None,
    split: Split = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure what codes cost in retrieval: of the query's vector on the wire, of the gallery's on disk.

    Example: edgecsd wire gallery.store --queries queries.store --run run --images photos --pq-bytes 64 --out codes
    """
    require_there(store, queries, run, artifact, embeddings, images)
    from edgecsd.errors import BadInputError
    from edgecsd.features.store import FeatureStore
    from edgecsd.index.query_vectors import load_query_vectors
    from edgecsd.serve.wire_costs import measure_codes

    sizes = whole_numbers("--pq-bytes", pq_bytes)
    if out is not None and not sizes:
        raise BadInputError(f"--out {out}: is for codebooks; say with --pq-bytes which, such as --pq-bytes 64")
    files = {size: out / f"pq-{size}.safetensors" for size in sizes} if out is not None else {}
    there = [file for file in files.values() if file.exists()]
    if there and not overwrite:
        raise BadInputError(f"{there[0]}: already there; choose another --out or add --overwrite")
    reporter, gallery = console_reporter(), FeatureStore.open(store, verify=True)
    vectors = load_query_vectors(
        gallery,
        FeatureStore.open(queries, verify=True),
        images=photos_at(images, split),
        run=run,
        artifact=artifact,
        embeddings=embeddings,
        workers=workers,
        reporter=reporter,
    )
    result = measure_codes(gallery, vectors, k=k, pq_bytes=sizes, reporter=reporter)
    for size, file in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        result.codebooks[size].save(file)
    document = {
        "k": result.k,
        "queries": result.queries,
        "overlap": vars(result.overlap),
        "codes": [cost.as_dict() for cost in result.costs],
        "codebooks": {str(n): str(f) for n, f in files.items()},
    }
    following = f"edgecsd serve INDEX --codebook {quoted(next(iter(files.values())))}" if files else None
    finish(as_json, document, text=_text(result), wrote=out if files else None, following=following)


def _text(result: WireCosts) -> str:
    rows = [
        (
            f"{'query' if cost.wire else 'gallery'}, {cost.name}",
            f"{cost.bytes}",
            f"{cost.cosine:.5f}",
            f"{cost.same:.4f}",
            f"{cost.overlap.mean:.4f}",
            f"{cost.lost.mean:+.4f} ({cost.lost.low:+.4f} to {cost.lost.high:+.4f})",
        )
        for cost in result.costs
    ]
    header = ("coded", "bytes", "least cosine", f"same first {result.k}", f"overlap@{result.k}", "lost (95 %)")
    return (
        f"{result.queries} queries; overlap@{result.k} with the gallery model's results, uncoded "
        f"{result.overlap.mean:.4f}\n{table(header, rows)}"
    )
