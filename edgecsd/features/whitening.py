"""PCA whitening: learn mean and scaled principal directions of a set of vectors, apply them, keep them in a file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgecsd.errors import BadInputError, DamagedFileError, first_line
from edgecsd.features.shards import Shard
from edgecsd.features.space import EmbeddingSpace
from edgecsd.progress import Advance

WHITENING_FILE = "whitening.safetensors"
BLOCK_ROWS = 8192  # rows that are in memory as float64 at a time

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Blocks = Callable[[], Iterable[Shard]]  # called once a pass; each pass gives the same (rows, D) blocks


@dataclass(frozen=True, eq=False)
class Whitening:
    """x -> projection (x - mean), then unit length. mean (D,) and projection (d, D), float32; content: their file."""

    mean: Floats
    projection: Floats
    content: bytes

    @staticmethod
    def of(mean: NDArray[Any], projection: NDArray[Any]) -> Whitening:
        """A transform and the file that it is to have. Read transforms keep the file's own bytes, which name them."""
        tensors = {"mean": mean, "projection": projection}
        tensors = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}
        return Whitening(tensors["mean"], tensors["projection"], save(tensors))

    @property
    def dim(self) -> int:
        return len(self.projection)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, which names the transform in the embedding space."""
        return hashlib.sha256(self.content).hexdigest()

    def whitened(self, original: EmbeddingSpace) -> EmbeddingSpace:
        """The space that vectors of `original` are in once the transform is applied."""
        return original.model_copy(update={"whitening": self.digest, "dim": self.dim})

    def original(self, whitened: EmbeddingSpace) -> EmbeddingSpace:
        """The space that the vectors of `whitened` were in before."""
        return whitened.model_copy(update={"whitening": None, "dim": len(self.mean)})

    def apply(self, vectors: NDArray[Any], name: str) -> Floats:
        """(N, D) of the original space -> (N, d) float32, unit length. BadInputError for a vector equal to the mean."""
        projected = (np.asarray(vectors, np.float32) - self.mean) @ self.projection.T
        norms = np.linalg.norm(projected, axis=1, keepdims=True)
        lost = ~np.isfinite(norms) | (norms == 0)
        if lost.any():
            raise BadInputError(
                f"{name}: {int(lost.sum())} vectors are equal to the mean that was learnt, or not finite: whitening "
                f"leaves them no direction"
            )
        unit: Floats = projected / norms
        return unit


@dataclass(frozen=True)
class Spectrum:
    """What a set of vectors looks like from its mean, in float64.

    values (D,) eigenvalues of the covariance (divisor count - 1), largest first; directions (D, D), one a row
    rank       directions along which the vectors differ by more than the rounding of their stored numbers
    """

    count: int
    mean: Doubles
    values: Doubles
    directions: Doubles
    rank: int


def spectrum(
    blocks: Blocks, resolution: float, advance: Advance = lambda rows: None, *, of_largest: bool = False
) -> Spectrum:
    """Mean, eigenvalues and directions of all rows, in two passes over blocks and one eigendecomposition.

    resolution: machine epsilon of the type that the vectors were stored as (float16: 2^-10), for the rank. A stored
    number carries a rounding error of variance at most resolution^2 x^2 / 12; over all rows that is noise whose largest
    eigenvalue is about (1 + sqrt(D / count))^2 times its variance (Marchenko-Pastur). What is below that is no signal.

    of_largest: the error is that share of the vector's largest number instead (int8: 1 / 127)
    """
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for rows in _doubles(blocks):
        rounded = np.abs(rows).max(axis=1)[:, None] if of_largest else rows
        count, total, squares = count + len(rows), total + rows.sum(axis=0), squares + (rounded**2).sum(axis=0)
        advance(len(rows))
    if count < 3:
        raise BadInputError(f"whitening needs 3 vectors or more to learn from; there are {count}")
    mean = total / count
    scatter = np.zeros((len(mean), len(mean)))
    for rows in _doubles(blocks):
        centred = rows - mean
        scatter += centred.T @ centred
        advance(len(rows))
    values, columns = np.linalg.eigh(scatter / (count - 1))
    values, directions = np.maximum(values[::-1], 0.0), columns.T[::-1]
    noise = resolution**2 / 12 * float((squares / count).max()) * (1 + math.sqrt(len(mean) / count)) ** 2
    floor = max(noise, float(values[0]) * len(mean) * float(np.finfo(np.float64).eps))
    return Spectrum(count, mean, values, directions, min(int((values > floor).sum()), count - 1))


def learn(found: Spectrum, *, dim: int | None = None, shrinkage: float = 0.0) -> Whitening:
    """The transform to the `dim` strongest directions (default: every one that the vectors allow).

    Row i of the projection is direction i divided by sqrt(l_i), l_i = (1 - shrinkage) value_i + shrinkage x the mean of
    all D values. shrinkage 0 is plain PCA whitening: the vectors it was learnt on then have the identity as covariance
    (before they are scaled to unit length). Towards 1 the weak directions, which few vectors determine badly, are
    amplified less, and at 1 the projection only rotates and cuts. (The linear shrinkage of Ledoit and Wolf, "A
    well-conditioned estimator for large-dimensional covariance matrices", 2004, with the intensity left to the caller;
    whitening of image descriptors: Jegou and Chum, "Negative evidences and co-occurences in image retrieval", 2012.)

    Raises BadInputError for a dim beyond the rank or count - 1, where eigenvalues are zero or rounding noise.
    """
    if not 0 <= shrinkage <= 1:
        raise BadInputError(f"`shrinkage` {shrinkage:g}: a number from 0 to 1 is needed")
    size = found.rank if dim is None else dim
    if not 2 <= size <= found.rank:
        what = f"`dim` {dim}: " if dim is not None else ""
        raise BadInputError(
            f"{what}2 to {found.rank} dimensions can be whitened: the {found.count} vectors of dimension "
            f"{len(found.mean)} differ along {found.rank} directions only; "
            + ("choose a smaller `dim` or " if found.rank >= 2 else "")
            + "learn on more and more varied vectors"
        )
    levels = (1 - shrinkage) * found.values[:size] + shrinkage * found.values.mean()
    directions = found.directions[:size]
    strongest = np.abs(directions).argmax(axis=1)[:, None]  # eigenvectors have no sign: fix one, for equal files
    signs = np.sign(np.take_along_axis(directions, strongest, axis=1))
    projection = signs * directions / np.sqrt(levels)[:, None]
    return Whitening.of(found.mean, projection)


def _doubles(blocks: Blocks) -> Iterator[Doubles]:
    for block in blocks():
        for first in range(0, len(block), BLOCK_ROWS):
            yield np.asarray(block[first : first + BLOCK_ROWS], np.float64)


def read_whitening(folder: Path, space: EmbeddingSpace) -> Whitening | None:
    """The transform that made the vectors of `space` in the store at `folder`; None where there was none.

    Raises DamagedFileError if the file is not there, is not the one that the space names, or does not fit it.
    """
    if space.whitening is None:
        return None
    file = folder / WHITENING_FILE
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DamagedFileError(
            f"{file}: the whitening of these vectors cannot be read: {error.strerror or error}"
        ) from None
    if hashlib.sha256(content).hexdigest() != space.whitening:
        raise DamagedFileError(f"{file}: its SHA-256 is not the one that the embedding space names: another whitening")
    try:
        tensors = load(content)
        found = Whitening(tensors["mean"], tensors["projection"], content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DamagedFileError(f"{file}: not a whitening transform: {first_line(error)}") from None
    if found.mean.ndim != 1 or found.projection.shape != (space.dim, len(found.mean)):
        raise DamagedFileError(
            f"{file}: mean {found.mean.shape} and projection {found.projection.shape} give no {space.dim}-d vectors"
        )
    return found
