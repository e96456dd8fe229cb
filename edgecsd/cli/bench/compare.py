"""edgecsd bench compare"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.bench.measure import finish_result
from edgecsd.cli.bench.options import Images, MinRuns, MinSeconds, Out, Plot, Protocol, Run, Threads, TimeoutSeconds
from edgecsd.cli.bench.table import exit_code
from edgecsd.cli.console import console_reporter, table
from edgecsd.cli.options import Json, Overwrite, Split

if TYPE_CHECKING:
    from edgecsd.measuring.regression import Comparison


def command(
    before: Annotated[Path, typer.Argument(help="The exported file of today.")],
    after: Annotated[Path, typer.Argument(help="The file to replace it.")],
    max_regression: Annotated[
        str | None, typer.Option(help="Exit 1 if CPU time, memory, size or distance grow by more, such as 5%.")
    ] = None,
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
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure two files on this host, CPU time by turns, and compare them.

    Exit 1 if a row failed or --max-regression is passed.

    Example: edgecsd bench compare run/exports/tf_efficientnet_lite0-fp32.tflite \
run/exports/tf_efficientnet_lite0-w8a8.tflite --images photos --max-regression 5%
    """
    from edgecsd.cli.numbers import share_from_text
    from edgecsd.measuring.bench import bench
    from edgecsd.measuring.regression import compare_artifacts
    from edgecsd.photos.finding import find_images

    allowed = None if max_regression is None else share_from_text(max_regression, "--max-regression")
    photos = None if images is None else find_images(images, split=split)
    result = bench(
        [before, after],
        images=photos,
        run=run,
        threads=tuple(threads or (1, 4)),
        protocol=protocol,
        min_seconds=min_seconds,
        min_runs=min_runs,
        timeout_seconds=timeout_seconds,
        out=out,
        overwrite=overwrite,
        reporter=console_reporter(),
    )
    if exit_code(result.rows):
        finish_result(result, out, plot, as_json)
        return
    compared = compare_artifacts(result, photos, max_regression=allowed)
    document = {"comparison": {**asdict(compared), "passed": compared.passed}}
    finish_result(result, out, plot, as_json, more=document, text=f"\n{_compared(compared)}", passed=compared.passed)


def _compared(comparison: Comparison) -> str:
    rows = [
        (
            change.name,
            f"{change.before:.4g}",
            f"{change.after:.4g}",
            change.unit,
            f"{change.ratio:.3f}",
            "" if change.low is None else f"{change.low:.3f}-{change.high:.3f}",
            "-" if change.limit is None else "yes" if change.passed else f"NO, at most {change.limit:.2f}",
        )
        for change in comparison.changes
    ]
    header = (f"{Path(comparison.after).name} beside {Path(comparison.before).name}", "before", "after", "", "ratio")
    return table((*header, "10-90 %", "passed"), rows)
