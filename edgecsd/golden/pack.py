"""golden.json: what stands in a golden pack, and its reader."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgecsd.errors import DamagedFileError, validation_text
from edgecsd.files.whole import read_manifest
from edgecsd.golden.costs import Costs
from edgecsd.targets.metadata import ArtifactMetadata

KIND: Literal["golden pack"] = "golden pack"
SCHEMA_VERSION: Literal[2] = 2
READABLE_VERSIONS = (1, 2)  # 1: without digests of the signatures
MANIFEST = "golden.json"
Kind = TypeVar("Kind", bound=np.generic)


def _inside(name: str) -> str:
    """A path that stays in the pack, whoever wrote golden.json."""
    path = PurePosixPath(name)
    if (
        path.is_absolute()
        or not name
        or "\\" in name
        or "\0" in name
        or any(part in ("..", ".") for part in path.parts)
    ):
        raise ValueError("a file of the pack is needed, relative to golden.json")
    return name


FileName = Annotated[str, AfterValidator(_inside)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ArtifactPart(_Part):
    """The file that the pack was made with: another one has other embeddings, and its own pack."""

    name: str
    sha256: Digest
    metadata: ArtifactMetadata


class Tolerances(_Part):
    """How far an app may be from the pack, by stage, and still be right. Levels are of 0 to 255.

    decoded_mean         mean difference of decoded pixels, levels, at the sampled places: decoders round differently
    tensor_mean          mean difference of the preprocessed tensor, levels
    tensor_max           largest difference of one value of it, levels
    cosine               of the embedding of the pack's own tensor, at least: another processor, the same file
    max_difference       of one element of that embedding, at most; only asked of fp32
    norm_error           of its length to 1, at most
    end_to_end_cosine    of the embedding of the app's own tensor, at least
    overlap              share of the expected ids that are found, over all photos, at least
    """

    decoded_mean: float
    tensor_mean: float
    tensor_max: int
    cosine: float
    max_difference: float | None = None
    norm_error: float
    end_to_end_cosine: float
    overlap: float


class GoldenItem(_Part):
    """One photo and all that is expected of it.

    note          why it was chosen, and what was changed in it
    decoded_*     of the upright RGB pixels, height x width x 3
    samples       (2 + mistakes, grid, grid, 3) uint8: the decoded pixels, the tensor, then the tensor with each mistake
    mistaken      (mistakes, dim) float32: the embedding of the tensor with each mistake
    ids, scores   what the index gives for the expected embedding, best first; empty without an index
    """

    photo: FileName
    sha256: Digest
    note: str
    orientation: int
    width: int
    height: int
    decoded_sha256: Digest
    tensor: FileName
    tensor_sha256: Digest
    embedding: FileName
    embedding_sha256: Digest
    samples: FileName
    samples_sha256: Digest | None = None  # None, as the next: a pack of version 1
    mistaken: FileName
    mistaken_sha256: Digest | None = None
    ids: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()


class GoldenPack(_Part):
    """golden.json.

    grid          samples are taken at grid x grid places, as `signatures.samples` says
    mistakes      the names of those whose samples and embeddings are kept, in that order
    torch_cosine  the lowest cosine of the expected embeddings to the torch query model's, where the run was given
    """

    kind: Literal["golden pack"] = KIND
    schema_version: Literal[1, 2] = SCHEMA_VERSION
    artifact: ArtifactPart
    fingerprint: str
    index: str | None = None
    k: Annotated[int, Field(ge=1)] = 10
    grid: Annotated[int, Field(ge=2)]
    tolerances: Tolerances
    mistakes: tuple[str, ...]
    items: Annotated[tuple[GoldenItem, ...], Field(min_length=1)]
    torch_cosine: float | None = None
    costs: Costs | None = None
    versions: dict[str, str] = {}

    @model_validator(mode="after")
    def _signatures_have_digests(self) -> Self:
        for item in self.items:
            if self.schema_version > 1 and not (item.samples_sha256 and item.mistaken_sha256):
                raise ValueError(f"{item.photo}: samples_sha256 and mistaken_sha256 are needed since version 2")
        return self


def read_pack(folder: Path) -> GoldenPack:
    """Raises BadInputError where there is no pack, DamagedFileError for one that is not whole or was changed."""
    manifest = read_manifest(folder / MANIFEST, KIND, *READABLE_VERSIONS)
    try:
        pack = GoldenPack.model_validate(manifest)
    except ValidationError as error:
        raise DamagedFileError(f"{folder / MANIFEST}: {validation_text(error)}") from None
    for item in pack.items:
        for name, digest in (
            (item.photo, item.sha256),
            (item.tensor, item.tensor_sha256),
            (item.embedding, item.embedding_sha256),
            (item.samples, item.samples_sha256),
            (item.mistaken, item.mistaken_sha256),
        ):
            if digest is None:
                continue
            if not (folder / name).is_file() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                raise DamagedFileError(f"{folder / name}: missing, or not the file that {MANIFEST} names")
    return pack


def read_tensor(folder: Path, pack: GoldenPack, item: GoldenItem) -> NDArray[np.uint8]:
    """(size, size, 3)"""
    size = pack.artifact.metadata.preprocess.size
    return _reshaped(np.fromfile(folder / item.tensor, np.uint8), (size, size, 3), folder / item.tensor)


def read_embedding(folder: Path, pack: GoldenPack, item: GoldenItem) -> NDArray[np.float32]:
    """(dim,)"""
    stored = np.fromfile(folder / item.embedding, "<f4").astype(np.float32)
    return _reshaped(stored, (pack.artifact.metadata.dim,), folder / item.embedding)


def _reshaped(values: NDArray[Kind], shape: tuple[int, ...], file: Path) -> NDArray[Kind]:
    if values.size != int(np.prod(shape)):
        raise DamagedFileError(f"{file}: {values.size} values, {int(np.prod(shape))} are needed for {shape}")
    return values.reshape(shape)
