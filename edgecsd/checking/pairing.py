"""What is checked against what: file and torch model, index and store, photos and the gallery model's features."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, IncompatibleError, first_line
from edgecsd.features.space import require_same_space
from edgecsd.features.store import FeatureStore
from edgecsd.index.addresses import MilvusAddress
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.opening import open_index
from edgecsd.models.embedding import embed_images
from edgecsd.models.gallery.loading import NAMED, gallery_model_of
from edgecsd.models.gallery.model import GalleryEmbedder, GalleryModel
from edgecsd.models.query import QueryModel, load_query_model
from edgecsd.photos.images import ImageSet
from edgecsd.progress import Reporter
from edgecsd.quantisation.precisions import Precision
from edgecsd.targets.artifact import ArtifactEmbedder, read_metadata
from edgecsd.targets.metadata import ArtifactMetadata

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CheckOptions:
    """What goes beyond the file, the index and the photos.

    fp32              the fp32 artifact of the waterfall (default: the one of the same weights beside the file)
    gallery           the store that the index was built from: exact results, digests and labels come from it
    gallery_images    the gallery's photos, to be shown on the page
    device            .npz with `ids` (n,) and `embeddings` (n, D) of the photos, as a device computed them
    threshold         the product's, on the cosine
    thresholds_file   TOML file of thresholds, by precision
    strict            an undecided gate forbids shipping
    golden            the golden pack of the file, to be verified here
    bench             rows of `edgecsd bench`, to be shown on the page (default: those that lie in the run)
    """

    fp32: Path | None = None
    gallery: Path | None = None
    gallery_images: ImageSet | None = None
    device: Path | None = None
    threshold: float | None = None
    thresholds_file: Path | None = None
    strict: bool = False
    golden: Path | None = None
    bench: Path | None = None


@dataclass(frozen=True)
class DeviceEmbeddings:
    """What a device computed: vectors (n, dim), and the row of each photo's id."""

    file: Path
    row_of: dict[str, int] = field(repr=False)
    vectors: Floats = field(repr=False)

    @staticmethod
    def open(file: Path, dim: int) -> DeviceEmbeddings:
        """Read the .npz of a device. Raises BadInputError for anything else than ids and vectors of this dimension."""
        wanted = f"`device` takes an .npz that holds `ids` (n,) and `embeddings` (n, {dim}) of all the photos"
        if not file.is_file():
            raise BadInputError(f"`device` {file}: no such file")
        if not zipfile.is_zipfile(file):
            raise BadInputError(f"`device` {file}: is no .npz; {wanted}")
        try:
            with np.load(file, allow_pickle=False) as stored:
                if absent := [name for name in ("ids", "embeddings") if name not in stored.files]:
                    held = ", ".join(stored.files) or "nothing"
                    raise BadInputError(f"`device` {file}: has no `{absent[0]}`, but {held}; {wanted}")
                ids, vectors = stored["ids"], stored["embeddings"]
        except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            why = "Python objects, which are not read" if "allow_pickle" in str(error) else first_line(error)
            raise BadInputError(f"`device` {file}: cannot be read: {why}; {wanted}") from None
        if ids.ndim != 1 or vectors.shape != (len(ids), dim) or vectors.dtype.kind != "f":
            shapes = f"ids {ids.shape}, embeddings {vectors.shape} {vectors.dtype}"
            raise BadInputError(f"`device` {file}: holds {shapes}; {wanted}, as floats")
        return DeviceEmbeddings(file, {str(item): row for row, item in enumerate(ids)}, vectors.astype(np.float32))

    def of(self, photos: ImageSet) -> Floats:
        """(n, dim) of the photos, in their order."""
        if absent := [item for item in photos.ids if item not in self.row_of]:
            raise BadInputError(
                f"`device` {self.file}: has no embedding of {absent[0]} ({len(absent)} of {len(photos)} photos); "
                "it must hold `ids` and `embeddings` of all the photos"
            )
        return self.vectors[[self.row_of[item] for item in photos.ids]]


@dataclass(frozen=True)
class Pair:
    """The file with its torch model, the index with its store, and what is known of the gallery's items by id.

    fp32     the fp32 file of the same weights, where there is one
    device   what a device computed of the photos with the file, where it is known
    """

    file: Path
    artifact: ArtifactEmbedder
    run: Path
    model: QueryModel
    index: GalleryIndex
    store: FeatureStore | None
    digests: dict[str, str] = field(repr=False)
    labels: dict[str, str] | None = field(repr=False)
    fp32: Path | None = None
    device: DeviceEmbeddings | None = None


@dataclass(frozen=True)
class CheckQueries:
    """Readable photos (n), the gallery model's features of them (n, D), and what was left out or is not what it was."""

    photos: ImageSet
    truth: Floats
    unreadable: int
    labels: tuple[str, ...] | None
    reference: str
    known: dict[str, str] = field(default_factory=dict, repr=False)  # id -> digest of the photo the features are of
    model: GalleryModel | None = None  # where it was run


def open_pair(
    file: Path,
    index: Path | MilvusAddress,
    run: Path | None,
    reference: Path | None,
    chosen: CheckOptions,
    threads: int,
) -> Pair:
    """Everything that is compared, read and found to belong together before any photo is embedded."""
    artifact, opened = ArtifactEmbedder(file, threads=threads), open_index(index)
    if artifact.metadata.study_only:
        raise BadInputError(f"{file}: was exported with `study_only`, for study and not to ship; export it without")
    require_same_space(artifact.metadata.space, opened.space, str(file), str(opened.path))
    folder = run_of(file, run)
    model = load_query_model(folder)
    if model.config.weights_digest != artifact.metadata.weights_digest:
        raise IncompatibleError(
            f"{file} was not exported from the query model in {folder}: their weights differ; "
            f"give its own run with `run`"
        )
    if len(opened.ids) < 2:
        raise BadInputError(
            f"{opened.path}: a gallery of {len(opened.ids)} has nothing to find beside the photo itself"
        )
    fp32 = _fp32_beside(file, artifact.metadata, folder, chosen.fp32)
    device = None if chosen.device is None else DeviceEmbeddings.open(chosen.device, artifact.metadata.dim)
    stores = [FeatureStore.open(path, verify=True) for path in (chosen.gallery, reference) if path is not None]
    for store in stores:
        require_same_space(store.space, opened.space, str(store.path), str(opened.path))
    digests = dict(opened.digests)
    labels: dict[str, str] | None = None
    for store in stores:
        inside = chosen.gallery is not None and store is stores[0]
        known = zip(store.items.ids, store.items.digests, strict=True)
        digests = {item: d for item, d in known if d and (inside or item in opened.row_of)} | digests
        if labels is None and store.items.labels is not None and opened.row_of.keys() <= store.row_of.keys():
            labels = dict(zip(store.items.ids, store.items.labels, strict=True))
    inside_store = stores[0] if chosen.gallery is not None else None
    return Pair(file, artifact, folder, model, opened, inside_store, digests, labels, fp32, device)


def run_of(file: Path, run: Path | None) -> Path:
    """The run that the file was exported from: the one given, or the one that it lies in."""
    if not file.exists():
        raise BadInputError(f"{file}: no such file")
    found = run or file.resolve().parent.parent
    if not (found / "query_model.json").is_file():
        raise BadInputError(
            f"{found}: no query model there to compare {file.name} with; give the run it was exported from with `run`"
        )
    return found


def find_answers(
    photos: ImageSet, index: GalleryIndex, reference: Path | None
) -> tuple[FeatureStore, list[int]] | None:
    """The reference store and the positions of the photos whose features it has; None: the gallery model is to be run.

    Raises BadInputError for a store without any of them, and, without a store, where the model cannot be run from here;
    IncompatibleError for a store of another space than the index.
    """
    if reference is not None:
        store = FeatureStore.open(reference, verify=True)
        require_same_space(store.space, index.space, str(reference), str(index.path))
        known = [p for p, item in enumerate(photos.ids) if item in store.row_of]
        if not known:
            raise BadInputError(
                f"{reference}: has no features of the images in {photos.root}; extract them from that folder"
            )
        return store, known
    name = index.space.gallery_model
    derived = index.space.parts or index.space.whitening  # joined or whitened vectors are made by more than a model
    if derived or not name.startswith(NAMED):
        raise BadInputError(
            f"the gallery model {name!r} cannot be run from here: "
            f"give its features of the images with `reference` STORE"
        )
    return None


def gallery_features(
    photos: ImageSet, index: GalleryIndex, reference: Path | None, weights: Path | None, reporter: Reporter
) -> CheckQueries:
    """The readable photos with the gallery model's features, from the reference store or by running the model."""
    answers = find_answers(photos, index, reference)
    if answers is not None:
        store, known = answers
        chosen = photos.subset(known)
        rows, stored = [store.row_of[item] for item in chosen.ids], store.items.labels
        labels = chosen.labels if chosen.labels or not stored else tuple(stored[row] for row in rows)
        digests = {item: store.items.digests[row] for item, row in zip(chosen.ids, rows, strict=True)}
        return CheckQueries(chosen, store.vectors()[rows], len(photos) - len(known), labels, str(reference), digests)
    space, name = index.space, index.space.gallery_model
    gallery_model = gallery_model_of(space, weights=weights)
    require_same_space(gallery_model.space, index.space, f"the gallery model {name} as it loads here", str(index.path))
    embedded = embed_images(photos, GalleryEmbedder(gallery_model), name="gallery model", reporter=reporter)
    if not embedded.kept:
        raise BadInputError(
            f"{photos.root}: none of the {len(photos)} images can be read; the first: {embedded.problems[0]}"
        )
    kept = photos.subset(embedded.kept)
    return CheckQueries(
        kept,
        embedded.vectors[:, 0],
        len(embedded.problems),
        kept.labels,
        f"{name}, run for this check",
        model=gallery_model,
    )


def _fp32_beside(file: Path, mine: ArtifactMetadata, run: Path, given: Path | None) -> Path | None:
    """The fp32 artifact of the same weights and target: the file, the one given, or one beside it or in the run."""
    if mine.precision is Precision.FP32:
        if given is not None:
            raise BadInputError(f"`fp32` {given}: {file} is fp32 itself, and is compared with torch; leave it out")
        return file
    if given is not None:
        other = read_metadata(given)
        if (other.precision, other.weights_digest) != (Precision.FP32, mine.weights_digest):
            raise BadInputError(f"`fp32` {given}: is {other.precision} or of other weights than {file}")
        return given
    folders = dict.fromkeys(folder.resolve() for folder in (file.resolve().parent, run / "exports"))
    for path in [each for folder in folders for each in sorted(folder.glob(f"*{file.suffix}"))]:
        try:
            other = read_metadata(path)
        except BadInputError:  # somebody else's file
            continue
        if (other.precision, other.weights_digest) == (Precision.FP32, mine.weights_digest):
            return path
    return None
