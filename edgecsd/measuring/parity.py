"""Whether a measured process gives the right embeddings, and what wrong ones cost in retrieval.

A fast row with wrong embeddings is a failed row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError, IncompatibleError, missing_extra
from edgecsd.features.space import require_same_space
from edgecsd.measuring.inputs import BenchInput
from edgecsd.measuring.schema import Neighbours, Parity
from edgecsd.photos.whole_photo import WholePhoto
from edgecsd.quantisation.precisions import CLOSENESS, Precision
from edgecsd.targets.artifact import load_runner
from edgecsd.targets.metadata import ArtifactMetadata

if TYPE_CHECKING:
    from edgecsd.index.gallery_index import GalleryIndex


Floats = NDArray[np.float32]
NORM_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Reference:
    """What a row is compared with: its name in the row, and the embeddings it gives of the row's input -> (n, D).

    same_file: it is the measured file itself, so that only the device's kernels make a difference
    """

    name: str
    embed: Callable[[NDArray[np.uint8]], Floats]
    same_file: bool


class References:
    """Finds the reference of an artifact, and keeps its embeddings: they serve every thread count and precision."""

    def __init__(self, run: Path | None) -> None:
        self._run = run
        self._models: dict[Path, Callable[[NDArray[np.uint8]], Floats]] = {}
        self._known: dict[tuple[str, str], Floats] = {}

    def find(self, file: Path, metadata: ArtifactMetadata) -> Reference:
        """The torch query model of the run given, else of RUN where `file` is RUN/exports/FILE, else the file itself.

        A given run with other weights raises IncompatibleError; a found one with other weights is passed over.
        """
        if self._run is not None:
            self._require_weights(self._run, file, metadata)
            return self._torch(self._run, metadata)
        found = file.resolve().parent.parent
        if (found / "query_model.json").is_file() and self._same_weights(found, metadata) and _torch_is_there():
            return self._torch(found, metadata)
        return Reference(f"same file {file}, run in the host process", lambda p: load_runner(file).embed(p), True)

    def embeddings(self, reference: Reference, images: BenchInput) -> Floats:
        """(n, D) of the input by the reference, computed once."""
        key = (reference.name, images.digest)
        if key not in self._known:
            self._known[key] = reference.embed(images.pixels)
        return self._known[key]

    def _torch(self, run: Path, metadata: ArtifactMetadata) -> Reference:
        contract = metadata.input

        def embed(pixels: NDArray[np.uint8]) -> Floats:
            from edgecsd.models.query import load_query_model

            if isinstance(contract, WholePhoto):
                pixels = contract.within(pixels)
            if run not in self._models:
                self._models[run] = load_query_model(run).embed
            return self._models[run](pixels)

        return Reference(f"torch query model of {run}", embed, False)

    def _same_weights(self, run: Path, metadata: ArtifactMetadata) -> bool:
        from edgecsd.files.whole import read_json

        config = read_json(run / "query_model.json")
        return isinstance(config, dict) and config.get("weights_digest") == metadata.weights_digest

    def _require_weights(self, run: Path, file: Path, metadata: ArtifactMetadata) -> None:
        if not _torch_is_there():
            raise missing_extra("torch", "train")
        from edgecsd.models.query_config import read_config

        config = read_config(run)
        if config.weights_digest != metadata.weights_digest:
            raise IncompatibleError(
                f"{file} was not exported from {run}: its weights are {metadata.weights_digest[:12]}, the run's are "
                f"{config.weights_digest[:12]}; give the run it came from with `run`, or leave `run` out"
            )


def _torch_is_there() -> bool:
    import importlib.util

    return all(importlib.util.find_spec(name) for name in ("torch", "timm", "safetensors"))


def compare(embeddings: Floats, expected: Floats, reference: str) -> Parity:
    """Cosine, largest difference and norms of (n, D) embeddings against (n, D) expected ones, of the same shape."""
    ours, theirs = embeddings.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(ours, axis=1)
    products = np.maximum(norms * np.linalg.norm(theirs, axis=1), np.finfo(np.float64).tiny)
    cosine = (ours * theirs).sum(axis=1) / products
    return Parity(
        reference=reference,
        images=len(ours),
        cosine_mean=float(cosine.mean()),
        cosine_min=float(cosine.min()),
        max_difference=float(np.abs(ours - theirs).max()),
        norm_min=float(norms.min()),
        norm_max=float(norms.max()),
    )


def shape_problem(embeddings: Floats, count: int, dim: int) -> str:
    """Why embeddings cannot be compared at all, or ""."""
    if embeddings.shape != (count, dim):
        return f"the file gave embeddings of shape {embeddings.shape}; its metadata promises ({count}, {dim})"
    if not np.isfinite(embeddings).all():
        return f"{int((~np.isfinite(embeddings).all(axis=1)).sum())} of {count} embeddings hold NaN or infinity"
    return ""


def parity_problem(parity: Parity, precision: Precision | None, *, same_file: bool) -> str:
    """Why these embeddings are wrong for this precision, or "". An unknown precision has w8a8's limits."""
    least = CLOSENESS[precision or Precision.W8A8]
    found, needed, which = parity.cosine_mean, least.torch, "mean"
    if same_file:
        found, needed, which = parity.cosine_min, least.same_file, "lowest"
    if not found >= needed:
        wanted = f"{needed} or more is expected of {precision or 'any precision'}"
        return f"wrong embeddings: {which} cosine {found:.5f} to the {parity.reference}; {wanted}"
    if max(abs(parity.norm_min - 1), abs(parity.norm_max - 1)) > NORM_TOLERANCE:
        lengths = f"{parity.norm_min:.4f} to {parity.norm_max:.4f}"
        return f"wrong embeddings: norms {lengths}; within {NORM_TOLERANCE} of 1 is expected"
    return ""


class NeighbourIndex:
    """An opened gallery index, searched with its own parameters for k items. place: where it is, for messages."""

    def __init__(self, index: GalleryIndex, place: str, k: int) -> None:
        from edgecsd.index.addresses import index_name

        self._index, self._place, self._k = index, place, k
        self.name = f"{index_name(place)}, k {k}, {len(index.ids)} items"
        if not 1 <= k <= len(index.ids):
            raise BadInputError(f"`k` {k}: the index {place} holds {len(index.ids)} items; give 1 to that many")

    @staticmethod
    def open(place: Path | str, k: int) -> NeighbourIndex:
        """A folder or milvus:URI#COLLECTION."""
        from edgecsd.index.opening import open_index

        return NeighbourIndex(open_index(place), str(place), k)

    def require_space(self, metadata: ArtifactMetadata, file: Path) -> None:
        """Raise IncompatibleError for an artifact of another embedding space."""
        require_same_space(self._index.space, metadata.space, self._place, str(file))

    def compare(self, embeddings: Floats, expected: Floats) -> Neighbours:
        """Of (n, D) embeddings and what they should be."""
        from edgecsd.metrics.retrieval import overlap_at

        found, wanted = (self._index.search(each, self._k)[1] for each in (embeddings, expected))
        overlap = overlap_at(found, wanted, self._k)
        return Neighbours(
            index=self.name, k=self._k, overlap_mean=float(overlap.mean()), overlap_min=float(overlap.min())
        )
