"""Where an export is written, and whether it can be: asked before anything is converted."""

from __future__ import annotations

from pathlib import Path

from edgecsd.errors import BadInputError
from edgecsd.files.places import require_writable
from edgecsd.photos.whole_photo import PhotoSize
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.metadata import ORT_SUFFIX, Target

AUTO = "auto"
FOLDERS = {".mlpackage": ("Manifest.json",), ".aimodel": ("metadata.json",)}  # what is in those that are folders


def suffix_of(target: Target, ort_format: bool) -> str:
    """The ending of the file's name; BadInputError for `ort_format` of a target that has none."""
    if ort_format and target is not Target.ONNX:
        raise BadInputError(f"`ort_format` is a form of target onnx; target {target} has none: leave it out")
    return ORT_SUFFIX if ort_format else target.suffix


def default_place(
    run: Path, backbone: str, precision: Precision | str, suffix: str, baked: PhotoSize | None, study_only: bool = False
) -> Path:
    """RUN/exports/BACKBONE-PRECISION.SUFFIX; precision "auto" is one that a search chooses."""
    marks = f"{'' if baked is None else '-whole-photo'}{'-study-only' if study_only else ''}"
    return run / "exports" / f"{backbone}-{precision}{marks}{suffix}"


def require_place(path: Path, target: Target, suffix: str, *, overwrite: bool) -> None:
    """BadInputError for a name that no file of the target has, for what is there already, and for a closed folder."""
    if path.suffix != suffix:
        other = "; .ort is written with `ort_format`" if path.suffix == ORT_SUFFIX else ""
        raise BadInputError(f"`out` {path}: the name of a {target} artifact ends in {suffix}{other}")
    require_not_taken(path, overwrite=overwrite)
    if path.is_dir() and not any((path / name).is_file() for name in FOLDERS.get(suffix, ())):
        raise BadInputError(f"{path}: `overwrite` replaces a {target} artifact only; choose another `out`")
    require_writable(path)


def require_not_taken(path: Path, *, overwrite: bool) -> None:
    """BadInputError for what is there already."""
    if path.exists() and not overwrite:
        raise BadInputError(f"{path}: already there; choose another `out` or add `overwrite`")
