"""A gallery model from open_clip. The only importer of open_clip."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch import Tensor, nn

from edgecsd.errors import BadInputError, MissingBackendError, first_line, missing_extra
from edgecsd.models.gallery.model import HEAD, GalleryOptions
from edgecsd.models.gallery.timm import pool_features
from edgecsd.models.gallery.torch_network import TorchGalleryModel, gives_head
from edgecsd.models.hub import cache_only_without_network
from edgecsd.photos.contract import BRIGHTEST, Interpolation, Preprocess, Resize, preprocess_from_json
from edgecsd.quiet import quiet_logs

try:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg
    from open_clip.transform import PreprocessCfg
except ImportError:
    raise missing_extra("open_clip", "gallery") from None

HUB, FOLDER, CONFIG = "hf-hub:", "local-dir:", "open_clip_config.json"  # open_clip's own prefixes and file
PREPARATION = ("mean", "std", "interpolation", "resize_mode")
_RESIZES = {"shortest": Resize.SHORTER_SIDE_THEN_CROP, "squash": Resize.SQUASH, "longest": Resize.LONGER_SIDE_THEN_PAD}
_POOLINGS = {"token": "tok", "avg": "avg"}  # timm's names, which are ours -> open_clip's


class OpenClipGalleryModel(TorchGalleryModel):
    """What `encode_image` gives.

    name  MODEL/TAG, MODEL/FILE, hf-hub:OWNER/NAME, or a folder with open_clip_config.json; `weights` is the file or
          folder where it does not lie under that name, and a tag then names the preparation of photos
    """

    def __init__(self, name: str, options: GalleryOptions) -> None:
        source = _OpenClipSource.of(name, options.weights)
        contract = options.preprocess
        if contract is None:
            source.require_preparation()
        visual = source.load(contract.size if contract else options.size)
        contract = contract or _contract(visual.preprocess_cfg, source.name)
        output = _choose_output(visual, source.name, options.pooling, options.head)
        library = f"open_clip {open_clip.__version__}"
        super().__init__(source.name, _OpenClipTower(visual).eval(), contract, options.scales, output, library)


@dataclass(frozen=True)
class _OpenClipSource:
    """Where a model and its weights come from.

    name     what the embedding space keeps: without folders
    model    open_clip's name of it, or local-dir:FOLDER, or hf-hub:OWNER/NAME
    weights  a file or a tag; None where they lie beside the configuration
    tag      whose preparation of photos the weights have, where one is named
    """

    name: str
    model: str
    weights: str | None = None
    tag: str = ""

    @classmethod
    def of(cls, name: str, weights: Path | None) -> _OpenClipSource:
        shown = f"open_clip:{name}"
        if weights is not None and not weights.exists():
            raise BadInputError(f"`weights` {weights}: no such file or folder")
        if name.startswith(HUB) and weights is None:
            return cls(shown, name)
        folder = Path(name) if weights is None else weights
        if folder.is_dir():
            if not (folder / CONFIG).is_file():
                raise BadInputError(f"{shown}: {folder} has no {CONFIG}")
            return cls(shown if weights else f"open_clip:{folder.resolve().name}", f"{FOLDER}{folder}")
        model, _, chosen = name.partition("/")
        models = open_clip.list_models()
        if model not in models:
            near = get_close_matches(model, models, 6, 0.3) or models[:6]
            raise BadInputError(f"open_clip has no model {model!r}; it has for example: {', '.join(near)}")
        tags = open_clip.list_pretrained_tags_by_model(model)
        if weights is not None:
            return cls(f"open_clip:{_without_folders(model, chosen)}", model, str(weights), chosen * (chosen in tags))
        if chosen in tags:
            return cls(shown, model, chosen, chosen)
        if Path(chosen).is_file():
            return cls(f"open_clip:{_without_folders(model, chosen)}", model, chosen)
        wrong = f"neither a file nor a tag is called {chosen!r}" if chosen else "names no weights"
        known = f"; its tags: {', '.join(tags)}" if tags else ""
        raise BadInputError(f"{shown}: {wrong}; give open_clip:{model}/TAG or open_clip:{model}/FILE{known}")

    def load(self, size: int | None) -> Any:
        """The vision tower with its weights, in eval mode; nothing in a weights file is executed."""
        prepared = get_pretrained_cfg(self.model, self.tag) if self.tag else {}
        try:
            with cache_only_without_network(), quiet_logs():
                whole = open_clip.create_model(
                    self.model,
                    self.weights,
                    force_image_size=size,
                    force_preprocess_cfg={key: prepared[key] for key in PREPARATION if key in prepared},
                    pretrained_text=False,
                    require_pretrained=True,
                )
        except UnpicklingError:
            raise BadInputError(
                f"{self.name}: the file of its weights holds more than weights, which might run code; save its state "
                f"dict as .safetensors"
            ) from None
        except Exception as error:
            fetched = self.model.startswith(HUB) or (self.tag and self.weights == self.tag)
            kind, more = (MissingBackendError, "; give its file with `weights`") if fetched else (BadInputError, "")
            raise kind(f"{self.name}: open_clip cannot load it: {first_line(error)}{more}") from None
        return whole.visual.eval()

    def require_preparation(self) -> None:
        """Raise BadInputError where open_clip would prepare photos for a file as for none of the published weights."""
        known = [get_pretrained_cfg(self.model, tag) for tag in open_clip.list_pretrained_tags_by_model(self.model)]
        usual = [getattr(PreprocessCfg(), key) for key in PREPARATION]
        if not self.tag and known and all([config[key] for key in PREPARATION] != usual for config in known):
            raise BadInputError(
                f"{self.name}: how are photos prepared for this file? Name published weights that share it, "
                f"open_clip:{self.model}/TAG with `weights` FILE, or give a `preprocess` file"
            )


def _without_folders(model: str, chosen: str) -> str:
    return f"{model}/{Path(chosen).name}" if chosen else model


class _OpenClipTower(nn.Module):
    """A vision tower: (B, 3, S, S) -> (B, dim). Those of CoCa give their tokens too."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        given = self.visual(images)
        vectors: Tensor = given[0] if isinstance(given, tuple) else given
        return vectors


def _contract(config: dict[str, Any], name: str) -> Preprocess:
    """`open_clip.transform.image_transform_v2` as a pixel contract, to the bit; BadInputError where it is none."""
    size, mode = config["size"], config["resize_mode"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise BadInputError(f"{name}: takes photos of {height} x {width} px; only squares are offered")
    mean, std = ((value,) * 3 if isinstance(value, float) else value for value in (config["mean"], config["std"]))
    if mode == "longest" and any(round(BRIGHTEST * value) != config["fill_color"] for value in mean):
        raise BadInputError(
            f"{name}: its resize_mode longest frames photos in another colour than the mean's, which no pixel "
            f"contract does; give a `preprocess` file"
        )
    bilinear = config["interpolation"] == "bilinear"  # all else is bicubic, "random" too
    interpolation = Interpolation.BILINEAR if bilinear else Interpolation.BICUBIC
    values = {"size": height, "resize": _RESIZES[mode], "interpolation": interpolation, "mean": mean, "std": std}
    return preprocess_from_json(values, name)


def _choose_output(visual: Any, name: str, pooling: str, head: bool | None) -> str:
    """Change the tower so that it gives the vectors asked for; what the embedding space keeps of that."""
    trunk = getattr(visual, "trunk", None)  # of a timm network
    if trunk is None:
        projects = getattr(visual, "proj", visual) is not None
    else:
        projects = len(visual.head) > 0 or trunk.num_classes > 0
    if gives_head(name, projects, pooling, head):
        return HEAD
    if trunk is not None and not hasattr(visual.head, "pool"):
        visual.head = nn.Identity()
        return pool_features(trunk, name, pooling)
    if not hasattr(visual, "proj") or (pooling and (visual.attn_pool is not None or pooling not in _POOLINGS)):
        asked = f"`gallery_pooling` {pooling}" if pooling else "`gallery_head`=False"
        raise BadInputError(f"{asked}: {name} pools and projects in one step; leave it out")
    own, visual.proj = visual.pool_type, None
    visual.pool_type = _POOLINGS[pooling] if pooling else own
    return "" if visual.pool_type == own else pooling
