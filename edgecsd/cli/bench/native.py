"""edgecsd bench native"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.bench.options import (
    Added,
    Device,
    DevicePython,
    Images,
    Keep,
    MinRuns,
    MinSeconds,
    Protocol,
    Run,
    SshConfig,
    Threads,
    TimeoutSeconds,
    finish_rows,
)
from edgecsd.cli.console import console_reporter
from edgecsd.cli.options import Json, Split


def command(
    files: Annotated[list[Path], typer.Argument(help="Exported .tflite files.")],
    benchmark_model: Annotated[
        Path, typer.Option(help="TFLite's benchmark_model program, built for the device, which needs no Python then.")
    ],
    images: Images = None,
    run: Run = None,
    threads: Threads = None,
    out: Added = None,
    split: Split = None,
    protocol: Protocol = "quick",
    min_runs: MinRuns = None,
    min_seconds: MinSeconds = None,
    timeout_seconds: TimeoutSeconds = None,
    device: Device = None,
    device_python: DevicePython = None,
    ssh_config: SshConfig = None,
    keep: Keep = False,
    as_json: Json = False,
) -> None:
    """Measure on a device without Python, by TFLite's own benchmark_model; it embeds one photo.

    Example: edgecsd bench native run/exports/tf_efficientnet_lite0-w8a8.tflite --benchmark-model benchmark_model \
--device adb
    """
    from edgecsd.measuring.remote.benchmark_model import bench_natively
    from edgecsd.measuring.remote.opening import DeviceOptions, open_native
    from edgecsd.photos.finding import find_images

    reporter = console_reporter()
    with open_native(device, benchmark_model, DeviceOptions(device_python, ssh_config, keep), reporter) as native:
        rows = bench_natively(
            files,
            native,
            images=None if images is None else find_images(images, split=split),
            run=run,
            threads=tuple(threads or (1, 4)),
            protocol=protocol,
            min_seconds=min_seconds,
            min_runs=min_runs,
            timeout_seconds=timeout_seconds,
            out=out,
            reporter=reporter,
        )
    finish_rows(rows, out, as_json)
