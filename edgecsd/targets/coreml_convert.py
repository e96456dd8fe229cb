"""Torch -> Core ML (an ML Program for iOS 17 or later): float, half, and 8-bit weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edgecsd.errors import missing_extra
from edgecsd.quantization import Precision
from edgecsd.targets.artifact import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, ArtifactMetadata
from edgecsd.targets.deploy import DeployModel, PlanarDeployModel
from edgecsd.targets.quiet import quiet_conversion

try:
    import coremltools
    from coremltools.optimize import coreml as optimize
except ImportError as error:
    raise missing_extra(error.name or "coremltools", "coreml") from None


def convert(model: DeployModel, out: Path, precision: Precision, metadata: ArtifactMetadata) -> None:
    """Write `model` to the folder `out`. The input is an RGB image, as the camera and Vision give it."""
    with quiet_conversion(f"the conversion to Core ML {precision}"):
        planar = PlanarDeployModel(model)
        shape = (1, 3, model.size, model.size)
        # Not torch.jit.trace: TensorFlow-style padding computes its widths there, and coremltools fails on them.
        program = torch.export.export(planar, (torch.rand(shape) * 255,)).run_decompositions({})
        package = coremltools.convert(
            program,
            inputs=[coremltools.ImageType(name=INPUT_NAME, shape=shape, color_layout=coremltools.colorlayout.RGB)],
            outputs=[coremltools.TensorType(name=OUTPUT_NAME, dtype=np.float32)],
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target.iOS17,
            compute_precision=_compute_precision(precision),
            skip_model_load=True,  # loading compiles it, which only macOS can do
        )
        if precision is Precision.W8A32:
            package = optimize.linear_quantize_weights(package, _eight_bit_weights())
        package.short_description = f"edgecsd query model ({metadata.backbone}), {precision}"
        package.license = metadata.licence or ""
        package.user_defined_metadata[METADATA_KEY] = metadata.model_dump_json()
        package.save(str(out))


def _compute_precision(precision: Precision) -> coremltools.precision:
    # 8-bit weights go with 16-bit computing: the Neural Engine has no other, and what stays float is half the size.
    return coremltools.precision.FLOAT32 if precision is Precision.FP32 else coremltools.precision.FLOAT16


def _eight_bit_weights() -> optimize.OptimizationConfig:
    # Weights below coremltools' own threshold of 2048 values stay float.
    return optimize.OptimizationConfig(
        optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel")
    )
