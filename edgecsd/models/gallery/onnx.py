"""A gallery model in an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, IncompatibleError, first_line, missing_extra
from edgecsd.files.whole import digest_of, sha256_file
from edgecsd.models.gallery.model import named_space, normalise
from edgecsd.photos.contract import BRIGHTEST, Preprocess, preprocess_from_json


class OnnxGalleryModel:
    """A gallery model in an ONNX file, run by onnxruntime."""

    def __init__(
        self, file: Path, preprocess: Preprocess | None, size: int | None, scales: tuple[float, ...] = (1.0,)
    ) -> None:
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
        self._name = f"onnx:{file.name}"
        fixed = self._read_signature(file)
        wanted = size or fixed
        if preprocess is None and wanted is None:
            raise BadInputError(f"onnx:{file}: its input has no fixed size: give `gallery_size` or `preprocess` FILE")
        self.preprocess = preprocess or preprocess_from_json({"size": wanted}, f"onnx:{file}")
        if fixed is not None and self.preprocess.size != fixed:
            raise IncompatibleError(
                f"onnx:{file}: takes {fixed} px, the pixel contract gives {self.preprocess.size} px"
            )
        self._scales = scales
        if scales != (1.0,):
            self._require_free_size(fixed)
        probe = np.zeros((1, self.preprocess.size, self.preprocess.size, 3), np.uint8)
        dim = self._vectors(probe).shape[-1]
        self.space = named_space(self._name, _onnx_digest(file), self.preprocess, dim, scales)

    def _require_free_size(self, fixed: int | None) -> None:
        """Raise BadInputError unless the file takes normalised input of any size, as several scales need."""
        why = "takes uint8 images, which it normalises itself" if self._nhwc else f"takes {fixed} px only"
        if fixed is not None or self._nhwc:
            raise BadInputError(
                f"`scales`: {self._name} {why}; leave `scales` out, or export it with float input of a free size"
            )
        from edgecsd.models.multi_scale import scaled_sides

        scaled_sides(self.preprocess.size, self._scales, self._name)

    def _read_signature(self, file: Path) -> int | None:
        """Keep the input's and output's names and layout; the input's side in pixels, or None where it is free."""
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise BadInputError(f"onnx:{file}: has {len(inputs)} inputs; one image is expected")
        self._input, self._output = inputs[0].name, self._session.get_outputs()[0].name
        shape, kind = inputs[0].shape, inputs[0].type
        self._nhwc = kind == "tensor(uint8)"
        channels = 3 if self._nhwc else 1
        if (
            kind not in ("tensor(uint8)", "tensor(float)")
            or len(shape) != 4
            or _fixed(shape[channels]) not in (3, None)
        ):
            raise BadInputError(
                f"onnx:{file}: its input is {kind} {shape}; (B, 3, H, W) float or (B, H, W, 3) uint8 is expected"
            )
        self._batch_one = shape[0] == 1
        if _fixed(shape[0]) not in (1, None):
            raise BadInputError(f"onnx:{file}: takes batches of {shape[0]} only; export it with a free batch or with 1")
        sides = {_fixed(side) for side in (shape[1:3] if self._nhwc else shape[2:4])} - {None}
        if len(sides) > 1:
            raise BadInputError(f"onnx:{file}: its input {shape} is not square")
        return sides.pop() if sides else None

    def _vectors(self, pixels: Pixels) -> NDArray[Any]:
        if self._nhwc:
            return self._run(pixels)
        mean, std = (np.asarray(v, np.float32) for v in (self.preprocess.mean, self.preprocess.std))
        batch = np.ascontiguousarray(((pixels.astype(np.float32) / BRIGHTEST - mean) / std).transpose(0, 3, 1, 2))
        if self._scales == (1.0,):
            return self._run(batch)
        import torch

        from edgecsd.models.multi_scale import multi_scale

        return multi_scale(
            lambda scaled: torch.from_numpy(self._run(scaled.numpy())), torch.from_numpy(batch), self._scales
        ).numpy()

    def _run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """(B, dim) for a batch in the layout that the file wants."""
        batches = [batch[i : i + 1] for i in range(len(batch))] if self._batch_one else [batch]
        try:
            outputs = [np.asarray(self._session.run([self._output], {self._input: b})[0]) for b in batches]
        except Exception as error:  # onnxruntime has a class of its own for each status code
            raise BadInputError(f"{self._name}: onnxruntime cannot run it: {first_line(error)}") from None
        return np.concatenate(outputs).reshape(len(batch), -1)

    def embed(self, pixels: Pixels) -> Floats:
        return normalise(self._vectors(pixels), self._name)


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
