"""Core AI artifacts (experimental): metadata and runner. Conversion is in coreai_convert."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, missing_extra
from edgecsd.quantisation.precisions import STANDARD, EightBit, Precision
from edgecsd.quiet import quiet_conversion
from edgecsd.targets.artifact import Runner, no_metadata
from edgecsd.targets.coreai.asset import own_metadata, read_about
from edgecsd.targets.metadata import ArtifactMetadata

if TYPE_CHECKING:
    from edgecsd.targets.deploy import DeployModel

try:
    import coreai  # noqa: F401  a few lines; its libraries are loaded by who converts, describes or runs
except ImportError:
    raise missing_extra("coreai-core", "coreai") from None

PRECISIONS = frozenset({Precision.FP32, Precision.FP16, Precision.W8A32})
HALF_PRECISIONS = frozenset({Precision.FP16})
_RECIPES = {
    Precision.FP32: "float32-experimental",
    Precision.FP16: "float16-experimental",
    Precision.W8A32: "int8-weights-symmetric-per-channel-experimental",
}
PACKAGES = ("coreai-core", "coreai-torch")


def recipe(precision: Precision) -> str:
    """The name of the recipe that `convert` follows for this precision."""
    return _RECIPES[precision]


def versions() -> dict[str, str]:
    """Versions of the compiler with its reference runtime, and of the converter."""
    try:
        return {name: version(name) for name in PACKAGES}
    except PackageNotFoundError as error:
        raise missing_extra(str(error.name), "coreai") from None


def convert(
    model: DeployModel,
    out: Path,
    precision: Precision,
    calibration: NDArray[np.uint8] | None,
    metadata: ArtifactMetadata,
    how: EightBit = STANDARD,
) -> None:
    """Write `model` to the folder `out`. There is no w8a8: calibration and `how` have nothing to decide."""
    if precision not in PRECISIONS:
        has = ", ".join(each for each in Precision if each in PRECISIONS)
        raise BadInputError(f"target coreai has no precision {precision}; it has: {has}")
    del calibration, how
    with quiet_conversion("loading the converter to Core AI"):
        from edgecsd.targets.coreai import convert as coreai_convert

    coreai_convert.convert(model, out, precision, metadata)


def read_metadata_json(path: Path) -> str:
    """The JSON under the key "edgecsd" of metadata.json's creatorDefinedMetadata."""
    text = own_metadata(read_about(path))
    if text is None:
        raise no_metadata(path)
    return text


def load_runner(path: Path, threads: int) -> Runner:
    """The reference runtime, in `threads` processes, for it computes on one thread."""
    from edgecsd.targets.coreai.runner import CoreaiRunner

    return CoreaiRunner(path, threads)
