"""A gallery model in an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, IncompatibleError, first_line, missing_extra
from edgecsd.features.space import Maker
from edgecsd.files.whole import digest_of, sha256_file
from edgecsd.models.gallery.model import GalleryOptions, named_space, normalise, probe_pixels
from edgecsd.photos.contract import BRIGHTEST, preprocess_from_json

# onnxruntime's names of the inputs that are understood: uint8 pixels as they are, or normalised ones in floats
_KINDS = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxGalleryModel:
    """A gallery model in an ONNX file, run by onnxruntime.

    The input is (B, 3, H, W) or (B, H, W, 3): uint8 pixels as they are, or float and float16 ones that are normalised
    as the contract says. A file of a fixed batch gets its batches filled up. The output is (B, dim), or (B, dim, 1, 1).
    """

    def __init__(self, file: Path, options: GalleryOptions) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise missing_extra("onnxruntime", "onnx") from None
        if not file.is_file():
            raise BadInputError(f"onnx:{file}: no such file")
        try:
            self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BadInputError(f"onnx:{file}: onnxruntime cannot load it: {first_line(error)}") from None
        self._name, self._scales = f"onnx:{file.name}", options.scales
        fixed = self._read_signature(file)
        wanted = options.size or fixed
        if options.preprocess is None and wanted is None:
            raise BadInputError(f"onnx:{file}: its input has no fixed size: give `gallery_size` or `preprocess` FILE")
        self.preprocess = options.preprocess or preprocess_from_json({"size": wanted}, f"onnx:{file}")
        if fixed is not None and self.preprocess.size != fixed:
            raise IncompatibleError(
                f"onnx:{file}: takes {fixed} px, the pixel contract gives {self.preprocess.size} px"
            )
        if self._scales != (1.0,):
            self._require_free_size(fixed)
        self._output, output = self._choose_output(file, options.output)
        vectors = self.embed(probe_pixels(self.preprocess))
        maker = Maker.of(f"onnxruntime {onnxruntime.__version__}", vectors)
        self.space = named_space(
            self._name, _onnx_digest(file), self.preprocess, vectors.shape[1], options.scales, output, maker
        )

    def _choose_output(self, file: Path, name: str) -> tuple[str, str]:
        """The name of the output that is the vector, and what the embedding space keeps: "" for an only one."""
        names = [output.name for output in self._session.get_outputs()]
        if name and name not in names:
            raise BadInputError(f"`gallery_output` {name}: onnx:{file} has no such output; it has {', '.join(names)}")
        return name or names[0], name if name != names[0] else ""

    def _require_free_size(self, fixed: int | None) -> None:
        """Raise BadInputError unless the file takes normalised input of any size, as several scales need."""
        raw = self._kind is np.uint8
        why = "takes uint8 images, which it normalises itself" if raw else f"takes {fixed} px only"
        if fixed is not None or raw:
            raise BadInputError(
                f"`scales`: {self._name} {why}; leave `scales` out, or export it with float input of a free size"
            )
        from edgecsd.models.multi_scale import scaled_sides

        scaled_sides(self.preprocess.size, self._scales, self._name)

    def _read_signature(self, file: Path) -> int | None:
        """Keep the input's name, type, layout and batch; the input's side in pixels, or None where it is free."""
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise BadInputError(f"onnx:{file}: has {len(inputs)} inputs; one image is expected")
        shape, kind = [_fixed(length) for length in inputs[0].shape], inputs[0].type
        channels = [axis for axis in (1, 3) if len(shape) == 4 and shape[axis] in (3, None)]
        if kind not in _KINDS or not channels:
            raise BadInputError(
                f"onnx:{file}: its input is {kind} {inputs[0].shape}; (B, 3, H, W) or (B, H, W, 3) of float, float16 "
                f"or uint8 is expected"
            )
        self._input, self._kind, self._batch = inputs[0].name, _KINDS[kind], shape[0]
        self._channels_last = _channel_axis(shape, channels, raw=self._kind is np.uint8) == 3
        sides = set(shape[1:3] if self._channels_last else shape[2:4]) - {None}
        if len(sides) > 1:
            raise BadInputError(f"onnx:{file}: its input {inputs[0].shape} is not square")
        return sides.pop() if sides else None

    def _vectors(self, pixels: Pixels) -> NDArray[Any]:
        """(B, H, W, 3) uint8 -> (B, dim) as the file gives them."""
        if self._kind is np.uint8:
            return self._run(pixels if self._channels_last else pixels.transpose(0, 3, 1, 2))
        mean, std = (np.asarray(v, np.float32) for v in (self.preprocess.mean, self.preprocess.std))
        batch = ((pixels.astype(np.float32) / BRIGHTEST - mean) / std).transpose(0, 3, 1, 2)
        if self._scales == (1.0,):
            return self._run_floats(batch)
        import torch

        from edgecsd.models.multi_scale import multi_scale

        return multi_scale(
            lambda scaled: torch.from_numpy(self._run_floats(scaled.numpy())),
            torch.from_numpy(np.ascontiguousarray(batch)),
            self._scales,
        ).numpy()

    def _run_floats(self, batch: NDArray[Any]) -> NDArray[Any]:
        """(B, 3, H, W), normalised -> (B, dim) float32."""
        ordered = batch.transpose(0, 2, 3, 1) if self._channels_last else batch
        return self._run(ordered.astype(self._kind)).astype(np.float32)

    def _run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """The chosen output for a batch in the layout and type that the file wants; a fixed batch is filled up."""
        size = self._batch or len(batch)
        outputs = []
        for first in range(0, len(batch), size):
            part = batch[first : first + size]
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            try:
                given = self._session.run([self._output], {self._input: np.ascontiguousarray(filled)})[0]
            except Exception as error:  # onnxruntime has a class of its own for each status code
                raise BadInputError(f"{self._name}: onnxruntime cannot run it: {first_line(error)}") from None
            outputs.append(np.asarray(given)[: len(part)].reshape(len(part), -1))
            self._require_vector(np.shape(given))
        return np.concatenate(outputs)

    def _require_vector(self, shape: tuple[int, ...]) -> None:
        """Raise BadInputError unless an output of this shape is one vector for an image."""
        if sum(side > 1 for side in shape[1:]) > 1:
            names = [output.name for output in self._session.get_outputs()]
            others = f"; choose another `gallery_output`: {', '.join(names)}" if len(names) > 1 else ""
            raise BadInputError(f"{self._name}: its output {self._output} is {shape}: no single vector{others}")

    def embed(self, pixels: Pixels) -> Floats:
        return normalise(self._vectors(pixels), self._name)


def _channel_axis(shape: list[int | None], possible: list[int], *, raw: bool) -> int:
    """Which of the axes 1 and 3 holds the channels: the one of length 3; where both or none are, as its kind has it."""
    sure = [axis for axis in possible if shape[axis] == 3]
    usual = 3 if raw else 1
    candidates = sure or possible
    return candidates[0] if len(candidates) == 1 else usual


Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def _fixed(length: object) -> int | None:
    """A dimension of an ONNX shape: its length, or None where it is free (a name)."""
    return length if isinstance(length, int) else None


def _onnx_digest(file: Path) -> str:
    """SHA-256 of the file, and of the weights that torch's exporter puts beside large ones."""
    external = file.with_name(file.name + ".data")
    own = sha256_file(file)
    return digest_of([own, sha256_file(external)]) if external.is_file() else own
