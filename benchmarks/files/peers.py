"""The plain converters with their defaults, as a tutorial uses them: what our exports are measured beside."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.models.query import QueryModel
from edgecsd.quiet import quiet_conversion
from edgecsd.targets.artifact import INPUT_NAME, read_metadata
from edgecsd.targets.deploy import DeployModel
from edgecsd.targets.metadata import METADATA_KEY, Target

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Peer:
    """make(model, out, like, calibration): writes `out` with the metadata of our file `like`, so that it can be run."""

    name: str
    target: Target
    precision: str
    make: Callable[[QueryModel, Path, Path, Pixels], None]


def _metadata_of(like: Path) -> str:
    """Of another file: without the digest of its content."""
    return read_metadata(like).model_copy(update={"content_digest": None}).model_dump_json()


def onnxruntime_static(model: QueryModel, out: Path, like: Path, calibration: Pixels) -> None:
    """torch.onnx.export, then onnxruntime.quantization.quantize_static, nothing given but the photos."""
    import onnx
    import torch
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Photos(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[Pixels] = iter(calibration)

        def get_next(self) -> dict[str, Pixels] | None:
            photo = next(self.left, None)
            return None if photo is None else {INPUT_NAME: photo[None]}

    deploy = DeployModel(model)
    with quiet_conversion("quantize_static"), tempfile.TemporaryDirectory() as folder:
        exported, quantised = Path(folder) / "float.onnx", Path(folder) / "static.onnx"
        torch.onnx.export(
            deploy,
            (deploy.example(),),
            str(exported),
            dynamo=True,
            external_data=False,
            input_names=[INPUT_NAME],
            output_names=["embedding"],
        )
        quantize_static(str(exported), str(quantised), Photos())
        proto = onnx.load(str(quantised))
        entry = proto.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, _metadata_of(like)
        onnx.save(proto, str(out))


def quantizer_static(model: QueryModel, out: Path, like: Path, calibration: Pixels) -> None:
    """litert_torch.convert, then ai-edge-quantizer's recipe static_wi8_ai8 for everything."""
    _quantizer(model, out, like, calibration, float_tail=False)


def quantizer_float_tail(model: QueryModel, out: Path, like: Path, calibration: Pixels) -> None:
    """The same, but for pooling and L2, which somebody takes out by hand after the file as it is did not run."""
    _quantizer(model, out, like, calibration, float_tail=True)


def _quantizer(model: QueryModel, out: Path, like: Path, calibration: Pixels, *, float_tail: bool) -> None:
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    from edgecsd.targets.tflite.convert import _Named, with_metadata

    deploy = DeployModel(model)
    with quiet_conversion("ai-edge-quantizer"), tempfile.TemporaryDirectory() as folder:
        exported, quantised = Path(folder) / "float.tflite", Path(folder) / "static.tflite"
        litert_torch.convert(_Named(deploy), sample_kwargs={INPUT_NAME: deploy.example()}).export(str(exported))
        signature = next(iter(Interpreter(model_path=str(exported)).get_signature_list()))
        chosen = recipe.static_wi8_ai8() + (float_tail_entries(exported) if float_tail else [])
        work = quantizer.Quantizer(str(exported), chosen)
        ranges = work.calibrate({signature: [{INPUT_NAME: photo[None]} for photo in calibration]})
        work.quantize(ranges).export_model(str(quantised), overwrite=True)
        out.write_bytes(with_metadata(quantised.read_bytes(), read_metadata(like)))


def float_tail_entries(exported: Path) -> list[dict[str, Any]]:
    """The recipe's entries that leave what comes after the last convolution in float, but for the projection."""
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.recipe_manager import RecipeManager

    from edgecsd.targets.tflite.quantise import CONVOLUTIONS, operations_of

    operations, _ = operations_of(exported)
    last = max(place for place, operation in enumerate(operations) if operation.kind in CONVOLUTIONS)
    recipe = RecipeManager()
    for operation in operations[last + 1 :]:
        if operation.kind != "FULLY_CONNECTED":
            scope = "^" + ";".join(re.escape(name) for name in operation.outputs) + ";?$"
            recipe.add_quantization_config(
                scope, TFLOperationName.ALL_SUPPORTED, algorithm_key=AlgorithmName.NO_QUANTIZE
            )
    entries: list[dict[str, Any]] = recipe.get_quantization_recipe()
    return entries


def coremltools_weights(model: QueryModel, out: Path, like: Path, calibration: Pixels) -> None:
    """ct.convert, then linear_quantize_weights with its default configuration."""
    import coremltools
    import coremltools.optimize.coreml as optimize
    import torch

    del calibration
    deploy = DeployModel(model)

    class Planar(torch.nn.Module):
        """What a tutorial exports: planes in, the normalisation inside."""

        def __init__(self) -> None:
            super().__init__()
            self.deploy = deploy

        def forward(self, image: torch.Tensor) -> Any:
            mean, std = self.deploy.mean255.view(1, 3, 1, 1), self.deploy.std255.view(1, 3, 1, 1)
            return self.deploy.embedding((image - mean) / std)

    shape = (1, 3, deploy.size, deploy.size)
    with quiet_conversion("coremltools"), torch.no_grad():
        traced = torch.export.export(Planar().eval(), (torch.rand(shape) * 255,)).run_decompositions({})
        package = coremltools.convert(
            traced,
            inputs=[coremltools.ImageType(name=INPUT_NAME, shape=shape)],
            skip_model_load=True,
            outputs=[coremltools.TensorType(name="embedding")],
            minimum_deployment_target=coremltools.target.iOS17,
        )
        config = optimize.OptimizationConfig(optimize.OpLinearQuantizerConfig())
        package = optimize.linear_quantize_weights(package, config)
        package.user_defined_metadata[METADATA_KEY] = _metadata_of(like)
        package.save(str(out))


PEERS = (
    Peer("quantize_static", Target.ONNX, "w8a8", onnxruntime_static),
    Peer("static_wi8_ai8", Target.TFLITE, "w8a8", quantizer_static),
    Peer("static_wi8_ai8 with a float tail", Target.TFLITE, "w8a8", quantizer_float_tail),
    Peer("linear_quantize_weights", Target.COREML, "w8a32", coremltools_weights),
)
