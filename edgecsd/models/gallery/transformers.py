"""A gallery model from transformers. The only importer of transformers."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgecsd.errors import BadInputError, MissingBackendError, first_line, missing_extra
from edgecsd.models.gallery.image_processor import contract_of
from edgecsd.models.gallery.model import HEAD, GalleryOptions
from edgecsd.models.gallery.torch_network import TorchGalleryModel, gives_head, probe
from edgecsd.models.hub import cache_only_without_network
from edgecsd.quiet import quiet_logs

try:
    with quiet_logs():  # torchao is imported with it, and warns
        import transformers
        from transformers import MODEL_MAPPING, AutoConfig, AutoImageProcessor, AutoModel  # noqa: F401
except ImportError:
    raise missing_extra("transformers", "gallery") from None

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")  # OWNER/NAME
INTERPOLATES = "interpolate_pos_encoding"  # what transformers calls the argument
SAME = 1e-5  # of the largest value: two ways to one vector [measured: 0 in seven families]
REFUSED = {
    "siglip2": "NaFlex takes photos of any shape in patches, which no pixel contract does; take a checkpoint of a "
    "fixed resolution, such as google/siglip2-base-patch16-224",
    "siglip2_vision_model": "NaFlex takes photos of any shape in patches, which no pixel contract does",
    "timm_wrapper": "is a timm network: give timm:NAME",
    "vit_mae": "hides patches at random: no two vectors of a photo are the same",
}


class TransformersGalleryModel(TorchGalleryModel):
    """What `get_image_features` gives, or the `pooler_output` of a network that knows images alone.

    name  a folder that `save_pretrained` wrote, its image processor beside it, or a name on the hub; `weights` is the
          folder where it does not lie under that name. Weights are read from .safetensors only.
    """

    def __init__(self, name: str, options: GalleryOptions) -> None:
        source = _TransformersSource(name, options.weights)
        config = source.config()
        contract = options.preprocess or contract_of(source.image_processor(), source.name, options.size)
        tower = _TransformersTower(source.network(config), contract.size, source.name)
        output = tower.choose(options.pooling, options.head)
        library = f"transformers {transformers.__version__}"
        super().__init__(source.name, tower.eval(), contract, options.scales, output, library)


class _TransformersSource:
    """Where a model lies: `place` is a folder or a name on the hub, `name` what the embedding space keeps of it."""

    def __init__(self, name: str, weights: Path | None) -> None:
        folder = Path(name) if weights is None else weights
        self._local, on_hub = folder.is_dir(), HUB_NAME.fullmatch(name)
        if weights is not None and not self._local:
            raise BadInputError(f"`weights` {weights}: is no folder; transformers:NAME has its weights in one")
        if not self._local and not on_hub:
            raise BadInputError(f"transformers:{name}: no such folder")
        shown = name if on_hub and (weights or not self._local) else Path(name).resolve().name
        self._place, self.name = str(folder) if self._local else name, f"transformers:{shown}"

    def config(self) -> Any:
        """The configuration of a network that gives a vector for a photo; BadInputError for any other."""
        config = self._read(AutoConfig, "config.json")
        if config.model_type in REFUSED:
            raise BadInputError(f"{self.name}: {REFUSED[config.model_type]}")
        if _network_class(config) is None:
            raise BadInputError(f"{self.name}: is a {config.model_type}, which gives no vector for a photo")
        return config

    def image_processor(self) -> Any:
        """The image processor beside the weights, by Pillow where transformers has it so."""
        return self._read(AutoImageProcessor, "preprocessor_config.json", backend="pil")

    def network(self, config: Any) -> Any:
        """The network of both towers, or of images alone, in eval mode and float32; no code beside it is run."""
        kind, more = _network_class(config), {"use_safetensors": True, "output_loading_info": True}
        network, found = self._read(kind, "model.safetensors", config=config, dtype=torch.float32, **more)
        _require_weights(network, set(found["missing_keys"]), self.name)
        return network.eval()

    def _read(self, kind: Any, file: str, **more: Any) -> Any:
        try:
            with cache_only_without_network(), quiet_logs(), _bars(shown=not self._local):
                return kind.from_pretrained(self._place, trust_remote_code=False, local_files_only=self._local, **more)
        except Exception as error:  # OSError, ValueError, and what huggingface_hub and safetensors raise
            if "trust_remote_code" in str(error):
                raise BadInputError(f"{self.name}: comes with Python code of its own, which is never run") from None
            if not self._local:
                raise MissingBackendError(
                    f"{self.name}: transformers could not fetch its {file} ({first_line(error)}); give a folder that "
                    f"save_pretrained wrote with `weights`"
                ) from None
            advice = {
                "preprocessor_config.json": "save its image processor beside it, or give a `preprocess` file",
                "model.safetensors": "weights in other files might run code; save them by save_pretrained",
            }.get(file, "give a folder that save_pretrained wrote")
            raise BadInputError(
                f"{self.name}: has no {file} that can be read ({first_line(error)}); {advice}"
            ) from None


@contextmanager
def _bars(*, shown: bool) -> Iterator[None]:
    """Progress bars where a download may take time."""
    bars = transformers.utils.logging
    if shown or not bars.is_progress_bar_enabled():
        yield
        return
    bars.disable_progress_bar()
    try:
        yield
    finally:
        bars.enable_progress_bar()


def _network_class(config: Any) -> Any | None:
    """The class of what `config` describes: an image network, or one of two towers; None for any other."""
    (name,) = (config.architectures or [""])[:1]
    if name.endswith("VisionModelWithProjection"):
        return getattr(transformers, name, None)
    kind = MODEL_MAPPING.get(type(config), None)
    images_alone = getattr(kind, "input_modalities", None) in ("image", ("image",))
    two_towers = hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features")
    usual = getattr(kind, "main_input_name", "") == "pixel_values"
    return kind if two_towers or (images_alone and usual) else None


def _require_weights(network: Any, missing: set[str], name: str) -> None:
    """Raise BadInputError where weights of the image tower lack; a pooler that was never trained is taken out."""
    pooler = {key for key in missing if key.startswith("pooler.")}
    if pooler:
        network.pooler = None
    towers = ("vision_model.", "visual_projection.") if hasattr(network, "vision_model") else ("",)
    lacking = sorted(key for key in missing - pooler if key.startswith(towers))
    if lacking:
        raise BadInputError(
            f"{name}: its weights lack {len(lacking)} tensors of the network, {lacking[0]} is the first"
        )


class _TransformersTower(nn.Module):
    """A vision tower and, where there is one, its projection: (B, 3, S, S) -> (B, dim).

    Raises BadInputError where that is not what the library's own `get_image_features` gives.
    """

    def __init__(self, whole: Any, size: int, name: str) -> None:
        super().__init__()
        self.vision = getattr(whole, "vision_model", whole)
        self.projection = getattr(whole, "visual_projection", None)
        self._name, self._size, self._output, self._prefix = name, size, "", 0
        own = getattr(self.vision.config, "image_size", None)
        self._own = (own, own) if isinstance(own, int) else own and tuple(own)
        self._interpolates = INTERPOLATES in inspect.signature(self.vision.forward).parameters
        if hasattr(whole, "get_image_features"):
            self._require_as_published(whole)

    def _given(self, images: Tensor) -> Any:
        return self.vision(pixel_values=images, **self._more(images))

    def _more(self, images: Tensor) -> dict[str, Any]:
        """Positions are interpolated at sizes that are not the network's own."""
        return {INTERPOLATES: True} if self._interpolates and tuple(images.shape[2:]) != self._own else {}

    def forward(self, images: Tensor) -> Tensor:
        return self._chosen(self._given(images))

    def _chosen(self, given: Any) -> Tensor:
        tokens: Tensor = given.last_hidden_state
        if self._output == "token":
            return tokens[:, 0]
        if self._output == "avg":
            return tokens[:, self._prefix :].mean(1)
        pooled: Tensor = given.pooler_output
        return self.projection(pooled) if self._output == HEAD and self.projection is not None else pooled

    def choose(self, pooling: str, head: bool | None) -> str:
        """Make `forward` give the vectors asked for; what the embedding space keeps of that."""
        if gives_head(self._name, self.projection is not None, pooling, head):
            self._output = HEAD
            return HEAD
        given = probe(self._given, self._name, self._size)
        own, tokens = getattr(given, "pooler_output", None), given.last_hidden_state
        if not pooling and own is None:
            raise BadInputError(f"{self._name}: has no trained pooling; choose `gallery_pooling` token or avg")
        if not pooling or (pooling == "map" and hasattr(getattr(self.vision, "head", None), "probe")):
            return ""
        self._prefix = self._prefix_tokens(tokens)
        if pooling not in ("token", "avg") or tokens.ndim != 3 or (pooling == "token" and not self._prefix):
            raise BadInputError(f"`gallery_pooling` {pooling}: {self._name} cannot pool so")
        self._output = pooling
        if own is not None and _same(own, self._chosen(given)):
            self._output = ""
        return self._output

    def _prefix_tokens(self, tokens: Tensor) -> int:
        """How many tokens stand for no place: class and registers."""
        count, patch = tokens.shape[1], getattr(self.vision.config, "patch_size", None)
        places = (self._size // patch) ** 2 if isinstance(patch, int) else count + 1
        return count - (places if places <= count else math.isqrt(count) ** 2)  # windows merge, or convolutions

    def _require_as_published(self, whole: Any) -> None:
        def published(images: Tensor) -> Any:
            given = whole.get_image_features(pixel_values=images, **self._more(images))
            return given if isinstance(given, Tensor) else given.pooler_output

        def ours(images: Tensor) -> Tensor:
            pooled: Tensor = self._given(images).pooler_output
            return pooled if self.projection is None else self.projection(pooled)

        wanted = probe(published, self._name, self._size)
        if not _same(probe(ours, self._name, self._size), wanted):
            raise BadInputError(
                f"{self._name}: its get_image_features does more than pool and project; give it as module:function"
            )


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= SAME * other.abs().max())
