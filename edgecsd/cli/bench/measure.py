"""edgecsd bench: the group of commands about latency, and `measure`, which is meant where none is named."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecsd.cli.bench.browser import is_browser, measure_in_browser
from edgecsd.cli.bench.imported import finish_rows
from edgecsd.cli.bench.table import exit_code, rows_table
from edgecsd.cli.console import ConsoleReporter, DefaultsToMeasure, Json, Overwrite, Split, finish, table
from edgecsd.errors import BadInputError

if TYPE_CHECKING:
    from edgecsd.bench.regression import Comparison


SOAK_WINDOWS = 60  # of a soak
MIN_WINDOW = 0.5  # seconds

app = typer.Typer(
    cls=DefaultsToMeasure,
    help="Measure latency, memory and parity of exported files (edgecsd bench FILE; options: edgecsd bench measure "
    "--help), and what else there is to do about measurements.\n\n"
    "Example: edgecsd bench run/exports/tf_efficientnet_lite0-w8a8.tflite --images photos --threads 1",
)


@app.command("measure")
def measure(
    files: Annotated[list[Path], typer.Argument(help="Exported files.")],
    images: Annotated[
        Path | None, typer.Option(help="Real photos to feed (default: synthetic ones, which the row says).")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="The run they were exported from (found by itself in RUN/exports).")
    ] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Threads; may be repeated (1 and 4).")] = None,
    protocol: Annotated[
        str, typer.Option(help="quick (200 runs, 10 s) or report (1024 runs, 60 s, three repeats).")
    ] = "quick",
    min_runs: Annotated[int | None, typer.Option(min=1, help="Other than the protocol's.")] = None,
    min_seconds: Annotated[float | None, typer.Option(min=0, help="Other than the protocol's.")] = None,
    timeout_seconds: Annotated[
        float | None, typer.Option(help="Give one measuring process up after this (default: enough for 2 s a run).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the rows; rows that are there already are not measured again.")
    ] = None,
    interleave: Annotated[
        bool, typer.Option("--interleave", help="Of two files: the second beside the first, CPU time by turns.")
    ] = False,
    max_regression: Annotated[
        str | None,
        typer.Option(help="With two files: exit 1 if CPU time, memory, size or distance grow by more, such as 5%."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Where: ssh://USER@HOST[:PORT], adb[:SERIAL], browser or adb-browser[:SERIAL] (or here)."),
    ] = None,
    device_python: Annotated[str | None, typer.Option(help="The Python there (default: python3 on its PATH).")] = None,
    benchmark_model: Annotated[
        Path | None, typer.Option(help="TFLite's benchmark_model for the device, which then needs no Python.")
    ] = None,
    ssh_config: Annotated[Path | None, typer.Option(help="Configuration for ssh, in place of your own.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the temporary folder on the device.")] = False,
    index: Annotated[
        str | None,
        typer.Option(help="Gallery index (folder or milvus:URI#COLLECTION): how many neighbours each row finds."),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours, of --index.")] = 10,
    soak: Annotated[
        float | None, typer.Option(help="Measure for so many minutes, and say when it became slower.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Folder for figures: distribution, latency against what is found, minutes.")
    ] = None,
    split: Split = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure latency, memory and parity on this host or a device, each in a fresh process.

    Exit 1 if a row failed, 4 if none can be measured there.

    Example: edgecsd bench run/exports/tf_efficientnet_lite0-w8a8.tflite --images photos --threads 1
    """
    from edgecsd.bench.regression import compare_artifacts
    from edgecsd.bench.remote.benchmark_model import bench_natively
    from edgecsd.bench.remote.opening import DeviceOptions, open_device, open_native
    from edgecsd.bench.run import bench
    from edgecsd.cli.numbers import share_from_text
    from edgecsd.photos.finding import find_images

    allowed = None if max_regression is None else share_from_text(max_regression, "--max-regression")
    comparing = interleave or allowed is not None
    if comparing and len(files) != 2:
        raise BadInputError(f"--interleave compares two artifacts, the new one last; {len(files)} were given")
    if comparing and device is not None:
        raise BadInputError("--interleave and --max-regression compare on this machine only: leave --device out")
    if soak is not None:
        protocol, min_runs, min_seconds = _soak_protocol(soak, min_seconds, min_runs, comparing, benchmark_model)
        threads = threads or [1]
    photos = None if images is None else find_images(images, split=split)
    if device is not None and is_browser(device):
        measures = {"min_runs": min_runs, "min_seconds": min_seconds, "timeout_seconds": timeout_seconds}
        here = device == "browser"
        counts = tuple(threads or ((1, 4) if here else ()))
        refused = {
            "--run": run,
            "--overwrite": overwrite,
            "--device-python": device_python,
            "--benchmark-model": benchmark_model,
            "--ssh-config": ssh_config,
            "--keep": keep,
            "--protocol": "" if here or protocol == "quick" else protocol,
        }
        given = {"images": photos, "threads": counts, "protocol": protocol, "index": index, "k": k, **measures}
        measure_in_browser(device, files, given, refused, out, as_json)
        return
    reporter, options = ConsoleReporter(), DeviceOptions(device_python, ssh_config, keep)
    if benchmark_model is not None:
        if index is not None or overwrite:
            raise BadInputError("--benchmark-model embeds one photo and adds rows: leave --index and --overwrite out")
        with open_native(device, benchmark_model, options, reporter) as native:
            timed = bench_natively(
                files,
                native,
                images=photos,
                run=run,
                threads=tuple(threads or (1, 4)),
                protocol=protocol,
                min_seconds=min_seconds,
                min_runs=min_runs,
                timeout_seconds=timeout_seconds,
                out=out,
                reporter=reporter,
            )
        finish_rows(timed, out, as_json)
        return
    with open_device(device, options, reporter) as place:
        result = bench(
            files,
            images=photos,
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
    document: dict[str, Any] = {"rows": [row.model_dump(mode="json") for row in result.rows], "out": result.out}
    text, code = rows_table(result.rows), exit_code(result.rows)
    if comparing and not code:
        compared = compare_artifacts(result, photos, max_regression=allowed)
        document["comparison"] = {**asdict(compared), "passed": compared.passed}
        text, code = f"{text}\n\n{_compared(compared)}", 0 if compared.passed else 1
    soaks = []
    if soak is not None:
        from edgecsd.bench.soak import soak_of, told

        window = max(MIN_WINDOW, 60 * soak / SOAK_WINDOWS)
        soaks = [(row.name, soak_of(row, window)) for row in result.rows if row.figures is not None]
        document["soak"] = {name: each.as_dict() for name, each in soaks}
        text = "\n".join([text, *told(soaks)])
    if plot is not None:
        from edgecsd.bench.plots import plot_rows

        written = plot_rows(result.rows, plot, soaks)
        document["figures"] = [str(path) for path in written]
        text += "".join(f"\nwrote {path}" for path in written)
    finish(as_json, document, text=text, wrote=out)
    if code:
        raise typer.Exit(code)


def _soak_protocol(
    minutes: float, min_seconds: float | None, min_runs: int | None, comparing: bool, tool: Path | None
) -> tuple[str, int, float]:
    """What a soak measures by, as protocol, min_runs and min_seconds."""
    if minutes <= 0:
        raise BadInputError(f"--soak {minutes:g}: minutes above 0 are needed")
    if comparing or tool is not None or min_seconds is not None or min_runs is not None:
        raise BadInputError(
            "--soak is one long measurement: leave --interleave, --max-regression, --benchmark-model, --min-runs and "
            "--min-seconds out"
        )
    return "quick", 1, 60 * minutes


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
