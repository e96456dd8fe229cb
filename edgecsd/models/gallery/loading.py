"""From timm:NAME, onnx:FILE or module:function to a gallery model."""

from __future__ import annotations

from pathlib import Path

from edgecsd.errors import BadInputError
from edgecsd.files.whole import read_json
from edgecsd.models.gallery.model import GalleryModel, usable_scales
from edgecsd.models.gallery.onnx import OnnxGalleryModel
from edgecsd.photos.contract import Preprocess, preprocess_from_json


def load_gallery_model(
    spec: str,
    *,
    weights: Path | None = None,
    size: int | None = None,
    preprocess: Path | Preprocess | None = None,
    scales: tuple[float, ...] = (1.0,),
) -> GalleryModel:
    """The gallery model that `spec` names.

    timm:NAME        any timm backbone, pooled features; `weights` is a state dict, else timm's own pretrained ones
    onnx:FILE        (B, 3, H, W) float or (B, H, W, 3) uint8 in, (B, dim) out; `preprocess` is a JSON pixel contract
    module:function  a Python function that returns an object with `identity`, `preprocess` and `embed`; it is run

    scales: average the vectors of the input at these scales (models/multi_scale.py); only where the input size is free.
    """
    kind, _, name = spec.partition(":")
    if not kind or not name:
        raise BadInputError(f"`gallery_model` {spec}: give timm:NAME, onnx:FILE or module:function")
    if size is not None and preprocess is not None:
        raise BadInputError("the input size stands in the `preprocess` file: leave out `gallery_size`")
    if isinstance(preprocess, Path):
        preprocess = preprocess_from_json(read_json(preprocess), str(preprocess))
    contract, scales = preprocess, usable_scales(scales)
    if kind == "timm":
        return _timm(name, weights, size, contract, scales)
    if weights is not None:
        raise BadInputError(f"`weights` goes with timm:NAME only, not with {spec}")
    if kind == "onnx":
        return OnnxGalleryModel(Path(name), contract, size, scales)
    if scales != (1.0,):
        raise BadInputError(
            f"`scales`: {spec} takes images of one size only; leave it out, or average inside embed() and say so in "
            f"its identity"
        )
    if size is not None or contract is not None:
        raise BadInputError(f"{spec} brings its own pixel contract: leave out the input size and `preprocess`")
    from edgecsd.models.gallery.function import from_function

    return from_function(kind, name)


def _timm(
    name: str, weights: Path | None, size: int | None, contract: Preprocess | None, scales: tuple[float, ...]
) -> GalleryModel:
    from edgecsd.models.gallery.timm import TimmGalleryModel

    return TimmGalleryModel(name, weights, size, contract, scales)
