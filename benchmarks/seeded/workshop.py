"""The sound things that defects are seeded into: photos, stores, query models, files and an index; made once, kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgecsd.checking.pairing import CheckOptions
from edgecsd.demo.demo import GALLERY_MODEL, split_photos
from edgecsd.demo.photos import food_photos, mobilenet_weights
from edgecsd.exporting.export import export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.files.whole import replace_whole
from edgecsd.gallery.extract import extract
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.models.gallery.loading import load_gallery_model
from edgecsd.models.gallery.model import GalleryModel
from edgecsd.models.query import QueryModel, load_query_model
from edgecsd.photos.contract import Preprocess, Resize
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.progress import Reporter
from edgecsd.targets.artifact import ArtifactEmbedder, parse_target, read_metadata, target_module
from edgecsd.targets.deploy import DeployModel
from edgecsd.training.distill import distill
from edgecsd.training.settings import DistillConfig

Floats = NDArray[np.float32]
SIDEWAYS = 6  # the EXIF orientation of a phone held upright: the sensor's rows are the photo's columns
VIEWS = 3
CALIBRATION = 64  # photos


@dataclass(frozen=True)
class Pair:
    """What `check` is given: the arguments that are not the usual ones are changed by a defect."""

    file: Path
    index: Path
    images: ImageSet
    run: Path
    options: CheckOptions
    reference: Path | None = None
    weights: Path | None = None

    def arguments(self) -> dict[str, Any]:
        return dict(vars(self))


class Workshop:
    """Everything sound, made when first asked for. photos: a list with splits, or None for the demo's."""

    def __init__(self, folder: Path, photos: Path | None, limit: int, reporter: Reporter) -> None:
        self.folder, self.reporter = folder, reporter
        if photos is None:
            self.gallery_photos, self.query_photos = split_photos(food_photos())
        else:
            self.gallery_photos, self.query_photos = (find_images(photos, split=s) for s in ("gallery", "query"))
        if len(self.query_photos) > limit:
            chosen = np.linspace(0, len(self.query_photos) - 1, limit).round().astype(int).tolist()
            self.query_photos = self.query_photos.subset(chosen)

    def path(self, *parts: str) -> Path:
        """A place below the work folder; the folders above it are made."""
        found = self.folder.joinpath(*parts)
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    # Stores and index

    @cached_property
    def gallery(self) -> FeatureStore:
        return extract(
            self.gallery_photos, GALLERY_MODEL, self.path("gallery.store"), views=VIEWS, reporter=self.reporter
        )

    @cached_property
    def queries(self) -> FeatureStore:
        return extract(self.query_photos, GALLERY_MODEL, self.path("query.store"), reporter=self.reporter)

    def gallery_vectors_by(self, embed: Callable[[Image.Image], Floats], name: str) -> Floats:
        """(N, D) vectors of the gallery's photos by `embed`, kept under `name`."""
        kept = self.path("vectors", f"{name}.npy")
        if not kept.exists():
            photos = [self.gallery_photos.read(position).image for position in range(len(self.gallery_photos))]
            with replace_whole(kept) as temporary, open(temporary, "wb") as handle:
                np.save(handle, unit(np.stack([embed(photo) for photo in photos])))
        vectors: Floats = np.load(kept)
        return vectors

    def store(
        self,
        name: str,
        vectors: Floats,
        *,
        space: EmbeddingSpace | None = None,
        items: Items | None = None,
        dtype: str = "float32",
    ) -> FeatureStore:
        """A feature store of these vectors with the gallery's items and its space, unless others are given."""
        out = self.path("stores", f"{name}.store")
        if out.exists():
            shutil.rmtree(out)
        return write_store(out, space or self.gallery.space, items or self.gallery.items, vectors, dtype=dtype)

    def index(self, name: str, store: FeatureStore | None = None, **options: Any) -> Path:
        """An index over a store, the gallery's unless told."""
        out = self.path("indexes", f"{name}.index")
        return build_index(store or self.gallery, out, overwrite=out.exists(), **options).path

    @cached_property
    def sound_index(self) -> Path:
        return self.index("sound")

    @cached_property
    def gallery_model(self) -> GalleryModel:
        return load_gallery_model(GALLERY_MODEL)

    # Query models and files

    def run(self, name: str = "run", gallery: FeatureStore | None = None, **settings: Any) -> Path:
        """A run folder; the head is trained on cached features of the frozen backbone, which the runs share."""
        out, features = self.path("runs", name), gallery or self.gallery
        if not (out / "query_model.json").exists():
            config = DistillConfig.model_validate({"epochs": 0, "head_steps": 400, **settings})
            distill(
                self.gallery_photos, features.path, out, config=config, cache=self.path("cache"), reporter=self.reporter
            )
        return out

    @cached_property
    def mobilenet_run(self) -> Path:
        return self.run("mobilenetv2", query_model="mobilenetv2_100", weights=mobilenet_weights())

    def file(self, target: str, precision: str, run: Path | None = None, **options: Any) -> Path:
        """A sound artifact of a run; w8a8 is calibrated on the gallery's photos."""
        folder = run or self.run()
        name = options.pop("name", f"model-{precision}")
        suffix = ".ort" if options.get("ort_format") else parse_target(target).suffix
        out = folder / "exports" / f"{name}{suffix}"
        if not out.exists():
            calibration = options.pop("calibration", self.gallery_photos)
            export(folder, target, precision, out=out, calibration=calibration, reporter=self.reporter, **options)
        return out

    def broken_file(
        self,
        name: str,
        target: str,
        precision: str,
        change: Callable[[QueryModel], DeployModel],
        calibration: NDArray[np.uint8] | None = None,
    ) -> Path:
        """An artifact that says of itself what the sound one says, of a network that was changed."""
        sound, kind = self.file(target, precision), parse_target(target)
        out = self.path("broken", f"{name}{kind.suffix}")
        if not out.exists():
            pixels = self.calibration() if calibration is None and precision == "w8a8" else calibration
            metadata = read_metadata(sound)
            with replace_whole(out) as temporary:
                target_module(kind).convert(
                    change(load_query_model(self.run())), temporary, metadata.precision, pixels, metadata
                )
        return out

    def calibration_photos(self, count: int = CALIBRATION) -> ImageSet:
        """Gallery photos, evenly spread."""
        chosen = np.linspace(0, len(self.gallery_photos) - 1, count).round().astype(int)
        return self.gallery_photos.subset(chosen.tolist())

    def calibration(self, count: int = CALIBRATION) -> NDArray[np.uint8]:
        """(count, S, S, 3) pixels of the photos for calibration."""
        photos = self.calibration_photos(count)
        return np.stack([self.contract.pixels(photos.read(position).image) for position in range(count)])

    @cached_property
    def contract(self) -> Preprocess:
        return load_query_model(self.run()).config.preprocess

    # Pairs

    def pair(self, file: Path | None = None, index: Path | None = None, **changes: Any) -> Pair:
        """The pair that a team would check, with what a defect exchanges; options of CheckOptions by their names."""
        known = {name: changes.pop(name) for name in list(changes) if name in Pair.__dataclass_fields__}
        options = CheckOptions(**{"gallery_images": self.gallery_photos, "gallery": self.gallery.path, **changes})
        made = Pair(
            file=file or self.file("onnx", "fp32"),
            index=index or self.sound_index,
            images=self.query_photos,
            run=self.run(),
            options=options,
        )
        return replace(made, **known)

    def device(self, name: str, pixels: Sequence[NDArray[np.uint8]], file: Path | None = None) -> Path:
        """An .npz of what a device would send that feeds these pixels into the file, a query each."""
        artifact = ArtifactEmbedder(file or self.file("onnx", "fp32"))
        return self.sent(name, np.concatenate([artifact.embed(one[None]) for one in pixels]))

    def sent(self, name: str, embeddings: Floats) -> Path:
        """An .npz of these embeddings (Q, D) with the queries' ids."""
        out = self.path("devices", f"{name}.npz")
        with replace_whole(out) as temporary, open(temporary, "wb") as handle:
            np.savez(handle, ids=np.array(self.query_photos.ids), embeddings=embeddings)
        return out

    @cached_property
    def embeddings(self) -> Floats:
        """(Q, D) of the sound fp32 file for the queries."""
        artifact, photos = ArtifactEmbedder(self.file("onnx", "fp32")), self.query_photos
        pixels = [self.contract.pixels(photos.read(p).image) for p in range(len(photos))]
        return np.concatenate([artifact.embed(one[None]) for one in pixels])

    @cached_property
    def sideways_photos(self) -> ImageSet:
        """The queries as a phone writes them: stored sideways, with the EXIF orientation that sets them upright."""
        folder = self.path("sideways")
        if not folder.exists():
            with replace_whole(folder) as temporary:
                temporary.mkdir()
                for position, item in enumerate(self.query_photos.ids):
                    out = (temporary / item).with_suffix(".jpg")
                    out.parent.mkdir(parents=True, exist_ok=True)
                    turned = self.query_photos.read(position).image.transpose(Image.Transpose.ROTATE_90)
                    exif = Image.Exif()
                    exif[0x0112] = SIDEWAYS
                    turned.save(out, quality=95, exif=exif)
        return find_images(folder)


def unit(vectors: NDArray[Any]) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def items_of(store: FeatureStore, rows: Sequence[int], prefix: str = "") -> Items:
    """The items of some rows, with their labels; `prefix` stands before the ids."""
    items = store.items
    labels = None if items.labels is None else tuple(items.labels[row] for row in rows)
    return Items(tuple(prefix + items.ids[row] for row in rows), tuple(items.digests[row] for row in rows), labels)


def box_of(contract: Preprocess, photo: Image.Image) -> tuple[float, float, float, float]:
    """The part of a photo that the contract keeps: (left, top, right, bottom) in its pixels."""
    if contract.resize is Resize.SQUASH:
        return 0.0, 0.0, float(photo.width), float(photo.height)
    side = contract.crop_pct * min(photo.size)
    left, top = (photo.width - side) / 2, (photo.height - side) / 2
    return left, top, left + side, top + side


def other_shape(contract: Preprocess) -> Preprocess:
    """Squashed where the contract crops, and the reverse."""
    squashes = contract.resize is Resize.SQUASH
    return contract.model_copy(update={"resize": Resize.SHORTER_SIDE if squashes else Resize.SQUASH})
