"""edgecsd demo"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import console_reporter, finish, table
from edgecsd.cli.options import Json, photos_at

if TYPE_CHECKING:
    from edgecsd.demo.demo import DemoResult


def command(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes; run it again to go on.")] = Path(
        "demo-output"
    ),
    images: Annotated[Path | None, typer.Option(help="Your own photos instead of the demo's food photos.")] = None,
    query_model: Annotated[
        str, typer.Option(help="tf_efficientnet_lite0 or mobilenetv2_100.")
    ] = "tf_efficientnet_lite0",
    as_json: Json = False,
) -> None:
    """The main job on real photos: extract, distil, export to three targets, check, measure; one table and one picture.

    Example: edgecsd demo --out demo-output
    """
    from edgecsd.demo.demo import demo

    result = demo(out, images=photos_at(images), query_model=query_model, reporter=console_reporter())
    finish(
        as_json,
        result.as_dict(),
        text=_text(result),
        wrote=out,
        following=f"look at {result.picture}, or start with your photos: edgecsd extract PHOTOS ...",
    )


def _text(result: DemoResult) -> str:
    header = ("", "mAP", "overlap@10", "+-", "size MB", "p50 ms", "p90 ms", "cosine", "check")
    rows = [
        (
            row.name,
            f"{row.mean_average_precision:.3f}",
            f"{row.overlap:.3f}",
            f"{row.overlap_error:.3f}",
            _figure(row.size_mb, 2),
            _figure(row.p50_ms, 2),
            _figure(row.p90_ms, 2),
            _figure(row.cosine, 4),
            "-" if row.passed is None else "pass" if row.passed else "FAIL",
        )
        for row in result.rows
    ]
    return "\n".join([table(header, rows), *result.notes])


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
