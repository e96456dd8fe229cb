"""edgecsd inspect"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecsd.cli.console import finish, quoted, run_option, table
from edgecsd.cli.options import Json

if TYPE_CHECKING:
    from edgecsd.photos.contract import PixelSteps
    from edgecsd.targets.description import Description, Value
    from edgecsd.targets.inspecting import Inspection

KILO = 1000


def command(
    file: Annotated[Path, typer.Argument(help="A .onnx, .ort or .tflite file, a .mlpackage or .aimodel folder.")],
    sha256: Annotated[str | None, typer.Option(help="The digest that the file should have.")] = None,
    as_json: Json = False,
) -> None:
    """What is in this file: metadata, size by part, operators, inputs and outputs. Exit 2: something in it differs.

    Example: edgecsd inspect run/exports/tf_efficientnet_lite0-w8a8.tflite
    """
    from edgecsd.targets.inspecting import inspect

    result = inspect(file, sha256=sha256)
    following = f"edgecsd check {quoted(file)} --index gallery.index --images PHOTOS{run_option(file, None)}"
    finish(as_json, result.as_dict(), text=_text(result), following=following if result.metadata else None)
    if not result.holds:
        raise typer.Exit(2)


def _text(result: Inspection) -> str:
    description = result.description
    return "\n".join(
        [
            f"{result.path}: {description.format}, {_kilobytes(result.size_bytes)} kB",
            f"SHA-256 {result.sha256}",
            *_metadata(result),
            "",
            *(f"input {_value(each)}" for each in description.inputs),
            *(f"output {_value(each)}" for each in description.outputs),
            "",
            table(("part", "kB"), [(part.name, _kilobytes(part.size_bytes)) for part in result.parts]),
            "",
            *_operators(description),
            *(f"note: {note}" for note in description.notes),
            *([""] if result.checks else []),
            *(f"{check.name}: {check.outcome} ({check.reason})" for check in result.checks),
        ]
    )


def _operators(description: Description) -> list[str]:
    quantised = sum(description.quantised_operators.values())
    rows = [
        (name, str(count), str(description.quantised_operators.get(name, 0) or "-"))
        for name, count in description.operators.items()
    ]
    return [
        table(("operator", "count", "in 8 bit"), rows),
        f"{sum(description.operators.values())} operators, {quantised} of them on 8-bit activations",
    ]


def _kilobytes(size: int) -> str:
    return f"{size / KILO:.1f}" if size >= KILO / 10 or not size else f"{size / KILO:.3f}"


def _value(value: Value) -> str:
    return f"{value.name}: {value.dtype} ({', '.join('?' if side < 0 else str(side) for side in value.shape)})"


def _metadata(result: Inspection) -> list[str]:
    if not result.written_by_edgecsd:
        return ["no edgecsd metadata: another program wrote this file"]
    metadata = result.metadata
    if metadata is None:
        return ["its edgecsd metadata cannot be trusted: see below"]
    pixels = metadata.preprocess
    lines = [
        f"query model {metadata.backbone}, {metadata.precision}, recipe {metadata.recipe}",
        f"embedding space {metadata.fingerprint}: {metadata.space.gallery_model}, {metadata.dim} dimensions, "
        f"{metadata.metric}",
        f"pixels: {pixels.size} x {pixels.size}, {pixels.resize}, crop {pixels.crop_pct:g}, {pixels.interpolation}, "
        f"mean {_list(pixels.mean)}, std {_list(pixels.std)}",
        _steps(metadata.pixels),
        *([f"resize and crop are inside: it takes photos of {metadata.baked}"] if metadata.baked else []),
        *(["for study only: written whether or not its embeddings are torch's"] if metadata.study_only else []),
        f"made with {', '.join(f'{name} {version}' for name, version in metadata.versions.items())}",
        f"weights of the query model {metadata.weights_digest}",
    ]
    if metadata.calibration_digest:
        lines.append(f"calibrated on {metadata.calibration_count} photos, {metadata.calibration_digest}")
    return [*lines, *([f"licence {metadata.licence}"] if metadata.licence else [])]


def _steps(steps: PixelSteps | None) -> str:
    if steps is None:
        return "the other steps of the pixel contract are not stated (schema version 1): those of docs/file-formats.md"
    return (
        f"pixels, in this order: {steps.decoding}; resize {'with' if steps.antialias else 'without'} antialias to "
        f"{steps.resized}; in the file {steps.normalised}, scale {steps.scale:.8f}"
    )


def _list(values: tuple[float, float, float]) -> str:
    return " ".join(f"{value:g}" for value in values)
