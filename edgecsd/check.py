"""check: may this artifact be searched in this gallery index? Space, numerics, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecsd.embedding import embed_images
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.extract import GalleryEmbedder
from edgecsd.features import FeatureStore
from edgecsd.files import sha256_file
from edgecsd.gallery_models import load_gallery_model
from edgecsd.images import ImageSet, find_images
from edgecsd.index import GalleryIndex
from edgecsd.metrics import overlap_at, rank_biased_overlap
from edgecsd.preprocess import validation_text
from edgecsd.progress import SILENT, Reporter
from edgecsd.query_models import QueryModelEmbedder, load_query_model
from edgecsd.space import require_same_space
from edgecsd.targets.embedder import ArtifactEmbedder

SCHEMA_VERSION = 1
Floats = NDArray[np.float32]


class Thresholds(BaseModel):
    """What an artifact must reach to pass; the parity defaults depend on its precision (DESIGN.md, section 7)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_cosine_mean: Annotated[float, Field(ge=-1, le=1)]
    min_cosine: Annotated[float, Field(ge=-1, le=1)]
    max_overlap_loss: Annotated[float, Field(ge=0, le=1)]
    min_overlap: Annotated[float, Field(ge=0, le=1)] = 0.3
    max_norm_error: Annotated[float, Field(gt=0)] = 1e-2


DEFAULT_THRESHOLDS = {
    "fp32": Thresholds(min_cosine_mean=0.99999, min_cosine=0.9999, max_overlap_loss=0.005),
    "fp16": Thresholds(min_cosine_mean=0.9999, min_cosine=0.999, max_overlap_loss=0.01),
    "w8a32": Thresholds(min_cosine_mean=0.99, min_cosine=0.95, max_overlap_loss=0.05),
    "w8a8": Thresholds(min_cosine_mean=0.985, min_cosine=0.90, max_overlap_loss=0.08),
}


@dataclass(frozen=True)
class Gate:
    """One threshold and the measured figure; `passed` is `figure >= threshold`, or `<=` where `at_most`."""

    name: str
    figure: float
    threshold: float
    at_most: bool = False

    @property
    def passed(self) -> bool:
        good = self.figure <= self.threshold if self.at_most else self.figure >= self.threshold
        return bool(np.isfinite(self.figure) and good)


@dataclass(frozen=True)
class CheckResult:
    """Evidence and verdict of one artifact against one index."""

    artifact: Path
    sha256: str
    index: Path
    fingerprint: str
    runtime: str
    images: int
    unreadable: int
    k: int
    gates: tuple[Gate, ...]
    figures: dict[str, float]

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema_version": SCHEMA_VERSION, "passed": self.passed,
            "artifact": str(self.artifact), "sha256": self.sha256,
            "index": str(self.index), "fingerprint": self.fingerprint, "runtime": self.runtime, "images": self.images,
            "unreadable": self.unreadable, "k": self.k, "figures": self.figures,
            "gates": [{**vars(gate), "passed": gate.passed} for gate in self.gates],
        }  # fmt: skip


def check(
    file: Path,
    index: Path,
    images: Path | ImageSet,
    *,
    split: str | None = None,
    run: Path | None = None,
    reference: Path | None = None,
    weights: Path | None = None,
    k: int = 10,
    limit: int | None = None,
    threads: int = 1,
    thresholds: dict[str, float] | None = None,
    reporter: Reporter = SILENT,
) -> CheckResult:
    """Compare an artifact with its torch model and, through the index, with the gallery model's own results.

    run        the run folder it was exported from (found by itself where the file lies in RUN/exports)
    reference  a feature store with the gallery model's features of `images`; without it the gallery model that the
               index names is run on them (`weights` where it needs a file)
    limit      use this many images, spread evenly

    Raises IncompatibleError (exit 3) if artifact, index and reference don't share one embedding space. The photos
    themselves are left out of what the index returns for them.
    """
    artifact, opened = ArtifactEmbedder(file, threads=threads), GalleryIndex.open(index)
    require_same_space(artifact.metadata.space, opened.space, str(file), str(index))
    limits = _thresholds(str(artifact.metadata.precision), thresholds or {})
    model = load_query_model(_run_of(file, run))
    if model.config.weights_digest != artifact.metadata.weights_digest:
        raise IncompatibleError(
            f"{file} was not exported from the query model in {_run_of(file, run)}: their weights differ; "
            f"give its own run with --run"
        )
    if len(opened.ids) < 2:
        raise BadInputError(f"{index}: a gallery of {len(opened.ids)} has nothing to find beside the photo itself")
    photos = images if isinstance(images, ImageSet) else find_images(images, split=split)
    if limit is not None and limit < len(photos):
        photos = photos.subset(np.linspace(0, len(photos) - 1, limit).round().astype(int).tolist())
    photos, truth, unreadable = _gallery_features(photos, opened, reference, weights, reporter)
    exported = embed_images(photos, artifact, strict=True, name=file.name, reporter=reporter).vectors[:, 0]
    original = embed_images(
        photos, QueryModelEmbedder(model), strict=True, name="torch query model", reporter=reporter
    ).vectors[:, 0]
    figures = _figures(exported, original, truth, opened, photos, k)
    gates = _gates(figures, limits, k)
    return CheckResult(
        file,
        sha256_file(file),
        index,
        opened.space.fingerprint,
        artifact.runtime,
        len(photos),
        unreadable,
        k,
        gates,
        figures,
    )


def _thresholds(precision: str, changes: dict[str, float]) -> Thresholds:
    try:
        return Thresholds.model_validate({**DEFAULT_THRESHOLDS[precision].model_dump(), **changes})
    except ValidationError as error:
        raise BadInputError(f"thresholds: {validation_text(error)}") from None


def _run_of(file: Path, run: Path | None) -> Path:
    found = run or file.resolve().parent.parent
    if not (found / "query_model.json").is_file():
        raise BadInputError(
            f"{found}: no query model there to compare {file.name} with; give the run it was exported from with --run"
        )
    return found


def _gallery_features(
    photos: ImageSet, index: GalleryIndex, reference: Path | None, weights: Path | None, reporter: Reporter
) -> tuple[ImageSet, Floats, int]:
    """The readable photos, the gallery model's features of them (n, D), and how many could not be read."""
    if reference is not None:
        store = FeatureStore.open(reference)
        require_same_space(store.space, index.space, str(reference), str(index.path))
        known = [p for p, item in enumerate(photos.ids) if item in store.row_of]
        if not known:
            raise BadInputError(
                f"{reference}: has no features of the images in {photos.root}; extract them from that folder"
            )
        chosen = photos.subset(known)
        return chosen, store.vectors()[[store.row_of[item] for item in chosen.ids]], len(photos) - len(known)
    name = index.space.gallery_model
    derived = index.space.parts or index.space.whitening  # joined or whitened vectors are made by more than a model
    if derived or not name.startswith(("timm:", "onnx:")):
        raise BadInputError(
            f"the gallery model {name!r} cannot be run from here: "
            f"give its features of the images with --reference STORE"
        )
    space = index.space
    gallery_model = load_gallery_model(name, weights=weights, preprocess=space.preprocess, scales=space.scales)
    require_same_space(gallery_model.space, index.space, f"the gallery model {name} as it loads here", str(index.path))
    embedded = embed_images(photos, GalleryEmbedder(gallery_model), name="gallery model", reporter=reporter)
    if not embedded.kept:
        raise BadInputError(
            f"{photos.root}: none of the {len(photos)} images can be read; the first: {embedded.problems[0]}"
        )
    return photos.subset(embedded.kept), embedded.vectors[:, 0], len(embedded.problems)


def _figures(
    exported: Floats, original: Floats, truth: Floats, index: GalleryIndex, photos: ImageSet, k: int
) -> dict[str, float]:
    norms = np.linalg.norm(exported, axis=1)
    cosines = (exported * original).sum(1) / np.maximum(norms * np.linalg.norm(original, axis=1), 1e-12)
    own, torch_found, found = (_search(index, vectors, photos, k) for vectors in (truth, original, exported))
    overlap, torch_overlap = overlap_at(found, own, k), overlap_at(torch_found, own, k)
    return {
        "cosine_mean": float(cosines.mean()), "cosine_min": float(cosines.min()),
        "max_difference": float(np.abs(exported - original).max()), "norm_error": float(np.abs(norms - 1).max()),
        "cosine_to_gallery_mean": float((exported * truth).sum(1).mean()),
        "overlap": float(overlap.mean()), "overlap_torch": float(torch_overlap.mean()),
        "overlap_loss": float(1 - overlap.mean() / torch_overlap.mean()) if torch_overlap.mean() else 1.0,
        "rank_biased_overlap": float(rank_biased_overlap(found, own).mean()),
        "overlap_with_torch": float(overlap_at(found, torch_found, k).mean()),
        "top1_kept": float((found[:, 0] == own[:, 0]).mean()),
    }  # fmt: skip


def _search(index: GalleryIndex, vectors: Floats, photos: ImageSet, k: int) -> NDArray[np.int64]:
    """(n, k) rows found in the index, the photo itself left out; a non-finite embedding finds nothing."""
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1))
    _, rows = index.search(np.where(finite[:, None], vectors, 0.0).astype(np.float32), k + 1)
    found = np.full((len(vectors), min(k, len(index.ids) - 1)), -1, np.int64)
    for query in np.flatnonzero(finite):
        own = index.row_of.get(photos.ids[query])
        others = [int(row) for row in rows[query] if row != own][: found.shape[1]]
        found[query, : len(others)] = others
    return found


def _gates(figures: dict[str, float], limits: Thresholds, k: int) -> tuple[Gate, ...]:
    return (
        Gate("cosine to the torch model, mean", figures["cosine_mean"], limits.min_cosine_mean),
        Gate("cosine to the torch model, lowest", figures["cosine_min"], limits.min_cosine),
        Gate("length of the embedding, largest error", figures["norm_error"], limits.max_norm_error, at_most=True),
        Gate(f"overlap@{k} with the gallery model's results", figures["overlap"], limits.min_overlap),
        Gate(
            f"overlap@{k} lost against the torch model", figures["overlap_loss"], limits.max_overlap_loss, at_most=True
        ),
    )
