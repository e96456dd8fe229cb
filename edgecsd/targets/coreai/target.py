"""Core AI artifacts (experimental): metadata and runner."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from edgecsd.errors import missing_extra
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.artifact import Runner, no_metadata
from edgecsd.targets.coreai.asset import own_metadata, read_about

if TYPE_CHECKING:
    pass

try:
    import coreai  # noqa: F401  a few lines; its libraries are loaded by who converts, describes or runs
except ImportError:
    raise missing_extra("coreai-core", "coreai") from None

PRECISIONS = frozenset({Precision.FP32, Precision.FP16, Precision.W8A32})
HALF_PRECISIONS = frozenset({Precision.FP16})
RECIPES = {
    Precision.FP32: "float32-experimental",
    Precision.FP16: "float16-experimental",
    Precision.W8A32: "int8-weights-symmetric-per-channel-experimental",
}
PACKAGES = ("coreai-core", "coreai-torch")


def versions() -> dict[str, str]:
    """Versions of the compiler with its reference runtime, and of the converter."""
    try:
        return {name: version(name) for name in PACKAGES}
    except PackageNotFoundError as error:
        raise missing_extra(str(error.name), "coreai") from None


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
