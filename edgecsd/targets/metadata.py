"""What an artifact says about itself: the metadata inside every exported file, and its reader. Loads no converter."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from edgecsd.errors import DamagedFileError, validation_text
from edgecsd.features.space import EmbeddingSpace, Metric
from edgecsd.photos.contract import PIXEL_STEPS, PixelSteps, Preprocess
from edgecsd.photos.whole_photo import PhotoSize, WholePhoto
from edgecsd.quantisation.precisions import Precision

SCHEMA_VERSION: Literal[2] = 2
FIRST_VERSION: Literal[1] = 1  # without `pixels`; still read
# ONNX metadata_props, TFLite metadata entry, Core ML user_defined_metadata, Core AI creatorDefinedMetadata
METADATA_KEY = "edgecsd"
LEFT_OUT = ("pixels", "baked", "content_digest", "study_only")  # of the JSON where they are None
ORT_SUFFIX = ".ort"  # of an ONNX artifact in onnxruntime's own format, for its reduced builds on phones


class Target(StrEnum):
    """The file formats that edgecsd writes."""

    ONNX = "onnx"
    TFLITE = "tflite"
    COREML = "coreml"
    COREAI = "coreai"  # experimental: docs/core-ai.md

    @property
    def suffix(self) -> str:
        """The file's ending, with its dot."""
        return {Target.COREML: ".mlpackage", Target.COREAI: ".aimodel"}.get(self, f".{self}")

    @property
    def is_folder(self) -> bool:
        """Whether an artifact is a folder."""
        return self in (Target.COREML, Target.COREAI)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Every ending that its files may have."""
        return (self.suffix, ORT_SUFFIX) if self is Target.ONNX else (self.suffix,)


class ArtifactMetadata(BaseModel):
    """What an artifact says about itself, so that no app can feed or search it wrongly.

    recipe       name of the quantisation recipe that made it
    space        where its embeddings live; fingerprint is that space's, in words an app can compare
    preprocess   the pixel contract of the query model: what the (1, S, S, 3) uint8 input is made by
    pixels       the steps of that contract which no contract changes; None, and left out of the JSON, in files of
                 schema version 1, which were made by the same steps
    baked        the photos that it takes, (1, h, w, 3) uint8, where resize and crop are inside it; else None, and left
                 out of the JSON, so that an edgecsd from before it does not feed such a file wrongly but refuses it
    weights_digest, calibration_digest   SHA-256 of the query model's weights and of the calibration pixels
    content_digest   of the file as it was written (`targets.content_digest`); None where it states none
    study_only   True in a file that was written whether or not its embeddings are torch's; else None, and left out of
                 the JSON, so that an edgecsd from before it refuses such a file
    versions     edgecsd, torch, converter, runtime
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    kind: Literal["edgecsd artifact"] = "edgecsd artifact"
    target: Target
    precision: Precision
    recipe: str
    space: EmbeddingSpace
    fingerprint: str
    dim: Annotated[int, Field(ge=2)]
    metric: Metric
    normalised: bool = True
    preprocess: Preprocess
    pixels: PixelSteps | None = PIXEL_STEPS
    baked: PhotoSize | None = None
    backbone: str
    weights_digest: str
    calibration_digest: str | None = None
    content_digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    calibration_count: Annotated[int, Field(ge=0)] = 0
    study_only: Literal[True] | None = None
    versions: dict[str, str]
    licence: str | None = None

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = handler(self)
        return {name: value for name, value in fields.items() if name not in LEFT_OUT or value is not None}

    @model_validator(mode="before")
    @classmethod
    def _as_its_version_has_it(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "schema_version" not in data:
            return data
        stated, first = data.get("pixels") is not None, data["schema_version"] == FIRST_VERSION
        if stated is first:
            raise ValueError(
                f"pixels {'are' if stated else 'are not'} stated in schema version {data['schema_version']}"
            )
        return {**data, "pixels": None} if first else data

    @model_validator(mode="after")
    def _by_these_steps(self) -> ArtifactMetadata:
        if self.pixels is not None and (found := self.pixels.differing(PIXEL_STEPS)):
            raise ValueError(f"this edgecsd makes pixels by other steps: {', '.join(found)}")
        return self

    @property
    def input(self) -> Preprocess:
        """What makes the artifact's input of an upright photo: the pixel contract, or nothing where that is inside."""
        if self.baked is None:
            return self.preprocess
        return WholePhoto(**self.preprocess.model_dump(), photo=self.baked)


def metadata_from_json(text: str, where: str) -> ArtifactMetadata:
    """Checked metadata; `where` names the artifact in a DamagedFileError."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise DamagedFileError(f"{where}: its edgecsd metadata is not JSON: {error}") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version not in (FIRST_VERSION, SCHEMA_VERSION):
        raise DamagedFileError(
            f"{where}: metadata schema_version {version!r} is unknown to this edgecsd, which reads {FIRST_VERSION} and "
            f"{SCHEMA_VERSION}; use the edgecsd that wrote it or export again"
        )
    try:
        metadata = ArtifactMetadata.model_validate(data)
    except ValidationError as error:
        raise DamagedFileError(f"{where}: its edgecsd metadata is not valid: {validation_text(error)}") from None
    _require_consistent(metadata, where)
    return metadata


def _require_consistent(metadata: ArtifactMetadata, where: str) -> None:
    pairs = {
        "fingerprint": (metadata.fingerprint, metadata.space.fingerprint),
        "dim": (metadata.dim, metadata.space.dim),
        "metric": (metadata.metric, metadata.space.metric),
    }
    for name, (stated, actual) in pairs.items():
        if stated != actual:
            raise DamagedFileError(
                f"{where}: {name} {stated} is not that of the embedding space it names ({actual}): "
                "the metadata was edited or mixed; export again"
            )
