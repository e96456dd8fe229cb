"""Core ML artifacts: metadata and runner."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import EdgecsdError, first_line, missing_extra
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME, OneByOne, Runner, no_metadata
from edgecsd.targets.coreml.package import damaged, open_package
from edgecsd.targets.metadata import METADATA_KEY

if TYPE_CHECKING:
    pass


try:
    import coremltools
except ImportError as error:
    raise missing_extra(error.name or "coremltools", "coreml") from None
PRECISIONS = frozenset(Precision)
HALF_PRECISIONS = PRECISIONS - {Precision.FP32}  # 8-bit weights go with 16-bit computing: coreml_convert
RECIPES = {
    Precision.FP32: "float32",
    Precision.FP16: "float16",
    Precision.W8A32: "int8-weights-linear-symmetric-per-channel-float16-computing",
    # No device has run it: the ranges come from the evaluator, and so does every figure about it.
    Precision.W8A8: (
        "w8a8-per-channel-percentile-99.99-or-mean-extremes-body-only-bias-corrected"
        "-verified-by-reference-semantics-only"
    ),
}


def versions() -> dict[str, str]:
    """Version of the converter, which on macOS is the door to the runtime too."""
    return {"coremltools": coremltools.__version__}


def read_metadata_json(path: Path) -> str:
    """The JSON under the key "edgecsd" of user_defined_metadata."""
    metadata = open_package(path).user_defined_metadata
    if METADATA_KEY not in metadata:
        raise no_metadata(path)
    return str(metadata[METADATA_KEY])


class CoremlRunner(OneByOne):
    """A Core ML artifact run by macOS. Never run where edgecsd is developed and tested, which is Linux."""

    def __init__(self, path: Path) -> None:
        try:
            self._model = coremltools.models.MLModel(str(path))
        except Exception as error:
            raise damaged(path, f"macOS cannot load it: {first_line(error)}") from None
        super().__init__(int(self._model.get_spec().description.input[0].type.imageType.width))
        self.kind = f"Core ML on macOS {platform.mac_ver()[0]}, all compute units"

    def embed_one(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        from PIL import Image

        try:
            result = self._model.predict({INPUT_NAME: Image.fromarray(self.check(pixels)[0])})
        except Exception as error:
            raise EdgecsdError(f"Core ML failed to run the model: {error}") from None
        return np.asarray(result[OUTPUT_NAME], np.float32).reshape(1, -1)


def load_runner(path: Path, threads: int) -> Runner:
    """Core ML itself on macOS, which chooses its own threads; elsewhere the evaluator of its reference semantics."""
    if platform.system() == "Darwin":
        return CoremlRunner(path)
    from edgecsd.targets.coreml.evaluator import CoremlEvaluator

    return CoremlEvaluator(path, threads)
