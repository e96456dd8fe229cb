"""edgecsd bench browser"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.bench.options import (
    DEVICE,
    Added,
    Images,
    Index,
    K,
    MinRuns,
    MinSeconds,
    Protocol,
    Threads,
    TimeoutSeconds,
    finish_rows,
)
from edgecsd.cli.console import console_reporter
from edgecsd.cli.options import Json, Split
from edgecsd.errors import BadInputError

ADB = "adb"


def command(
    files: Annotated[list[Path], typer.Argument(help="Exported .onnx or .tflite files.")],
    images: Images = None,
    threads: Threads = None,
    out: Added = None,
    split: Split = None,
    device: Annotated[
        str | None,
        typer.Option(help="adb[:SERIAL]: a phone's own browser (default: Chromium here).", rich_help_panel=DEVICE),
    ] = None,
    protocol: Protocol = "quick",
    min_runs: MinRuns = None,
    min_seconds: MinSeconds = None,
    timeout_seconds: TimeoutSeconds = None,
    index: Index = None,
    k: K = 10,
    as_json: Json = False,
) -> None:
    """Measure in a browser, by the page of edgecsd serve: headless Chromium here, or a phone's over adb.

    Example: edgecsd bench browser run/exports/tf_efficientnet_lite0-fp32.onnx --images photos --threads 1
    """
    from edgecsd.photos.finding import find_images
    from edgecsd.serve.bench_in_browser import bench_in_browser, bench_in_phone_browser

    photos = None if images is None else find_images(images, split=split)
    if device is None:
        rows = bench_in_browser(
            files,
            images=photos,
            threads=tuple(threads or (1, 4)),
            protocol=protocol,
            min_runs=min_runs,
            min_seconds=min_seconds,
            timeout_seconds=timeout_seconds,
            index=index,
            k=k,
            out=out,
            reporter=console_reporter(),
        )
        finish_rows(rows, out, as_json)
        return
    if device.partition(":")[0] != ADB:
        raise BadInputError(f"`device` {device}: give adb or adb:SERIAL for a phone's browser; none: Chromium here")
    chosen_there = {"threads": threads, "min_runs": min_runs, "min_seconds": min_seconds}
    if given := [name for name, value in chosen_there.items() if value] + ["protocol"] * (protocol != "quick"):
        raise BadInputError(f"`{given[0]}`: it is chosen on the phone's page; leave it out")
    rows = bench_in_phone_browser(
        files,
        device,
        images=photos,
        timeout_seconds=timeout_seconds,
        index=index,
        k=k,
        out=out,
        reporter=console_reporter(),
    )
    finish_rows(rows, out, as_json)
