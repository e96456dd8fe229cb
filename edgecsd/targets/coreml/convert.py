"""Torch -> Core ML (an ML Program for iOS 17 or later): float, half, 8-bit weights, and 8-bit convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgecsd.errors import missing_extra
from edgecsd.quantisation.precisions import STANDARD, EightBit, Precision
from edgecsd.quiet import quiet_conversion
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME
from edgecsd.targets.deploy import DeployModel, PlanarDeployModel
from edgecsd.targets.folding import folded
from edgecsd.targets.metadata import METADATA_KEY, ArtifactMetadata

try:
    import coremltools
    from coremltools.optimize import coreml as optimize
except ImportError as error:
    raise missing_extra(error.name or "coremltools", "coreml") from None


def convert(
    model: DeployModel,
    out: Path,
    precision: Precision,
    calibration: NDArray[np.uint8] | None,
    metadata: ArtifactMetadata,
    how: EightBit = STANDARD,
) -> None:
    """Write `model` to the folder `out`. The input is an RGB image, as the camera and Vision give it.

    calibration  (n, S, S, 3) uint8, used by w8a8 alone, which has one recipe: `how` has nothing to decide
    """
    del how
    with quiet_conversion(f"the conversion to Core ML {precision}"):
        shape = (1, 3, model.size, model.size)
        example = model.example().permute(0, 3, 1, 2).float().contiguous()
        planar = folded(PlanarDeployModel(model), example)
        # Not torch.jit.trace: TensorFlow-style padding computes its widths there, and coremltools fails on them.
        program = torch.export.export(planar, (example,)).run_decompositions(_decompositions())
        package = coremltools.convert(
            program,
            inputs=[coremltools.ImageType(name=INPUT_NAME, shape=shape, color_layout=coremltools.colorlayout.RGB)],
            outputs=[coremltools.TensorType(name=OUTPUT_NAME, dtype=np.float32)],
            convert_to="mlprogram",
            minimum_deployment_target=coremltools.target.iOS17,
            compute_precision=_compute_precision(precision),
            skip_model_load=True,  # loading compiles it, which only macOS can do
        )
        if precision is Precision.W8A8:
            from edgecsd.targets.coreml.quantise import quantise_activations

            assert calibration is not None
            package = quantise_activations(package, calibration)
        if precision in (Precision.W8A32, Precision.W8A8):
            package = optimize.linear_quantize_weights(package, _eight_bit_weights(precision))
        package.short_description = f"edgecsd query model ({metadata.backbone}), {precision}"
        package.license = metadata.licence or ""
        package.user_defined_metadata[METADATA_KEY] = metadata.model_dump_json()
        package.save(str(out))


def _decompositions() -> dict[Any, Any]:
    # What coremltools 9.0 has no rule for: `alias` (GhostNet), a view of the whole, and `addcmul` (ConvNeXt V2)
    table: dict[Any, Any] = dict(torch._decomp.get_decompositions([torch.ops.aten.addcmul]))
    table[torch.ops.aten.alias.default] = lambda values: values
    return table


def _compute_precision(precision: Precision) -> coremltools.precision:
    # 8-bit weights go with 16-bit computing: the Neural Engine has no other, and what stays float is half the size.
    return coremltools.precision.FLOAT32 if precision is Precision.FP32 else coremltools.precision.FLOAT16


def _eight_bit_weights(precision: Precision) -> optimize.OptimizationConfig:
    # Where activations stay float, weights below coremltools' own threshold of 2048 values do too. A convolution that
    # reads 8-bit values needs 8-bit weights to compute in 8 bit, however few they are.
    threshold = 2048 if precision is Precision.W8A32 else 0
    return optimize.OptimizationConfig(
        optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=threshold
        )
    )
