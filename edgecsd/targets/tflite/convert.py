"""Torch -> TFLite: float, half, 8-bit weights, and 8-bit convolutions with a float head.

Means over large feature maps are taken in two steps: TFLite's kernels add one value after the other in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgecsd.errors import missing_extra
from edgecsd.quantisation.precisions import STANDARD, EightBit, Precision
from edgecsd.quiet import quiet_conversion
from edgecsd.targets.artifact import INPUT_NAME, OUTPUT_NAME
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.folding import folded
from edgecsd.targets.metadata import METADATA_KEY, ArtifactMetadata
from edgecsd.targets.tflite.file import FILE_IDENTIFIER
from edgecsd.targets.traced import traced_once

try:
    import litert_torch
    from ai_edge_litert import schema_py_generated as schema

    from edgecsd.targets.tflite.expansions import ExpansionsBySums
    from edgecsd.targets.tflite.quantise import quantise
    from edgecsd.targets.tflite.refusals import in_words, require_convertible
    from edgecsd.targets.tflite.resize import add_resize
except ImportError as error:
    raise missing_extra(error.name or "litert-torch", "tflite") from None


class _Named(nn.Module):
    """Gives the signature's output its name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {OUTPUT_NAME: self.model(image)}


class _AsTfliteTakesIt(_Named):
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        with MeansInSteps(), ExpansionsBySums():
            return super().forward(image)


def convert(
    model: DeployModel,
    out: Path,
    precision: Precision,
    calibration: NDArray[np.uint8] | None,
    metadata: ArtifactMetadata,
    how: EightBit = STANDARD,
) -> None:
    """Write `model` to `out`; calibration (n, S, S, 3) uint8 is used by w8a8 alone.

    Raises BadInputError, naming the operator, for a network that litert-torch cannot convert.
    """
    require_convertible(model)
    with quiet_conversion(f"the conversion to TFLite {precision}"), tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "float.tflite"
        exported.write_bytes(_float_file(model))
        if precision is not Precision.FP32:
            exported = quantise(exported, precision, calibration, how)
        out.write_bytes(with_metadata(exported.read_bytes(), metadata))


@traced_once
def _float_file(model: DeployModel) -> bytes:
    traced = _AsTfliteTakesIt(folded(model, model.example()))
    # litert-torch makes a short-lived copy of a weight in another order, takes what lies at the same address for the
    # same weight, and so writes another layer's weights (3 x 3 convolutions of one shape: cosine 0.47, RepVGG-A0)
    traced.to(memory_format=torch.contiguous_format)
    with in_words(model):
        edge_model = litert_torch.convert(traced, sample_kwargs={INPUT_NAME: model.example()})
    with tempfile.TemporaryDirectory() as folder:
        edge_model.export(f"{folder}/float.tflite")
        return Path(folder, "float.tflite").read_bytes()


class _Builder(flatbuffers.Builder):  # type: ignore[misc]
    """Aligns weights, and writes equal zero points once.

    Byte vectors, which hold weights, go on 16-byte boundaries, as the schema asks; Python's builder does not. Per
    channel there are 8 bytes of zero point, all 0, for each weight and again for its bias: 2.4 % of the float file's
    size in EfficientNet-B0. Tables may share a vector.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._zero_points: dict[bytes, int] = {}

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        return int(super().StartVector(elemSize, numElems, max(alignment, 16) if elemSize == 1 else alignment))

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:
        if x.dtype != np.int64:
            return int(super().CreateNumpyVector(x))
        key = x.tobytes()
        if key not in self._zero_points:
            self._zero_points[key] = int(super().CreateNumpyVector(x))
        return self._zero_points[key]


def with_metadata(data: bytes, metadata: ArtifactMetadata) -> bytes:
    """The TFLite file with one more metadata entry, "edgecsd", and with the resize inside where that says so.

    Tensors get short names on the way. The quantiser appends weights behind the flatbuffer, at absolute offsets that a
    longer file would break and that the last tflite-runtime does not know; they are moved inside.
    """
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    _shorten_names(model)
    if metadata.baked is not None:
        add_resize(model, metadata.preprocess, metadata.baked)
    text = metadata.model_dump_json()
    added, entry = schema.BufferT(), schema.MetadataT()
    added.data = np.frombuffer(text.encode(), np.uint8)
    entry.name, entry.buffer = METADATA_KEY, len(model.buffers)
    model.buffers.append(added)
    model.metadata = [*(model.metadata or []), entry]
    builder = _Builder(len(data) + len(text) + 1024)
    builder.Finish(model.Pack(builder), FILE_IDENTIFIER)
    return bytes(builder.Output())


def _shorten_names(model: Any) -> None:
    """Module paths for tensor names; litert-torch's hold every class and its package too, 1 % of a float file."""
    for graph in model.subgraphs:
        taken: set[str] = set()
        for tensor in graph.tensors:
            name = _short_name(tensor.name.decode())
            number = 1
            while (unique := name if number == 1 else f"{name}#{number}") in taken:
                number += 1
            taken.add(unique)
            tensor.name = unique.encode()


def _short_name(name: str) -> str:
    """ "blocks/4/conv_pw" of "torch.nn.Sequential_blocks/torch.nn.Sequential_4/torch.nn.Conv2d_conv_pw;;..." """
    first, _, rest = name.partition(";;")
    ending = rest.rsplit(";", 1)[-1]
    path = "/".join(_without_class(part) for part in first.split("/"))
    return f"{path};{ending}" if ending else path


def _without_class(part: str) -> str:
    """ "conv_pw" of "torch.nn.Conv2d_conv_pw"; a name without a package stays."""
    return part.rsplit(".", 1)[-1].lstrip("_").split("_", 1)[-1] if "." in part else part


# Of a map of 112 x 112 the sum's relative error is 2e-5, a hundred times torch's, which adds in pairs; a random
# EfficientNet-B0 with squeeze-and-excite makes 1.4e-5 of the embedding's largest difference of it (measured). By rows
# first, it is that of 112 values. At most this many stay one operator, which every runtime has a fast kernel for.
MOST_AT_ONCE = 1024
MAP = {2, 3}


class MeansInSteps(TorchFunctionMode):
    """While it is entered, a mean over both sides of a large (B, C, h, w) map is taken over w, then over h."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in (torch.mean, Tensor.mean) and _is_over_a_large_map(args, given):
            maps, keep = args[0], args[2] if len(args) > 2 else given.get("keepdim", False)
            mean = maps.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
            return mean if keep else mean.flatten(1)
        return func(*args, **given)


def _is_over_a_large_map(args: tuple[Any, ...], given: Mapping[str, Any]) -> bool:
    sides = args[1] if len(args) > 1 else given.get("dim")
    maps = args[0] if args else None
    if not isinstance(maps, Tensor) or maps.ndim != 4 or not isinstance(sides, tuple | list) or "dtype" in given:
        return False
    return {side % 4 for side in sides} == MAP and maps.shape[2] * maps.shape[3] > MOST_AT_ONCE
