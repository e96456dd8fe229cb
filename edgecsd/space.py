"""EmbeddingSpace: the identity of the space that gallery features live in, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from edgecsd.errors import IncompatibleError
from edgecsd.preprocess import Preprocess


class Metric(StrEnum):
    """How two vectors of the space are compared."""

    COSINE = "cosine"


class EmbeddingSpace(BaseModel):
    """What makes two vectors comparable: who made them, from which pixels, with which transform.

    gallery_model   name, as the user gave it ("timm:tf_efficientnet_lite2", "acme-embedder-v7")
    weights_digest  SHA-256 of the weights, or None where the gallery model is not ours to run
    preprocess      the gallery model's pixel contract, or None where it is unknown
    whitening       digest of a whitening transform that was applied, or None
    dim, metric     of the vectors
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gallery_model: Annotated[str, Field(min_length=1)]
    weights_digest: str | None = None
    preprocess: Preprocess | None = None
    whitening: str | None = None
    dim: Annotated[int, Field(ge=2)]
    metric: Metric = Metric.COSINE

    @property
    def fingerprint(self) -> str:
        """The prefix es1- and 32 hex digits of the SHA-256 of the canonical JSON of every field."""
        canonical = canonical_json(self.model_dump(mode="json"))
        return "es1-" + hashlib.sha256(canonical.encode()).hexdigest()[:32]

    def differences(self, other: EmbeddingSpace) -> list[str]:
        """One line for each part in which `other` differs, in words a person can act on."""
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [f"{name}: {mine[name]} against {theirs[name]}" for name in mine if mine[name] != theirs[name]]


def require_same_space(left: EmbeddingSpace, right: EmbeddingSpace, left_name: str, right_name: str) -> None:
    """Raise IncompatibleError, naming every differing part, unless both are the same embedding space."""
    differences = left.differences(right)
    if differences:
        raise IncompatibleError(
            f"{left_name} and {right_name} live in different embedding spaces "
            f"({left.fingerprint} and {right.fingerprint}); " + "; ".join(differences)
        )


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces, the form that digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
