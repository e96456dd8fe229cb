"""Verify a golden pack on this machine: do this library, this file and this index still give what the pack says?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import IncompatibleError
from edgecsd.files.whole import sha256_file
from edgecsd.gate.facts import GoldenFacts
from edgecsd.golden.pack import GoldenItem, GoldenPack, read_embedding, read_pack, read_tensor
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.metrics.retrieval import cosines
from edgecsd.photos.decoding import decode_image
from edgecsd.targets.artifact import ArtifactEmbedder

Floats = NDArray[np.float32]


def verify(
    pack: Path, file: Path | ArtifactEmbedder, *, index: GalleryIndex | None = None, threads: int = 1
) -> GoldenFacts:
    """What the pack's photos and tensors give here, as facts that `edgecsd gate` judges.

    Raises IncompatibleError (exit 3) for a pack of another artifact or embedding space.
    """
    golden = read_pack(pack)
    artifact = file if isinstance(file, ArtifactEmbedder) else ArtifactEmbedder(file, threads=threads)
    _require_its_artifact(golden, pack, artifact)
    tensors = np.stack([read_tensor(pack, golden, item) for item in golden.items])
    expected = np.stack([read_embedding(pack, golden, item) for item in golden.items])
    decoded, changed, furthest = _pixels(golden, pack, tensors)
    embeddings = artifact.embed(tensors)
    overlap = None if index is None else _overlap(golden, index, embeddings)
    return _facts(golden, pack, decoded, changed, furthest, embeddings, expected, overlap)


def _require_its_artifact(golden: GoldenPack, pack: Path, artifact: ArtifactEmbedder) -> None:
    metadata = artifact.metadata
    if golden.fingerprint != metadata.fingerprint:
        raise IncompatibleError(
            f"{pack} is of the embedding space {golden.fingerprint}, {artifact.path} of {metadata.fingerprint}: "
            "give the pack of this file, or make one with edgecsd golden"
        )
    if golden.artifact.sha256 != (digest := sha256_file(artifact.path)):
        raise IncompatibleError(
            f"{pack} was made with {golden.artifact.name} (SHA-256 {golden.artifact.sha256[:16]}...), not with "
            f"{artifact.path} ({digest[:16]}...): make the pack again with edgecsd golden"
        )


def _pixels(golden: GoldenPack, pack: Path, tensors: NDArray[np.uint8]) -> tuple[list[str], list[str], float]:
    """Photos that decode to other pixels here, photos whose tensor is another, and the largest mean difference."""
    contract = golden.artifact.metadata.preprocess
    decoded, changed, furthest = [], [], 0.0
    for item, tensor in zip(golden.items, tensors, strict=True):
        image = decode_image((pack / item.photo).read_bytes(), str(pack / item.photo))
        if hashlib.sha256(np.asarray(image, np.uint8).tobytes()).hexdigest() != item.decoded_sha256:
            decoded.append(item.photo)
        made = contract.pixels(image)
        if not np.array_equal(made, tensor):
            changed.append(item.photo)
            furthest = max(furthest, float(np.abs(made.astype(np.int16) - tensor).mean()))
    return decoded, changed, furthest


def _overlap(golden: GoldenPack, index: GalleryIndex, embeddings: Floats) -> float | None:
    """Mean share of the expected ids that the index gives; a vector that is not finite finds nothing."""
    shares = list(_shares(golden, index, embeddings))
    return float(np.mean(shares)) if shares else None


def _shares(golden: GoldenPack, index: GalleryIndex, embeddings: Floats) -> Iterator[float]:
    for item, vector in zip(golden.items, embeddings, strict=True):
        if item.ids:
            yield len(_ids(item, index, vector, golden.k) & set(item.ids)) / len(item.ids)


def _ids(item: GoldenItem, index: GalleryIndex, vector: Floats, k: int) -> set[str]:
    _, rows = index.search(vector[None], k)
    return {index.ids[row] for row in rows[0] if row >= 0}


def _facts(
    golden: GoldenPack,
    pack: Path,
    decoded: list[str],
    changed: list[str],
    furthest: float,
    embeddings: Floats,
    expected: Floats,
    overlap: float | None,
) -> GoldenFacts:
    ours, theirs = embeddings.astype(np.float64), expected.astype(np.float64)
    limits = golden.tolerances
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.linalg.norm(ours, axis=1)
        cosine = cosines(ours, theirs)
        difference = float(np.abs(ours - theirs).max())
        norm_error = float(np.abs(norms - 1).max())
        constant = len(ours) > 1 and bool(np.ptp(ours, axis=0).max() == 0)
    usable = bool(np.isfinite(ours).all() and norms.all())
    return GoldenFacts(
        path=str(pack),
        photos=len(golden.items),
        decoded=tuple(decoded),
        changed=tuple(changed),
        tensor_difference=furthest,
        unusable=int((~np.isfinite(norms)).sum() + (norms == 0).sum()),
        constant=constant,
        cosine=float(cosine.min()) if usable else None,
        cosine_tolerance=limits.cosine,
        difference=difference if usable else None,
        difference_tolerance=limits.max_difference,
        norm_error=norm_error if usable else None,
        norm_tolerance=limits.norm_error,
        overlap=overlap,
        overlap_tolerance=limits.overlap,
        pillow=golden.versions.get("pillow", ""),
    )
