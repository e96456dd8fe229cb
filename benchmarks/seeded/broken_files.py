"""Artifacts that say of themselves what the sound one says, and compute something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from seeded.case import Case
from seeded.workshop import Pair, Workshop
from torch import Tensor, nn

from edgecsd.models.query import QueryModel, load_query_model
from edgecsd.targets.artifact import INPUT_NAME
from edgecsd.targets.deploy import DeployModel

Change = Callable[[Tensor], Tensor]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Before(DeployModel):
    """Does something to the uint8 image (1, S, S, 3), as float, before it is normalised."""

    def __init__(self, model: QueryModel, change: Change) -> None:
        super().__init__(model)
        self.change = change

    def forward(self, image: Tensor) -> Tensor:
        normalised = (self.change(image.float()) - self.mean255) / self.std255
        return self.embedding(normalised.permute(0, 3, 1, 2))


class Normalised(DeployModel):
    """Normalises by other numbers, in units of 0..255, and maybe once more."""

    def __init__(self, model: QueryModel, mean: tuple[float, ...], std: tuple[float, ...], times: int = 1) -> None:
        super().__init__(model)
        self.mean255, self.std255, self.times = torch.tensor(mean), torch.tensor(std), times

    def forward(self, image: Tensor) -> Tensor:
        value = image.float()
        for _ in range(self.times):
            value = (value - self.mean255) / self.std255
        return self.embedding(value.permute(0, 3, 1, 2))


class Twice(DeployModel):
    """Normalises what is normalised already, as an app and a file that both do it."""

    def forward(self, image: Tensor) -> Tensor:
        once = (image.float() - self.mean255) / self.std255
        return self.embedding(((once - self.mean255 / 255) / (self.std255 / 255)).permute(0, 3, 1, 2))


class After(DeployModel):
    """Does something to the embedding (1, D), or leaves out its normalisation."""

    def __init__(self, model: QueryModel, change: Change, *, projection_only: bool = False) -> None:
        super().__init__(model)
        self.change, self.projection_only = change, projection_only

    def embedding(self, normalised: Tensor) -> Tensor:
        model = self.query_model
        if not self.projection_only:
            return self.change(super().embedding(normalised))
        return self.change(model.projection(model.hidden(model.pooled(normalised))))


def _changed_network(change: Callable[[QueryModel], None]) -> Callable[[QueryModel], DeployModel]:
    def deploy(model: QueryModel) -> DeployModel:
        with torch.no_grad():
            change(model)
        return DeployModel(model)

    return deploy


def _convolutions(model: QueryModel) -> list[nn.Conv2d]:
    return [module for module in model.backbone.modules() if isinstance(module, nn.Conv2d)]


def _permute_a_layer(model: QueryModel) -> None:
    layer = _convolutions(model)[len(_convolutions(model)) // 2]
    layer.weight.copy_(layer.weight[torch.randperm(len(layer.weight), generator=torch.Generator().manual_seed(1))])


def _kill_a_channel(model: QueryModel) -> None:
    """The busiest channel of the middle layer, by its weights."""
    layer = _convolutions(model)[len(_convolutions(model)) // 2]
    layer.weight[layer.weight.flatten(1).norm(dim=1).argmax()] = 0


def _train_mode(model: QueryModel) -> DeployModel:
    """Batch-norm uses the statistics of the one photo that it is given."""
    deploy = DeployModel(model)
    for module in deploy.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    return deploy


def _untrained_head(model: QueryModel) -> None:
    torch.manual_seed(3)
    nn.init.normal_(model.projection.weight, std=0.02)


def _head_of(run: Path) -> Callable[[QueryModel], None]:
    return lambda model: model.load_head_state(load_query_model(run).head_state())


def _naive_l2(vectors: Tensor) -> Tensor:
    """The same in float as the head that scales first; in half precision the squares overflow."""
    large = vectors * 300
    return large / large.pow(2).sum(dim=1, keepdim=True).sqrt()


class _Photos(CalibrationDataReader):
    def __init__(self, pixels: np.ndarray) -> None:
        self.left = iter(pixels)

    def get_next(self) -> dict[str, np.ndarray] | None:
        photo = next(self.left, None)
        return None if photo is None else {INPUT_NAME: photo[None]}


def _per_tensor(workshop: Workshop) -> Pair:
    """onnxruntime's own static recipe with its defaults: one scale for all channels of a layer, tail and all."""
    import onnx

    out = workshop.path("broken", "per-tensor.onnx")
    if not out.exists():
        source = onnx.load(str(workshop.file("onnx", "fp32")))
        wanted = {entry.key: entry.value for entry in onnx.load(str(workshop.file("onnx", "w8a8"))).metadata_props}
        quantize_static(
            source, str(out), _Photos(workshop.calibration(16)), per_channel=False, weight_type=QuantType.QInt8
        )
        written = onnx.load(str(out))
        del written.metadata_props[:]
        for key, value in wanted.items():
            entry = written.metadata_props.add()
            entry.key, entry.value = key, value
        onnx.save(written, str(out))
    return workshop.pair(out)


def _calibrated_on(name: str, pixels: Callable[[Workshop], np.ndarray]) -> Callable[[Workshop], Pair]:
    def make(workshop: Workshop) -> Pair:
        return workshop.pair(
            workshop.broken_file(name, "onnx", "w8a8", DeployModel, calibration=np.ascontiguousarray(pixels(workshop)))
        )

    return make


def _noise(workshop: Workshop) -> np.ndarray:
    """Grey noise about the middle value: nothing that a lens makes."""
    size = workshop.contract.size
    values = np.random.default_rng(0).normal(128, 8, (16, size, size, 3))
    return values.clip(0, 255).astype(np.uint8)


def _one_photo(workshop: Workshop) -> np.ndarray:
    return workshop.calibration(64)[:1]


def _broken(
    name: str, change: Callable[[QueryModel], DeployModel], precision: str = "fp32", target: str = "onnx"
) -> Callable[[Workshop], Pair]:
    return lambda workshop: workshop.pair(workshop.broken_file(name, target, precision, change))


def _head_in_file(name: str, run: Callable[[Workshop], Path]) -> Callable[[Workshop], Pair]:
    """The sound file's metadata around another run's head."""
    return lambda workshop: workshop.pair(
        workshop.broken_file(name, "onnx", "fp32", _changed_network(_head_of(run(workshop))))
    )


def _truncated(workshop: Workshop) -> Pair:
    sound, out = workshop.file("tflite", "fp32"), workshop.path("broken", "truncated.tflite")
    data = sound.read_bytes()
    out.write_bytes(data[: len(data) // 2])
    return workshop.pair(out)


def _stale(workshop: Workshop) -> Pair:
    """The file of last week's run beside today's."""
    return workshop.pair(workshop.file("onnx", "fp32", workshop.run("other-seed", seed=7)))


def _other_contract(workshop: Workshop) -> Pair:
    """A file whose pixel contract was edited: the app is told to squash what was trained on crops, or the reverse."""
    import onnx

    from edgecsd.targets.metadata import METADATA_KEY, ArtifactMetadata

    out = workshop.path("broken", "other-contract.onnx")
    proto = onnx.load(str(workshop.file("onnx", "fp32")))
    entry = next(entry for entry in proto.metadata_props if entry.key == METADATA_KEY)
    metadata = ArtifactMetadata.model_validate_json(entry.value)
    other = "squash" if metadata.preprocess.resize != "squash" else "shorter-side"
    changed = metadata.preprocess.model_copy(update={"resize": other, "crop_pct": 0.875})
    entry.value = metadata.model_copy(update={"preprocess": changed}).model_dump_json()
    onnx.save(proto, str(out))
    return workshop.pair(out)


NOT_TORCH = ("does not compute what torch computes", "changed the network", "precision costs too much")
BAD_INPUT = ("pixel mistake",)
CASES = (
    Case("BGR for RGB", "file", _broken("bgr", lambda m: Before(m, lambda x: x.flip(-1))), ("channels swapped",)),
    Case(
        "normalisation missing",
        "file",
        _broken("raw", lambda m: Normalised(m, (0.0,) * 3, (1.0,) * 3)),
        ("normalisation missing: values 0 to 255",),
    ),
    Case("normalisation doubled", "file", _broken("doubled", Twice), ("normalisation doubled",)),
    Case(
        "ImageNet's mean and std for the network's own",
        "file",
        _broken(
            "imagenet",
            lambda m: Normalised(m, tuple(255 * v for v in IMAGENET[0]), tuple(255 * v for v in IMAGENET[1])),
        ),
        ("ImageNet's mean and std",),
    ),
    Case(
        "input 0 to 1 where 0 to 255 is expected",
        "file",
        _broken("unit", lambda m: Before(m, lambda x: x / 255)),
        ("input 0 to 1 where 0 to 255",),
    ),
    Case(
        "planes read as interleaved (NHWC / NCHW)",
        "file",
        _broken("planes", lambda m: Before(m, lambda x: x.reshape(1, 3, *x.shape[1:3]).permute(0, 2, 3, 1))),
        ("NHWC / NCHW",),
    ),
    Case(
        "rows and columns exchanged",
        "file",
        _broken("transposed", lambda m: Before(m, lambda x: x.transpose(1, 2))),
        ("rows and columns",),
    ),
    Case(
        "L2 normalisation missing",
        "file",
        _broken("no-l2", lambda m: After(m, lambda x: x, projection_only=True)),
        ("L2 normalisation is missing",),
    ),
    Case("a layer's weights permuted", "file", _broken("permuted", _changed_network(_permute_a_layer)), NOT_TORCH),
    Case("a dead channel", "file", _broken("dead-channel", _changed_network(_kill_a_channel)), NOT_TORCH),
    Case("a dead channel, fp16", "file", _broken("dead-16", _changed_network(_kill_a_channel), "fp16"), NOT_TORCH),
    Case("exported in training mode", "file", _broken("train-mode", _train_mode), NOT_TORCH),
    Case("untrained head in the file", "file", _broken("head", _changed_network(_untrained_head)), NOT_TORCH),
    Case(
        "another seed's head in the file",
        "file",
        _head_in_file("seed", lambda w: w.run("other-seed", seed=7)),
        NOT_TORCH,
    ),
    Case(
        "stale checkpoint under the new one's name",
        "file",
        _head_in_file("stale", lambda w: w.run() / "closed_form"),
        NOT_TORCH,
    ),
    Case("file of an earlier run", "file", _stale, ("weights differ",)),
    Case(
        "dimensions in another order",
        "file",
        _broken("rolled", lambda m: After(m, lambda x: x.roll(1, dims=1))),
        NOT_TORCH,
    ),
    Case(
        "the same answer whatever is shown",
        "file",
        _broken("constant", lambda m: Before(m, lambda x: x * 0)),
        ("answers the same",),
    ),
    Case(
        "fp16 overflow",
        "file",
        _broken("overflow", lambda m: After(m, _naive_l2, projection_only=True), "fp16", "coreml"),
        ("overflow",),
    ),
    Case("per-tensor quantisation", "file", _per_tensor, NOT_TORCH),
    Case("calibrated on noise", "file", _calibrated_on("noise", _noise), NOT_TORCH),
    Case("calibrated on one photo", "file", _calibrated_on("one-photo", _one_photo), NOT_TORCH),
    Case("pixel contract edited", "file", _other_contract, ("fed other pixels",)),
    Case("half a file", "file", _truncated, ("not", "damaged")),
)
