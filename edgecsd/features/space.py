"""EmbeddingSpace: the identity of the space that gallery features live in, and its fingerprint."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from edgecsd.errors import IncompatibleError
from edgecsd.files.whole import canonical_json
from edgecsd.photos.contract import Preprocess


class Metric(StrEnum):
    """How two vectors of the space are compared."""

    COSINE = "cosine"


class SpacePart(BaseModel):
    """One of the spaces that a concatenated space is made of.

    weight  the share of this part's cosine in the whole's cosine; the shares of all parts add up to 1
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fingerprint: Annotated[str, Field(min_length=1)]
    weight: Annotated[float, Field(gt=0, le=1)]


class Maker(BaseModel):
    """What computed the vectors, and a sample of what it gave: one name and weights can be another space.

    library   with its version: "timm 1.0.31"
    sample    the first values (64 at most) of the vectors of the built-in test photos (edgecsd.photos.probe)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    library: Annotated[str, Field(min_length=1)]
    sample: tuple[tuple[float, ...], ...]

    @staticmethod
    def of(library: str, vectors: Iterable[Iterable[float]]) -> Maker:
        """From the vectors of the test photos, (2, dim) of unit length."""
        rounded = (tuple(round(float(value), 6) for value in islice(vector, SAMPLED)) for vector in vectors)
        return Maker(library=library, sample=tuple(rounded))

    def lowest_cosine(self, other: Maker) -> float:
        """Of the two samples, photo by photo."""
        return min(_cosine(mine, theirs) for mine, theirs in zip(self.sample, other.sample, strict=False))


def _cosine(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=False)) / lengths if lengths else float(a == b)


# Fields that came after the first fingerprints were written into people's files. At these values they are left out of
# the JSON, and so out of the digest: a space that does without them keeps the fingerprint that it always had.
LATER_FIELDS: dict[str, list[Any] | str | None] = {"scales": [1.0], "parts": [], "output": "", "maker": None}
SAMPLED = 64  # values of a vector: enough to see another one
SAME_VECTORS = 0.9999  # lowest cosine of a sample; other sums in float32 leave 0.999999


class EmbeddingSpace(BaseModel):
    """What makes two vectors comparable: who made them, from which pixels, with which transform.

    gallery_model   name, as the user gave it ("timm:tf_efficientnet_lite2", "acme-embedder-v7")
    weights_digest  SHA-256 of the weights, or None where the gallery model is not ours to run
    preprocess      the gallery model's pixel contract, or None where it is unknown
    whitening       digest of a whitening transform that was applied, or None
    dim, metric     of the vectors
    output          what of the model's outputs the vectors are: "head" (what a timm network's classifier gives), a
                    pooling, the name of an ONNX file's output; "" for what its kind gives by default
    scales          the input scales whose vectors were averaged, ascending
    maker           what computed the vectors; no part of the space's identity, but of two spaces with the same identity
                    their samples must agree
    parts           the spaces whose vectors were concatenated, in order; empty where the vectors are one model's
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gallery_model: Annotated[str, Field(min_length=1)]
    weights_digest: str | None = None
    preprocess: Preprocess | None = None
    whitening: str | None = None
    dim: Annotated[int, Field(ge=2)]
    metric: Metric = Metric.COSINE
    scales: tuple[Annotated[float, Field(gt=0, le=8, allow_inf_nan=False)], ...] = (1.0,)
    parts: tuple[SpacePart, ...] = ()
    output: str = ""
    maker: Maker | None = None

    @field_validator("scales")
    @classmethod
    def _ascending(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        """One order: the mean of the scales does not depend on it, and the fingerprint must not."""
        if not scales or len(set(scales)) != len(scales):
            raise ValueError("one or more scales are needed, each once")
        return tuple(sorted(scales))

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = handler(self)
        return {name: value for name, value in fields.items() if not _is_default(name, value)}

    @property
    def fingerprint(self) -> str:
        """The prefix es1- and 32 hex digits of the SHA-256 of the canonical JSON, in which LATER_FIELDS may lack."""
        canonical = canonical_json(self.model_dump(mode="json", exclude={"maker"}))
        return "es1-" + hashlib.sha256(canonical.encode()).hexdigest()[:32]

    def differences(self, other: EmbeddingSpace) -> list[str]:
        """One line for each part in which `other` differs: the part, this space's value, the other's."""
        mine, theirs = self._identity(), other._identity()
        found = [_difference(name, mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]]
        if found or self.maker is None or other.maker is None:
            return found
        cosine = self.maker.lowest_cosine(other.maker)
        if cosine >= SAME_VECTORS:
            return []
        return [f"maker: {self.maker.library} against {other.maker.library}: a test photo has cosine {cosine:.4f}"]

    def differing_parts(self, other: EmbeddingSpace) -> list[str]:
        """The names of the parts in which `other` differs, in the order of `differences`."""
        return [difference.partition(":")[0] for difference in self.differences(other)]

    def _identity(self) -> dict[str, Any]:
        fields = {**LATER_FIELDS, **self.model_dump(mode="json")}
        return {name: value for name, value in fields.items() if name != "maker"}


def _difference(name: str, mine: Any, theirs: Any) -> str:
    """Of two pixel contracts only what differs in them; where one is unknown, the whole of the other."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        fields = [field for field in mine if mine[field] != theirs.get(field)]
        mine, theirs = (", ".join(f"{field} {side[field]}" for field in fields) for side in (mine, theirs))
    return f"{name}: {_shown(mine)} against {_shown(theirs)}"


def _shown(value: Any) -> Any:
    return "none" if value is None else value


def _is_default(name: str, value: Any) -> bool:
    if name not in LATER_FIELDS:
        return False
    default = LATER_FIELDS[name]
    return (list(value) if isinstance(default, list) else value) == default


# What to do about each part that differs; the first differing part of this order decides the advice.
_ADVICE = {
    "gallery_model": "the vectors come from two gallery models: use the query model distilled for this index's gallery "
    "model, or the index built from that model's features",
    "weights_digest": "the gallery model has other weights: find out which ones embedded the gallery, and distil, "
    "extract or build again with those",
    "whitening": "one side is whitened otherwise: extract with `whitening` STORE of the one that the gallery went "
    "through, and distil from those features",
    "dim": "the dimensions differ: one of the two was projected or cut; make it again from the other's features",
    "metric": "the vectors are compared by another metric: build the index from the store that the query model was "
    "distilled from",
    "preprocess": "the gallery model saw other pixels: extract again with the pixel contract that the gallery was made "
    "with",
    "scales": "the features are averages over other input scales: extract again with the gallery's `scales`",
    "output": "the vectors are another output of the gallery model: extract again with the gallery's "
    "`gallery_pooling`, `gallery_head` or `gallery_output`",
    "maker": "the same weights give other vectors: extract with the version of the library that made the gallery, or "
    "extract the gallery again",
    "parts": "the features are joined of other parts or with other weights: concatenate the same stores with the same "
    "weights",
}


def require_same_space(left: EmbeddingSpace, right: EmbeddingSpace, left_name: str, right_name: str) -> None:
    """Raise IncompatibleError unless both are the same space: every differing part, both values, and what to do."""
    if differences := left.differences(right):
        raise IncompatibleError(
            f"{left_name} and {right_name} live in different embedding spaces "
            f"({left.fingerprint} and {right.fingerprint}); " + "; ".join(differences) + f". {advice(left, right)}"
        )


def advice(left: EmbeddingSpace, right: EmbeddingSpace) -> str:
    """What to do about two spaces that differ, by the part that matters most; "" where they are the same."""
    parts = left.differing_parts(right)
    return next((f"What to do: {text}" for name, text in _ADVICE.items() if name in parts), "")
