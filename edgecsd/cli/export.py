"""edgecsd export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecsd.cli.console import ConsoleReporter, Json, Overwrite, Split, finish


def command(
    run: Annotated[Path, typer.Argument(help="The run folder of a distilled query model.")],
    target: Annotated[str, typer.Option(help="onnx, tflite (alias litert) or coreml.")],
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, w8a32 (8-bit weights) or w8a8 (8-bit weights and activations).")
    ] = "fp32",
    calibration: Annotated[
        Path | None, typer.Option(help="Photos that w8a8 measures its ranges on: unlabelled, like the queries to come.")
    ] = None,
    calibration_count: Annotated[int, typer.Option(min=8, help="How many of them.")] = 64,
    out: Annotated[
        Path | None, typer.Option(help="The file to write (default: RUN/exports/BACKBONE-PRECISION.SUFFIX).")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence text or SPDX name to put into the file's metadata.")
    ] = None,
    ort_format: Annotated[
        bool,
        typer.Option("--ort-format", help="Target onnx: write .ort, onnxruntime's own format for phones."),
    ] = False,
    split: Split = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of calibration photos.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export to one file: uint8 NHWC pixels in, unit embedding out, metadata inside; then read it back and run it.

    Example: edgecsd export run --target tflite --precision w8a8 --calibration photos
    """
    from edgecsd.exporting import export

    result = export(
        run,
        target,
        precision,
        out=out,
        calibration=calibration,
        split=split,
        calibration_count=calibration_count,
        seed=seed,
        licence=licence,
        ort_format=ort_format,
        overwrite=overwrite,
        reporter=ConsoleReporter(),
    )
    parity = result.parity
    text = (
        f"{result.target} {result.precision}: {result.size_bytes / 1e6:.2f} MB; against the torch model: "
        f"cosine mean {parity['cosine_mean']:.6f}, lowest {parity['cosine_min']:.6f}, "
        f"largest difference {parity['max_difference']:.2e}"
    )
    document = {
        "artifact": str(result.path),
        "target": result.target,
        "precision": result.precision,
        "size_bytes": result.size_bytes,
        "sha256": result.sha256,
        "parity": parity,
        "half_precision": result.half_precision.as_dict() if result.half_precision else None,
        "metadata": result.metadata.model_dump(mode="json"),
    }
    finish(
        as_json,
        document,
        text=text,
        wrote=result.path,
        following=f"edgecsd check {result.path} --index gallery.index --images PHOTOS",
    )
