"""From timm:NAME, open_clip:NAME, transformers:NAME, onnx:FILE or module:function to a gallery model."""

from __future__ import annotations

from pathlib import Path

from edgecsd.errors import BadInputError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.files.whole import read_json
from edgecsd.models.gallery.model import HEAD, KINDS, GalleryModel, GalleryOptions, usable_scales
from edgecsd.models.gallery.onnx import OnnxGalleryModel
from edgecsd.photos.contract import Preprocess, preprocess_from_json

NAMED = ("timm:", "open_clip:", "transformers:", "onnx:")  # kinds whose identifier alone brings the model back


def load_gallery_model(
    spec: str,
    *,
    weights: Path | None = None,
    size: int | None = None,
    preprocess: Path | Preprocess | None = None,
    scales: tuple[float, ...] = (1.0,),
    pooling: str = "",
    head: bool | None = None,
    output: str = "",
) -> GalleryModel:
    """The gallery model that `spec` names.

    timm:NAME        any timm network with one vector for a photo; `weights` is a state dict, else timm's own pretrained
                     ones; `pooling` and `head` choose the vector (models/gallery/timm.py)
    open_clip:NAME   MODEL/TAG or MODEL/FILE: what `encode_image` gives (models/gallery/open_clip.py)
    transformers:NAME  a folder of `save_pretrained` or a name on the hub: what `get_image_features` gives, or a vision
                     model's `pooler_output` (models/gallery/transformers.py)
    onnx:FILE        one image in, float or uint8, NCHW or NHWC, and (B, dim) out; `output` names one of several;
                     `preprocess` is a JSON pixel contract
    module:function  a Python function that returns an object with `identity`, `preprocess` and `embed`; it is run

    scales: average the vectors of the input at these scales (models/multi_scale.py); only where the input size is free.
    """
    kind, _, name = spec.partition(":")
    if not kind or not name:
        raise BadInputError(f"`gallery_model` {spec}: give {KINDS}")
    if size is not None and preprocess is not None:
        raise BadInputError("the input size stands in the `preprocess` file: leave out `gallery_size`")
    if isinstance(preprocess, Path):
        preprocess = preprocess_from_json(read_json(preprocess), str(preprocess))
    options = GalleryOptions(weights, size, preprocess, usable_scales(scales), pooling, head, output)
    if kind in _TORCH:
        options.refuse(spec, "output")
        return _TORCH[kind](name, options)
    options.refuse(spec, "weights", "pooling", "head")
    if kind == "onnx":
        return OnnxGalleryModel(Path(name), options)
    options.refuse(spec, "output")
    if options.scales != (1.0,):
        raise BadInputError(
            f"`scales`: {spec} takes images of one size only; leave it out, or average inside embed() and say so in "
            f"its identity"
        )
    if size is not None or options.preprocess is not None:
        raise BadInputError(f"{spec} brings its own pixel contract: leave out the input size and `preprocess`")
    from edgecsd.models.gallery.function import from_function

    return from_function(kind, name)


def _timm(name: str, options: GalleryOptions) -> GalleryModel:
    from edgecsd.models.gallery.timm import TimmGalleryModel

    return TimmGalleryModel(name, options)


def _open_clip(name: str, options: GalleryOptions) -> GalleryModel:
    from edgecsd.models.gallery.open_clip import OpenClipGalleryModel

    return OpenClipGalleryModel(name, options)


def _transformers(name: str, options: GalleryOptions) -> GalleryModel:
    from edgecsd.models.gallery.transformers import TransformersGalleryModel

    return TransformersGalleryModel(name, options)


_TORCH = {"timm": _timm, "open_clip": _open_clip, "transformers": _transformers}


def gallery_model_of(space: EmbeddingSpace, *, weights: Path | None = None) -> GalleryModel:
    """The gallery model that vectors of `space` came from, loaded again by its name, with the same choices."""
    name, output = space.gallery_model, space.output
    by_name = name.startswith("onnx:")
    return load_gallery_model(
        name,
        weights=weights,
        preprocess=space.preprocess,
        scales=space.scales,
        pooling="" if by_name or output == HEAD else output,
        head=None if by_name else output == HEAD,
        output=output if by_name else "",
    )
