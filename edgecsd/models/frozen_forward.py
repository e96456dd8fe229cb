"""What runs a frozen network over many images: torch, or onnxruntime, which is some three times as fast on a CPU."""

from __future__ import annotations

import logging
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecsd.errors import BadInputError, EdgecsdError, missing_extra
from edgecsd.progress import SILENT, Reporter
from edgecsd.quiet import quiet_conversion

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    Forward = Callable[[Tensor], Tensor]

WORTHWHILE = 1000  # images: below it, converting the network takes longer than it saves
TOLERANCE = 1e-3  # of the largest value: onnxruntime folds batch norms, sums in another order, and no more than that


class Engine(StrEnum):
    """auto: onnxruntime where it is installed, the network is on the CPU, and there are 1,000 images or more."""

    AUTO = "auto"
    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"


def parse_engine(text: str) -> Engine:
    """BadInputError for a name that is none."""
    try:
        return Engine(text)
    except ValueError:
        raise BadInputError(f"`engine` {text}: use {', '.join(Engine)}") from None


def frozen_forward(
    network: nn.Module, size: int, images: int, *, engine: Engine = Engine.AUTO, reporter: Reporter = SILENT
) -> Forward:
    """What `network`, in eval mode, does without gradients: (B, 3, size, size) float32 -> (B, ...) float32.

    Parallel branches are fused first (edgecsd.models.backbones.fuse_branches).
    Two images of noise go through both engines. Where they differ by more than 1e-3 of the largest value, or the
    network cannot be converted, torch is used, with a message; with `onnxruntime` asked for by name, that is an error.
    Which engine runs follows from `images`, their whole number, so that an interrupted step goes on as it began.
    Raises MissingBackendError if onnxruntime is asked for and not installed.
    """
    import torch

    example = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    fused = _fused(network, example, reporter)

    def by_torch(batch: Tensor) -> Tensor:
        with torch.inference_mode():
            result: Tensor = fused(batch)
        return result.float()

    on_cpu = all(tensor.device.type == "cpu" for tensor in network.parameters())
    if engine is Engine.TORCH or (engine is Engine.AUTO and (images < WORTHWHILE or not on_cpu)):
        return by_torch
    try:
        forward = _by_onnxruntime(fused, example)
        expected, got = by_torch(example), forward(example)
        difference, largest = float((got - expected).abs().max()), float(expected.abs().max())
        if not difference <= TOLERANCE * largest:
            raise EdgecsdError(f"onnxruntime's result differs from torch's by {difference:.2g} of {largest:.2g}")
    except ImportError as error:
        if engine is Engine.AUTO:
            return by_torch
        raise missing_extra(error.name or "onnxruntime", "onnx") from None
    except EdgecsdError as error:
        if engine is Engine.AUTO:
            reporter.message(f"torch runs the network, slower than onnxruntime would: {str(error).splitlines()[0]}")
            return by_torch
        raise
    return forward


def _fused(network: nn.Module, example: Tensor, reporter: Reporter) -> nn.Module:
    """`network` with fused branches; as it is where it has none, or where that would change what it gives."""
    import torch

    from edgecsd.models.backbones import fuse_branches

    fused = fuse_branches(network)
    if fused is network:
        return network
    example = example.to(next(network.parameters()).device)
    with torch.inference_mode():
        expected = network(example).float()
        difference, largest = (fused(example).float() - expected).abs().max(), expected.abs().max()
    if difference <= TOLERANCE * largest:
        return fused
    reporter.message(f"the network runs with its branches: fused it differs by {difference:.2g} of {largest:.2g}")
    return network


def _by_onnxruntime(network: nn.Module, example: Tensor) -> Forward:
    import onnx  # noqa: F401  torch's exporter loads these two by itself, and fails late and unclearly without them
    import onnxruntime
    import onnxscript  # noqa: F401
    import torch

    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with tempfile.TemporaryDirectory() as folder, quiet_conversion("the conversion for onnxruntime"):
        file = Path(folder) / "network.onnx"
        torch.onnx.export(
            network,
            (example,),
            file,
            dynamo=True,
            dynamic_shapes=({0: batch},),
            verbose=False,
            input_names=["images"],
            output_names=["features"],
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session: Any = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def forward(batch: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": batch.contiguous().numpy()})[0])

    return forward
