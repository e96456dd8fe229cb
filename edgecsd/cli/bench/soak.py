"""edgecsd bench soak"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.bench.measure import finish_result
from edgecsd.cli.bench.options import (
    Device,
    DevicePython,
    Images,
    Keep,
    Out,
    Plot,
    Run,
    SshConfig,
    Threads,
    TimeoutSeconds,
)
from edgecsd.cli.console import console_reporter
from edgecsd.cli.options import Json, Overwrite, Split
from edgecsd.errors import BadInputError

WINDOWS = 60  # of a soak
MIN_WINDOW = 0.5  # seconds


def command(
    files: Annotated[list[Path], typer.Argument(help="Exported files.")],
    minutes: Annotated[float, typer.Option(help="How long each file runs.")],
    images: Images = None,
    run: Run = None,
    threads: Threads = None,
    out: Out = None,
    plot: Plot = None,
    split: Split = None,
    device: Device = None,
    device_python: DevicePython = None,
    ssh_config: SshConfig = None,
    keep: Keep = False,
    timeout_seconds: TimeoutSeconds = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Run for minutes without a pause, and say when a device became warm and slower.

    Example: edgecsd bench soak run/exports/tf_efficientnet_lite0-w8a8.tflite --minutes 10 --device adb
    """
    from edgecsd.measuring.bench import bench
    from edgecsd.measuring.remote.opening import DeviceOptions, open_device
    from edgecsd.measuring.soak import in_words, soak_of
    from edgecsd.photos.finding import find_images

    if minutes <= 0:
        raise BadInputError(f"`minutes` {minutes:g}: minutes above 0 are needed")
    reporter = console_reporter()
    with open_device(device, DeviceOptions(device_python, ssh_config, keep), reporter) as place:
        result = bench(
            files,
            images=None if images is None else find_images(images, split=split),
            run=run,
            threads=tuple(threads or (1,)),
            min_seconds=60 * minutes,
            min_runs=1,
            timeout_seconds=timeout_seconds,
            device=place,
            out=out,
            overwrite=overwrite,
            reporter=reporter,
        )
    window = max(MIN_WINDOW, 60 * minutes / WINDOWS)
    soaks = [(row.name, soak_of(row, window)) for row in result.rows if row.figures is not None]
    document = {"soak": {name: each.as_dict() for name, each in soaks}}
    finish_result(result, out, plot, as_json, soaks=soaks, more=document, text="\n".join(in_words(soaks)))
