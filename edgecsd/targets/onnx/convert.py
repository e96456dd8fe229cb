"""Torch -> ONNX: float, half, 8-bit weights, and 8-bit convolutions with a float head; as .onnx or as .ort."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import missing_extra
from edgecsd.quantisation.precisions import STANDARD, EightBit, Precision
from edgecsd.quiet import quiet_conversion
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME
from edgecsd.targets.deploy import DeployModel, PlanesFirst
from edgecsd.targets.folding import folded
from edgecsd.targets.metadata import METADATA_KEY, ORT_SUFFIX, ArtifactMetadata
from edgecsd.targets.traced import traced_once

try:
    import onnx
    import onnxruntime
    import onnxscript  # noqa: F401  torch's exporter loads it by itself, and fails late and unclearly without it
    import torch
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    from edgecsd.targets.onnx.attention import scale_keys
    from edgecsd.targets.onnx.compact import compact
    from edgecsd.targets.onnx.quantise import quantise_body, store_weights_in_8_bit
    from edgecsd.targets.onnx.resize import with_resize
except ImportError as error:
    raise missing_extra(error.name or "onnx", "onnx") from None


def convert(
    model: DeployModel,
    out: Path,
    precision: Precision,
    calibration: NDArray[np.uint8] | None,
    metadata: ArtifactMetadata,
    how: EightBit = STANDARD,
) -> None:
    """Write `model` to `out`, in onnxruntime's own format if that ends in .ort.

    calibration   (n, S, S, 3) uint8, used by w8a8 alone
    """
    with quiet_conversion(f"the conversion to ONNX {precision}"), tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "float.onnx"
        exported.write_bytes(_float_file(model))
        proto = onnx.load(str(exported))
        if precision is Precision.FP16:
            scale_keys(proto)
            proto = _sorted(convert_float_to_float16(proto, keep_io_types=True))
        elif precision is Precision.W8A32:
            store_weights_in_8_bit(proto, {"Conv", "Gemm", "MatMul"})
        elif precision is Precision.W8A8:
            assert calibration is not None
            proto = quantise_body(exported, calibration, how)
        compact(proto)
        if metadata.baked is not None:
            proto = with_resize(proto, metadata.preprocess, metadata.baked)
        entry = proto.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, metadata.model_dump_json()
        onnx.checker.check_model(proto, full_check=True)
        if out.suffix == ORT_SUFFIX:
            whole = Path(folder) / "whole.onnx"
            onnx.save(proto, str(whole))
            write_ort_format(whole, out)
        else:
            onnx.save(proto, str(out))


def _sorted(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The nodes behind those that they read from: the casts that fp16 takes may stand anywhere (EfficientFormerV2)."""
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError:
        model = ONNXModel(proto)
        model.topological_sort()
        proto = model.model
    return proto


@traced_once
def _float_file(model: DeployModel) -> bytes:
    whole = PlanesFirst(model) if type(model) is DeployModel else model  # others may take pixels in their own way
    example = model.example()
    with tempfile.TemporaryDirectory() as folder:
        torch.onnx.export(
            folded(whole, example),
            (example,),
            f"{folder}/float.onnx",
            dynamo=True,
            external_data=False,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
        )
        return Path(folder, "float.onnx").read_bytes()


def write_ort_format(source: Path, out: Path) -> None:
    """The ONNX file `source` in onnxruntime's own format, which its reduced builds for phones load; metadata stays.

    Optimised as far as holds for every processor, for the format is not optimised again when it is loaded: without
    x86's blocked layout (NCHWc), and with 8-bit weights as u8. As s8 the very file saturates on x86 without VNNI,
    whatever the app's settings (cosine 0.93 instead of 1.00, MobileNetV3). ORT_ENABLE_ALL would store the weights of
    fp16 in 32 bit.
    """
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(out), 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.add_session_config_entry("session.x64quantprecision", "1")
    onnxruntime.InferenceSession(
        str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer"]
    )
