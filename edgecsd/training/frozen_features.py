"""What the frozen backbone gives for every training photo and view, computed once: the head is trained on it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgecsd.distributed import ALONE, Ranks
from edgecsd.errors import BadInputError
from edgecsd.files.places import sharing
from edgecsd.files.whole import Parts, digest_of, replace_whole, writing_array
from edgecsd.models.backbones import to_input
from edgecsd.models.embedding import PART_ITEMS, embed_parts
from edgecsd.models.frozen_forward import frozen_forward
from edgecsd.models.query import QueryModel
from edgecsd.models.weights import weights_digest
from edgecsd.photos.views import MOST_VIEWS, ViewRecipe
from edgecsd.progress import SILENT, Reporter
from edgecsd.training.training_set import TrainingSet

MAPS_BYTES = 4 << 30  # feature maps held at once: beyond it the head stage sees fewer of the views
Array = NDArray[np.floating[Any]]


class _Pooled(torch.nn.Module):
    """A query model up to where its head starts."""

    def __init__(self, model: QueryModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.pooled(images)


class _FrozenEmbedder:
    """The model up to where its head starts, as an Embedder; maps are flattened, and kept in float16."""

    def __init__(self, model: QueryModel, shape: tuple[int, ...], images: int, reporter: Reporter) -> None:
        self.preprocess, self.dim = model.config.preprocess, math.prod(shape)
        self._forward = frozen_forward(_Pooled(model).eval(), self.preprocess.size, images, reporter=reporter)

    def embed(self, pixels: NDArray[np.uint8]) -> Any:  # float16 for maps, where the protocol has float32
        features = self._forward(to_input(pixels, self.preprocess))
        return features.flatten(1).half().numpy() if features.ndim > 2 else features.numpy()


def frozen_features(
    model: QueryModel,
    data: TrainingSet,
    folder: Path,
    *,
    workers: int,
    part_items: int = PART_ITEMS,
    everyone: Ranks = ALONE,
    reporter: Reporter = SILENT,
) -> Array:
    """(T, 1 + V, C) pooled features, or (T, 1 + V, C, h, w) float16 maps where the head takes them.

    Memory-mapped. Kept in `folder` under a name made of all that they follow from, so that several runs can share it;
    features of more views than are wanted serve too. Maps of all views may take too much room: then only the first
    views are taken, and the reporter says so. The processes of `everyone` share the work.
    """
    shape = _shape(model)
    views = _views(data.views, len(data.images), shape, reporter)
    settings = _made_of(model, data, shape)
    stem = f"pooled-{digest_of(settings)[:16]}"
    file = folder / f"{stem}-{views.count}.npy"

    def kept() -> Array | None:
        for count in range(views.count, MOST_VIEWS + 1):
            if (enough := folder / f"{stem}-{count}.npy").is_file():
                return _mapped(enough)[:, : 1 + views.count].reshape(len(data.images), -1, *shape)
        return None

    found = kept() if everyone.count == 1 else None
    if found is not None:
        return found
    with sharing(file, everyone, reporter):
        found = kept()
        if found is not None:
            return found
        with everyone.one_ahead():
            parts = Parts(file, {**settings, "part_items": part_items})
        embedder = _FrozenEmbedder(model, shape, len(data.images) * (1 + views.count), reporter)
        embed_parts(
            data.images,
            embedder,
            parts,
            recipe=views,
            part_items=part_items,
            workers=workers,
            strict=True,
            advice="it could be read when its features were extracted",
            name="pooled features",
            everyone=everyone,
            reporter=reporter,
        )
        if everyone.first:
            _keep(file, parts, math.ceil(len(data.images) / part_items), data)
        everyone.meet()
    return _mapped(file).reshape(len(data.images), -1, *shape)


def _mapped(file: Path) -> Array:
    """Memory-mapped; "c", since torch warns of arrays that cannot be written to."""
    return np.asarray(np.load(file, mmap_mode="c", allow_pickle=False))


def _keep(file: Path, parts: Parts, count: int, data: TrainingSet) -> None:
    """Write the finished file of so many parts, one at a time in memory.

    Raises BadInputError for a photo that is not the one any more that its gallery feature was made of.
    """
    digests = [digest for number in range(count) for digest in parts.read(number, "digests")["digests"].tolist()]
    known = zip(digests, data.digests, strict=True)
    changed = [position for position, (now, then) in enumerate(known) if then and now != then]
    if changed:
        parts.discard()
        raise BadInputError(
            f"{data.images.name(changed[0])}: changed since its features were extracted "
            f"({len(changed)} such images); extract again"
        )
    first = parts.read(0, "vectors")["vectors"]
    shape = (len(digests), *first.shape[1:])
    with replace_whole(file) as temporary, writing_array(temporary, shape, first.dtype) as append:
        for number in range(count):
            append(parts.read(number, "vectors")["vectors"])
    parts.discard()


def _made_of(model: QueryModel, data: TrainingSet, shape: tuple[int, ...]) -> dict[str, Any]:
    """All that the features of one view follow from: its number, not how many there are."""
    return {
        "model": weights_digest(model.backbone.state_dict()),
        "config": model.config.model_dump(mode="json"),
        "shape": list(shape),
        "images": digest_of([list(data.images.ids), list(data.digests)]),
        "views": {**data.views.model_dump(mode="json"), "count": 0},
    }


def _shape(model: QueryModel) -> tuple[int, ...]:
    """Of one image's features."""
    size = model.config.preprocess.size
    with torch.inference_mode():
        return tuple(model.pooled(torch.zeros(1, 3, size, size)).shape[1:])


def _views(recipe: ViewRecipe, images: int, shape: tuple[int, ...], reporter: Reporter) -> ViewRecipe:
    if len(shape) == 1:
        return recipe
    fitting = max(0, MAPS_BYTES // (2 * math.prod(shape) * images) - 1)
    if fitting < recipe.count:
        reporter.message(f"the head is trained on {fitting} of {recipe.count} views: not all maps fit into memory")
    return recipe.model_copy(update={"count": min(recipe.count, fitting)})
