"""edgecsd bench measure"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecsd.cli.bench.options import (
    Device,
    DevicePython,
    Images,
    Index,
    K,
    Keep,
    MinRuns,
    MinSeconds,
    Out,
    Plot,
    Protocol,
    Run,
    SshConfig,
    Threads,
    TimeoutSeconds,
)
from edgecsd.cli.bench.table import exit_code, rows_table
from edgecsd.cli.console import console_reporter, finish
from edgecsd.cli.options import Json, Overwrite, Split

if TYPE_CHECKING:
    from edgecsd.measuring.schema import BenchResult
    from edgecsd.measuring.soak import Soak


def command(
    files: Annotated[list[Path], typer.Argument(help="Exported files.")],
    images: Images = None,
    run: Run = None,
    threads: Threads = None,
    out: Out = None,
    plot: Plot = None,
    split: Split = None,
    protocol: Protocol = "quick",
    min_runs: MinRuns = None,
    min_seconds: MinSeconds = None,
    timeout_seconds: TimeoutSeconds = None,
    device: Device = None,
    device_python: DevicePython = None,
    ssh_config: SshConfig = None,
    keep: Keep = False,
    index: Index = None,
    k: K = 10,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure latency, memory and parity on this host or a device, each in a fresh process.

    Exit 1 if a row failed, 4 if none can be measured there.

    Example: edgecsd bench measure run/exports/tf_efficientnet_lite0-w8a8.tflite --images photos --threads 1
    """
    from edgecsd.measuring.bench import bench
    from edgecsd.measuring.remote.opening import DeviceOptions, open_device
    from edgecsd.photos.finding import find_images

    reporter = console_reporter()
    with open_device(device, DeviceOptions(device_python, ssh_config, keep), reporter) as place:
        result = bench(
            files,
            images=None if images is None else find_images(images, split=split),
            run=run,
            threads=tuple(threads or (1, 4)),
            protocol=protocol,
            min_seconds=min_seconds,
            min_runs=min_runs,
            timeout_seconds=timeout_seconds,
            device=place,
            index=index,
            k=k,
            out=out,
            overwrite=overwrite,
            reporter=reporter,
        )
    finish_result(result, out, plot, as_json)


def finish_result(
    result: BenchResult,
    out: Path | None,
    plot: Path | None,
    as_json: bool,
    *,
    soaks: list[tuple[str, Soak]] | None = None,
    more: dict[str, Any] | None = None,
    text: str = "",
    passed: bool = True,
) -> None:
    """Print the rows, then `text`, and draw them; exit 1 if a row failed or not `passed`, 4 if none can be measured.

    soaks: for the plots; more: parts of the JSON document
    """
    document = {"rows": [row.model_dump(mode="json") for row in result.rows], "out": result.out, **(more or {})}
    lines = [rows_table(result.rows), *([text] if text else [])]
    if plot is not None:
        from edgecsd.measuring.plots import plot_rows

        written = [str(path) for path in plot_rows(result.rows, plot, soaks or [])]
        document["figures"] = written
        lines += [f"wrote {path}" for path in written]
    finish(as_json, document, text="\n".join(lines), wrote=out)
    if code := exit_code(result.rows) or (0 if passed else 1):
        raise typer.Exit(code)
