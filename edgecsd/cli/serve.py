"""edgecsd serve"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import console_reporter
from edgecsd.cli.options import Json, Split, photos_at, require_there

if TYPE_CHECKING:
    from edgecsd.serve.server import Address

PANELS = {
    "The phone's page": ("model", "photos", "split", "golden", "out"),
    "Network and access": ("host", "port", "tls", "cert", "key", "token", "rate"),
}


def command(
    index: Annotated[Path, typer.Argument(help="The gallery index: a folder or milvus:URI#COLLECTION.")],
    model: Annotated[
        Path | None, typer.Option(help="Exported .onnx or .tflite for the phone's page (default: searches alone).")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="The gallery's photos, a folder or a CSV list: results are shown as photos.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for phones in the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    tls: Annotated[bool, typer.Option("--tls", help="HTTPS, self-signed unless --cert and --key are given.")] = False,
    cert: Annotated[Path | None, typer.Option(help="Certificate (PEM); HTTPS.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="EDGECSD_TOKEN", help="What requests must carry (default: a random one).")
    ] = None,
    rate: Annotated[float, typer.Option(help="Requests a second of one client; 0: any number.")] = 50.0,
    golden: Annotated[
        Path | None, typer.Option(help="Golden pack of the model: the benchmark tab measures with its photos.")
    ] = None,
    codebook: Annotated[
        Path | None, typer.Option(help="Codebook of `edgecsd wire`: raw bodies may hold its codes (dtype=pq).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the phones' benchmark rows, JSON lines (default: bench.jsonl).")
    ] = None,
    split: Split = None,
    as_json: Json = False,
) -> None:
    """Search the gallery from any phone's browser: the query model runs there, only the embedding comes here.

    Example: edgecsd serve gallery.index --model run/exports/tf_efficientnet_lite0-fp32.onnx --photos photos
    """
    require_there(index, model, photos, codebook, golden, cert, key)
    # faiss's threads would spin for milliseconds after each search, on the cores that read the next requests: 0.73 of
    # bare faiss's CPU time with 8 clients, 0.91 without (benchmarks/speed/serve.py). Read when the library is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from edgecsd.serve.server import serve

    serve(
        index,
        model=model,
        photos=photos_at(photos, split),
        host=host,
        port=port,
        tls=tls,
        cert=cert,
        key=key,
        token=token,
        rate=rate,
        codebook=codebook,
        golden=golden,
        out=out if out or model is None else Path("bench.jsonl"),
        reporter=console_reporter(),
        announce=_print_json if as_json else _print,
    )


def _print_json(address: Address) -> None:
    document = {
        "url": address.url,
        "root": address.root,
        "token": address.token,
        "fingerprint": address.fingerprint,
        "gallery": address.gallery,
    }
    print(json.dumps(document), flush=True)


def _print(address: Address) -> None:
    if address.phone:
        from edgecsd.serve.qr_code import print_code

        print_code(address.url)
        print(f"open on the phone: {address.url}")
    else:
        print(f"searches: POST {address.root}/search, header Authorization: Bearer {address.token}")
    print(f"{address.gallery} gallery items, embedding space {address.fingerprint}; stop with Ctrl-C", flush=True)
