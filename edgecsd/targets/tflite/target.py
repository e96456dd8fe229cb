"""TFLite artifacts: metadata and runner."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import DamagedFileError, first_line, missing_extra
from edgecsd.quantisation.precisions import Precision
from edgecsd.quiet import quiet_conversion
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME, OneByOne, no_metadata
from edgecsd.targets.metadata import METADATA_KEY
from edgecsd.targets.tflite.file import damaged, read_whole

if TYPE_CHECKING:
    pass


try:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter
except ImportError as error:
    raise missing_extra(error.name or "ai-edge-litert", "tflite") from None
PRECISIONS = frozenset(Precision)
HALF_PRECISIONS = frozenset({Precision.FP16})
RECIPES = {
    Precision.FP32: "float32",
    Precision.FP16: "float16-weights",
    Precision.W8A32: "int8-weights-per-channel",
    Precision.W8A8: "static-s8s8-per-channel-percentile-99.99-or-mean-extremes-body-only-bias-corrected-float-gates",
}


def versions() -> dict[str, str]:
    """Versions of the converter, the quantiser and the runtime, by distribution name."""
    found = {}
    for name in ("litert-torch", "ai-edge-quantizer", "ai-edge-litert"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_metadata_json(path: Path) -> str:
    """The JSON in the buffer that the model's metadata entry "edgecsd" points to."""
    data = read_whole(path)
    try:
        model = schema.Model.GetRootAs(data, 0)
        for entry in (model.Metadata(i) for i in range(model.MetadataLength())):
            if entry.Name() == METADATA_KEY.encode():
                return bytes(model.Buffers(entry.Buffer()).DataAsNumpy()).decode()
    except Exception:  # flatbuffers reads wherever an offset points: struct, index, value and type errors
        raise damaged(path, len(data)) from None
    raise no_metadata(path)


class TfliteRunner(OneByOne):
    """A TFLite artifact in LiteRT's interpreter, on the CPU (XNNPACK)."""

    def __init__(self, path: Path, threads: int) -> None:
        data = read_whole(path)
        with quiet_conversion(f"loading {path}"):  # the interpreter prints its delegate on stderr
            try:
                self._interpreter = Interpreter(model_content=data, num_threads=threads)
                self._interpreter.allocate_tensors()
                self._run = self._interpreter.get_signature_runner()
                inputs, outputs = self._run.get_input_details(), self._run.get_output_details()
            except (ValueError, RuntimeError) as error:
                raise DamagedFileError(
                    f"{path}: not a whole TFLite file: its runtime cannot load it: {first_line(error)}"
                ) from None
        if list(inputs) != [INPUT_NAME] or list(outputs) != [OUTPUT_NAME]:
            raise DamagedFileError(f"{path}: its input and output are not {INPUT_NAME!r} and {OUTPUT_NAME!r}")
        _, height, width, _ = inputs[INPUT_NAME]["shape"]
        super().__init__((int(height), int(width)))
        self.kind = f"LiteRT {'.'.join(version('ai-edge-litert').split('.')[:2])}, CPU"

    def embed_one(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        vector = self._run(**{INPUT_NAME: self.check(pixels)})[OUTPUT_NAME]
        return np.array(vector, np.float32)  # a copy: the interpreter writes the next result into the same memory


def load_runner(path: Path, threads: int) -> TfliteRunner:
    """The artifact in LiteRT on `threads` threads."""
    return TfliteRunner(path, threads)
