"""extract: a folder of photos and a gallery model -> a feature store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgecsd.distributed import ranks
from edgecsd.errors import BadInputError, validation_text
from edgecsd.features.shards import require_dtype
from edgecsd.features.space import EmbeddingSpace, require_same_space
from edgecsd.features.store import KIND, FeatureStore, Items, write_store
from edgecsd.features.whitening import Whitening
from edgecsd.files.places import holding_out, require_free
from edgecsd.files.whole import Parts, digest_of, read_json, write_json
from edgecsd.models.embedding import PART_ITEMS, embed_parts, join_parts
from edgecsd.models.frozen_forward import Engine
from edgecsd.models.gallery.loading import load_gallery_model
from edgecsd.models.gallery.model import GalleryEmbedder, GalleryModel, WhitenedGalleryModel, prepare
from edgecsd.photos.images import ImageSet
from edgecsd.photos.views import ViewRecipe, ViewStrength, view_recipe
from edgecsd.progress import SILENT, Reporter


@holding_out
def extract(
    images: ImageSet,
    gallery_model: str | GalleryModel,
    out: Path,
    *,
    weights: Path | None = None,
    gallery_size: int | None = None,
    gallery_pooling: str = "",
    gallery_head: bool | None = None,
    gallery_output: str = "",
    preprocess: Path | None = None,
    scales: tuple[float, ...] = (1.0,),
    whitening: Path | None = None,
    views: int = 0,
    view_strength: ViewStrength = ViewStrength.STRONG,
    seed: int = 0,
    dtype: str = "float16",
    engine: Engine = Engine.AUTO,
    batch_size: int = 16,
    workers: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> FeatureStore:
    """Embed every image, and `views` augmented views of each, with the gallery model.

    Under torchrun every process makes its share, in a folder that all of them see, and the first writes the store. A
    killed run goes on where it stopped, also with another number of processes. An image that cannot be read is listed
    in unreadable.txt and skipped, or, with `strict`, ends the run. A whole store that the same call made is kept as it
    is; another is an error unless `overwrite`. Raises BadInputError if no image can be read.

    gallery_pooling, gallery_head, gallery_output   what of the model's outputs the vectors are, where it has a choice
                                                    (edgecsd.models.gallery)
    scales     average the vectors of the input at these scales; with a gallery model that is given by name only
    engine     what runs a timm network: by default onnxruntime where it is worth while (edgecsd.models.frozen_forward)
    whitening  a whitened store, whose transform every vector goes through; IncompatibleError where it is of another
               gallery model
    """
    require_dtype(dtype)
    everyone = ranks()
    reporter = reporter if everyone.first else SILENT
    recipe = _recipe(views, seed, view_strength)
    if out.exists() and overwrite:
        require_free(out, KIND, overwrite=True, read=(whitening,))
    if isinstance(gallery_model, str):
        model = load_gallery_model(
            gallery_model,
            weights=weights,
            size=gallery_size,
            preprocess=preprocess,
            scales=scales,
            pooling=gallery_pooling,
            head=gallery_head,
            output=gallery_output,
        )
    elif scales != (1.0,):
        raise BadInputError("scales: a gallery model that is handed over finished averages inside its own embed()")
    else:
        model = gallery_model
    prepare(model, len(images) * (1 + views), engine, reporter)
    transform = None
    if whitening is not None:
        transform, model = _whitened(model, whitening)
    settings = {
        "ids": digest_of(list(images.ids)),
        "labels": digest_of(images.labels),
        "space": model.space.fingerprint,
        "views": recipe.model_dump(mode="json"),
        "root": images.place,
        "part_items": PART_ITEMS,
        "dtype": dtype,
    }
    if images.boxes is not None:
        settings["boxes"] = digest_of([box and list(box.pixels) for box in images.boxes])
    if out.exists() and not overwrite:
        return _existing(out, settings, model.space, reporter)
    if everyone.first:
        Parts(out, settings)  # throws away what was made under other settings, before anybody looks
    everyone.meet()
    parts = Parts(out, settings)
    if everyone.first:
        _require_same_maker(parts, model.space)
    embed_parts(
        images,
        GalleryEmbedder(model),
        parts,
        recipe=recipe,
        part_items=PART_ITEMS,
        batch_size=batch_size,
        workers=workers,
        strict=strict,
        everyone=everyone,
        reporter=reporter,
    )
    if everyone.first:
        _write(out, images, parts, recipe, model.space, dtype, transform, settings, reporter)
        parts.discard()
    everyone.meet()
    return FeatureStore.open(out)


def _require_same_maker(parts: Parts, space: EmbeddingSpace) -> None:
    """Raise IncompatibleError where the library that made the first parts gave other vectors than this one does."""
    file = parts.folder / "space.json"
    if file.is_file():
        begun = EmbeddingSpace.model_validate(read_json(file))
        require_same_space(begun, space, f"what is made so far ({parts.folder})", "the gallery model as it loads here")
    else:
        write_json(file, space.model_dump(mode="json"))


def _write(
    out: Path,
    images: ImageSet,
    parts: Parts,
    recipe: ViewRecipe,
    space: EmbeddingSpace,
    dtype: str,
    transform: Whitening | None,
    settings: dict[str, Any],
    reporter: Reporter,
) -> None:
    """The store, of what all processes made."""
    found = join_parts(parts, len(images), 1 + recipe.count, space.dim, part_items=PART_ITEMS)
    skipped = [(images.ids[p], problem) for p, problem in found.problems.items()]
    if not found.kept:
        parts.discard()
        raise BadInputError(
            f"{images.root}: none of the {len(images)} images can be read"
            + (f"; the first: {skipped[0][1]}" if skipped else "")
        )
    items = images.subset(found.kept) if skipped else images
    write_store(
        out,
        space,
        Items(items.ids, found.digests, items.labels),
        found.vectors,
        views=recipe,
        view_vectors=found.view_vectors,
        dtype=dtype,
        unreadable=skipped,
        provenance=settings,
        whitening=transform,
    )
    if skipped:
        reporter.message(
            f"{len(skipped)} of {len(images)} images could not be read; they are listed in {out / 'unreadable.txt'}"
        )


def _whitened(model: GalleryModel, whitened: Path) -> tuple[Whitening, GalleryModel]:
    """The transform in a whitened store, and the model with it behind."""
    store = FeatureStore.open(whitened)
    transform = store.whitening
    if transform is None:
        raise BadInputError(f"`whitening` {whitened}: its vectors are not whitened; give what edgecsd whiten wrote")
    return transform, WhitenedGalleryModel(model, transform, store.space, str(whitened))


def _recipe(views: int, seed: int, strength: ViewStrength) -> ViewRecipe:
    try:
        return view_recipe(views, seed, strength)
    except ValidationError as error:
        raise BadInputError(f"`views` {views}: {validation_text(error)}") from None


def _existing(out: Path, settings: dict[str, Any], space: EmbeddingSpace, reporter: Reporter) -> FeatureStore:
    store = FeatureStore.open(out)
    if store.manifest.get("provenance") != settings:
        raise BadInputError(
            f"{out}: already there, made from other images, models or settings; choose another `out` or add `overwrite`"
        )
    require_same_space(store.space, space, str(out), "the gallery model as it loads here")
    reporter.message(f"{out} is already whole: nothing to do")
    return store
