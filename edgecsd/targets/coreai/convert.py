"""Torch -> Core AI (an .aimodel folder for the systems of 2026, version 27): float, half, and 8-bit weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, missing_extra
from edgecsd.quantisation.precisions import STANDARD, EightBit, Precision
from edgecsd.quiet import quiet_conversion
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME
from edgecsd.targets.coreai.target import PRECISIONS
from edgecsd.targets.deploy import DeployModel, PlanesFirst
from edgecsd.targets.metadata import METADATA_KEY, ArtifactMetadata

try:
    import coreai.runtime
    import coreai_torch

    from edgecsd.targets.coreai.graph import fold_batch_norms, in_half_precision, traced, weights_in_8_bit
except ImportError as error:
    raise missing_extra(error.name or "coreai-torch", "coreai") from None


def convert(
    model: DeployModel,
    out: Path,
    precision: Precision,
    calibration: NDArray[np.uint8] | None,
    metadata: ArtifactMetadata,
    how: EightBit = STANDARD,
) -> None:
    """Write `model` to the folder `out`. There is no w8a8: calibration and `how` have nothing to decide."""
    del calibration, how
    if precision not in PRECISIONS:
        has = ", ".join(each for each in Precision if each in PRECISIONS)
        raise BadInputError(f"target coreai has no precision {precision}; it has: {has}")
    with quiet_conversion(f"the conversion to Core AI {precision}"):
        image = model.example()
        network = PlanesFirst(model) if type(model) is DeployModel else model  # others may take pixels in their own way
        graph = fold_batch_norms(traced(network, image))
        if precision is Precision.FP16:
            graph = in_half_precision(graph)
        elif precision is Precision.W8A32:
            graph = weights_in_8_bit(graph)
        program = torch.export.export(graph, (image,)).run_decompositions(coreai_torch.get_decomp_table())
        # RELEASE: the file says nothing of where on this machine the network's source stands
        converter = coreai_torch.TorchConverter(mode=coreai_torch.TorchConverter.Mode.RELEASE)
        converter.add_exported_program(program, input_names=[INPUT_NAME], output_names=[OUTPUT_NAME])
        about = coreai.runtime.AIModelAssetMetadata()
        about.model_description = f"edgecsd query model ({metadata.backbone}), {precision}"
        about.license = metadata.licence or ""
        about.set_custom(METADATA_KEY, metadata.model_dump_json())
        converter.to_coreai().save_asset(out, metadata=about)
