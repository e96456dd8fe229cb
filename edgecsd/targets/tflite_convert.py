"""Torch -> TFLite: float, half, 8-bit weights, and 8-bit convolutions with a float head."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecsd.errors import missing_extra
from edgecsd.quantization import Precision
from edgecsd.targets.artifact import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, ArtifactMetadata
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.quiet import quiet_conversion
from edgecsd.targets.tflite_target import FILE_IDENTIFIER

try:
    import litert_torch
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.recipe_manager import RecipeManager
except ImportError as error:
    raise missing_extra(error.name or "litert-torch", "tflite") from None

CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})
# What is computed in 8 bit between the first and the last convolution; RELU and RELU6 are mostly fused into these.
BODY_OPERATORS = CONVOLUTIONS | {
    "ADD", "PAD", "PADV2", "MUL", "LOGISTIC", "MEAN", "RELU", "HARD_SWISH", "AVERAGE_POOL_2D", "MAX_POOL_2D",
    "CONCATENATION", "RESHAPE", "TRANSPOSE", "SPLIT",
}  # fmt: skip


class _Named(nn.Module):
    """Gives the signature's output its name."""

    def __init__(self, model: DeployModel) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {OUTPUT_NAME: self.model(image)}


def convert(
    model: DeployModel,
    out: Path,
    precision: Precision,
    calibration: NDArray[np.uint8] | None,
    metadata: ArtifactMetadata,
) -> None:
    """Write `model` to `out`; calibration (n, S, S, 3) uint8 is used by w8a8 alone."""
    with quiet_conversion(f"the conversion to TFLite {precision}"), tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "float.tflite"
        edge_model = litert_torch.convert(_Named(model), sample_kwargs={INPUT_NAME: model.example()})
        edge_model.export(str(exported))
        if precision is not Precision.FP32:
            exported = _quantise(exported, _recipe(exported, precision), calibration)
        out.write_bytes(with_metadata(exported.read_bytes(), metadata.model_dump_json()))


def _quantise(exported: Path, recipe: RecipeManager, calibration: NDArray[np.uint8] | None) -> Path:
    work = quantizer.Quantizer(str(exported))
    work.load_quantization_recipe(recipe.get_quantization_recipe())
    ranges = None
    if work.need_calibration:
        assert calibration is not None
        signature = next(iter(Interpreter(model_path=str(exported)).get_signature_list()))
        photos = [{INPUT_NAME: calibration[i : i + 1]} for i in range(len(calibration))]  # read twice: no generator
        ranges = work.calibrate({signature: photos}, num_threads=1)
    written = exported.with_name("quantised.tflite")
    work.quantize(ranges).export_model(str(written), overwrite=True)
    return written


def _recipe(exported: Path, precision: Precision) -> RecipeManager:
    recipe = RecipeManager()
    half, eight = AlgorithmName.FLOAT_CASTING, AlgorithmName.MIN_MAX_UNIFORM_QUANT
    if precision is Precision.FP16:
        for operator in (*CONVOLUTIONS, "FULLY_CONNECTED"):
            recipe.add_weight_only_config(".*", TFLOperationName[operator], 16, _per_tensor(), half)
        return recipe
    # The projection computes in float in w8a8 too; its weights are stored in 8 bit, or they would be half the file.
    recipe.add_weight_only_config(".*", TFLOperationName.FULLY_CONNECTED, 8, algorithm_key=eight)
    if precision is Precision.W8A32:
        # Depthwise weights stay float: 2 % of the weights, half of the error (Lite0: cosine 0.9942 -> 0.9968)
        recipe.add_weight_only_config(".*", TFLOperationName.CONV_2D, 8, algorithm_key=eight)
        return recipe
    for operator, scope in body_operators(exported):
        recipe.add_static_config(scope, TFLOperationName[operator], 8, 8)
    return recipe


def _per_tensor() -> Any:
    from ai_edge_quantizer.qtyping import QuantGranularity

    return QuantGranularity.TENSORWISE  # a cast has no scale


def body_operators(exported: Path) -> list[tuple[str, str]]:
    """Operators from the first convolution to the last that may compute in 8 bit: type, and a pattern of its outputs.

    They are named one by one, by their output tensors, because a rule by type would also catch the MUL, MEAN and DIV of
    the pooling and of L2, which crash (DIV) or give values of 1e10 (MUL) in 8 bit.
    """
    interpreter = Interpreter(model_path=str(exported))
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    operators = interpreter._get_ops_details()  # no public way to list them; in execution order
    places = [place for place, operator in enumerate(operators) if operator["op_name"] in CONVOLUTIONS]
    if not places:
        return []
    body = operators[places[0] : places[-1] + 1]
    return [
        (operator["op_name"], "^" + ";".join(re.escape(names[i]) for i in operator["outputs"]) + ";?$")
        for operator in body
        if operator["op_name"] in BODY_OPERATORS
    ]


class _AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Puts byte vectors, which hold weights, on 16-byte boundaries, as the schema asks; Python's builder does not."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        return int(super().StartVector(elemSize, numElems, max(alignment, 16) if elemSize == 1 else alignment))


def with_metadata(data: bytes, text: str) -> bytes:
    """The TFLite file with one more metadata entry, "edgecsd", whose buffer holds `text`.

    The quantiser appends weights behind the flatbuffer, at absolute offsets that a longer file would break and that the
    last tflite-runtime does not know; they are moved inside.
    """
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    added, entry = schema.BufferT(), schema.MetadataT()
    added.data = np.frombuffer(text.encode(), np.uint8)
    entry.name, entry.buffer = METADATA_KEY, len(model.buffers)
    model.buffers.append(added)
    model.metadata = [*(model.metadata or []), entry]
    builder = _AlignedBuilder(len(data) + len(text) + 1024)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())
