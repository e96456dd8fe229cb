"""Codes for embedding vectors: fewer bytes from the phone to the server, and on the server's disk.

    float32  4 D bytes, the numbers themselves, little-endian
    float16  2 D bytes
    int8     D bytes: round(127 v / max |v|); the scale is not sent, for the server makes the length 1 again
    pq       M bytes: of each of M runs of D / M dimensions the number of the nearest of 256 centroids (Jegou, Douze,
             Schmid: "Product Quantization for Nearest Neighbor Search", TPAMI 2011); both sides hold the same codebook

What is decoded is made unit length. What a code costs in retrieval is measured: `edgecsd wire`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError
from edgecsd.features.exact import unit
from edgecsd.features.shards import from_int8, to_int8
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import replace_whole

CENTROIDS = 256  # a sub-space: a byte
KIND = "wire codebook"
SAMPLE = 65_536  # gallery vectors that a codebook is learnt from
SEED = 20

Floats = NDArray[np.float32]


class Code(StrEnum):
    """How a vector is written."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    PQ = "pq"


NUMBERS: dict[Code, np.dtype[Any]] = {
    Code.FLOAT32: np.dtype("<f4"),
    Code.FLOAT16: np.dtype("<f2"),
    Code.INT8: np.dtype("i1"),
}


@dataclass(frozen=True)
class Codebook:
    """centroids (M, 256, D / M) float32, for vectors of one embedding space."""

    fingerprint: str
    centroids: Floats = field(repr=False)

    @property
    def bytes(self) -> int:
        """Of a coded vector."""
        return int(self.centroids.shape[0])

    @property
    def dim(self) -> int:
        """Of a vector."""
        return int(self.centroids.shape[0] * self.centroids.shape[2])

    def save(self, file: Path) -> None:
        """Write it whole, as safetensors: tensor `centroids`, and the fingerprint in the metadata."""
        about = {"kind": KIND, "schema_version": 1, "fingerprint": self.fingerprint}
        with replace_whole(file) as temporary:
            save_file({"centroids": self.centroids}, temporary, metadata={"edgecsd": json.dumps(about)})

    @staticmethod
    def open(file: Path, space: EmbeddingSpace) -> Codebook:
        """Read a codebook. Raises DamagedFileError, and IncompatibleError for one of another embedding space."""
        if not file.is_file():
            raise BadInputError(f"{file}: no such file")
        try:
            with safe_open(file, framework="np") as opened:
                about = json.loads((opened.metadata() or {})["edgecsd"])
                found = Codebook(str(about["fingerprint"]), np.asarray(opened.get_tensor("centroids"), np.float32))
            if about["kind"] != KIND or about["schema_version"] != 1:
                raise ValueError(f"says it is {about['kind']!r}, version {about['schema_version']}")
            if found.centroids.ndim != 3 or found.centroids.shape[1] != CENTROIDS:
                raise ValueError(f"its centroids are {found.centroids.shape}")
            if not np.isfinite(found.centroids).all():
                raise ValueError("a centroid is not finite")
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise DamagedFileError(f"{file}: not a codebook that `edgecsd wire` wrote: {error}") from None
        if found.fingerprint != space.fingerprint or found.dim != space.dim:
            raise IncompatibleError(
                f"{file}: made for embedding space {found.fingerprint} ({found.dim}-d), not {space.fingerprint} "
                f"({space.dim}-d); make one with `edgecsd wire` over this gallery"
            )
        return found


def learn(store: FeatureStore, size: int) -> Codebook:
    """A codebook of `size` bytes a vector, by k-means over the store's vectors, or a sample of many."""
    from edgecsd.index.engines.faiss.building import sample_of
    from edgecsd.index.engines.faiss.clustering import product_codebooks  # faiss: only where it is needed

    if size < 1 or store.space.dim % size:
        fitting = ", ".join(str(m) for m in range(1, store.space.dim + 1) if store.space.dim % m == 0)
        raise BadInputError(f"`pq_bytes` {size}: must divide the dimension {store.space.dim}: {fitting}")
    if store.count < CENTROIDS:
        raise BadInputError(f"`pq_bytes`: {CENTROIDS} centroids are learnt; the gallery has only {store.count} vectors")
    return Codebook(store.space.fingerprint, product_codebooks(sample_of(store, SAMPLE), size, CENTROIDS, seed=SEED))


def encode(vectors: Floats, code: Code, codebook: Codebook | None = None) -> NDArray[np.uint8]:
    """(Q, D) vectors -> (Q, bytes), as they are sent."""
    if code is Code.PQ:
        return _nearest_centroids(vectors, _needed(codebook))
    numbers = np.asarray(vectors, np.float32)
    if code is Code.INT8:
        return to_int8(numbers).view(np.uint8)
    return np.ascontiguousarray(numbers.astype(NUMBERS[code])).view(np.uint8).reshape(len(numbers), -1)


def decode(coded: NDArray[np.uint8], code: Code, codebook: Codebook | None = None) -> Floats:
    """(Q, bytes) -> (Q, D) unit vectors; what is zero or not finite becomes zero."""
    if code is Code.PQ:
        centroids = _needed(codebook).centroids
        parts = [centroids[part][coded[:, part]] for part in range(len(centroids))]
        return unit(np.concatenate(parts, axis=1))
    if code is Code.INT8:
        return from_int8(np.ascontiguousarray(coded).view(np.int8))
    return unit(np.ascontiguousarray(coded).view(NUMBERS[code]))


def _nearest_centroids(vectors: Floats, codebook: Codebook) -> NDArray[np.uint8]:
    coded = np.empty((len(vectors), codebook.bytes), np.uint8)
    for part, run in enumerate(np.split(np.asarray(vectors, np.float32), codebook.bytes, axis=1)):
        centroids = codebook.centroids[part]
        coded[:, part] = np.argmin((centroids**2).sum(axis=1) - 2 * run @ centroids.T, axis=1)
    return coded


def _needed(codebook: Codebook | None) -> Codebook:
    if codebook is None:
        raise BadInputError("code pq: a codebook is needed; make one with `edgecsd wire`")
    return codebook
