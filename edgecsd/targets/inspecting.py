"""inspect: what a model file says about itself, what it is made of, and which of its digests hold."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.files.whole import read_json, sha256_file, size_bytes
from edgecsd.quiet import quiet_conversion
from edgecsd.targets.artifact import require_present, target_module
from edgecsd.targets.content_digest import content_digest
from edgecsd.targets.description import held_precision
from edgecsd.targets.metadata import ArtifactMetadata, Target, metadata_from_json

if TYPE_CHECKING:
    from edgecsd.targets.description import Description

SCHEMA_VERSION = 1


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    DIFFERS = "differs"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Check:
    """One thing that the file states, and whether it holds; `reason` says against what, or why it could not be."""

    name: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Part:
    """A part of the file and its bytes."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class Inspection:
    """A model file, seen from outside and inside. `metadata` is None where edgecsd wrote none, or none that holds."""

    path: Path
    target: Target
    size_bytes: int
    sha256: str
    description: Description
    metadata: ArtifactMetadata | None
    checks: tuple[Check, ...] = field(default=())

    @property
    def written_by_edgecsd(self) -> bool:
        """Whether there is metadata under the key "edgecsd", good or bad."""
        return self.description.metadata is not None

    @property
    def holds(self) -> bool:
        """Whether nothing that could be checked differs."""
        return all(check.outcome is not Outcome.DIFFERS for check in self.checks)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Weights by operator and type, edgecsd's metadata, and the graph, which is the rest.

        They add up to the whole size, with that of weights in files beside it.
        """
        weights = [Part(f"{each.operator}, {each.dtype}", each.size_bytes) for each in self.description.weights]
        metadata = len((self.description.metadata or "").encode())
        rest = self.size_bytes + self.description.beside - metadata - sum(part.size_bytes for part in weights)
        return (*weights, Part("graph", rest), *([Part("edgecsd metadata", metadata)] if metadata else []))

    def as_dict(self) -> dict[str, Any]:
        """The JSON document."""
        description = self.description
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "edgecsd inspection",
            "file": str(self.path),
            "target": self.target.value,
            "format": description.format,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "written_by_edgecsd": self.written_by_edgecsd,
            "metadata": None if self.metadata is None else self.metadata.model_dump(mode="json"),
            "inputs": [_value(each) for each in description.inputs],
            "outputs": [_value(each) for each in description.outputs],
            "operators": description.operators,
            "quantised_operators": description.quantised_operators,
            "quantised_operator_count": sum(description.quantised_operators.values()),
            "weights": [
                {"operator": w.operator, "dtype": w.dtype, "tensors": w.tensors, "size_bytes": w.size_bytes}
                for w in description.weights
            ],
            "parts": [{"name": part.name, "size_bytes": part.size_bytes} for part in self.parts],
            "checks": [{"name": c.name, "outcome": c.outcome.value, "reason": c.reason} for c in self.checks],
            "holds": self.holds,
        }


def _value(value: Any) -> dict[str, Any]:
    return {"name": value.name, "dtype": value.dtype, "shape": list(value.shape)}


def inspect(path: Path, *, sha256: str | None = None) -> Inspection:
    """Read a model file of any target, whoever wrote it. Nothing in it is run.

    sha256  the digest that the file should have, as `export` or a report printed it
    Raises BadInputError for a missing file, another suffix and a `sha256` that is none, DamagedFileError for a file
    that is not whole. Metadata that contradicts itself is no error here: it is a check that differs.
    """
    if sha256 is not None and (len(sha256) != 64 or not set(sha256.lower()) <= set("0123456789abcdef")):
        raise BadInputError(f"`sha256` {sha256!r}: not a SHA-256, which is 64 hex digits")
    target = require_present(path)
    description = describe_file(target, path)
    digest = sha256_file(path)
    checks = [] if sha256 is None else [_compared("SHA-256", digest, sha256.lower(), "the digest given")]
    metadata: ArtifactMetadata | None = None
    if description.metadata is not None:
        metadata, found = _metadata(description, description.metadata, target, path)
        checks += found
    result = Inspection(path, target, size_bytes(path), digest, description, metadata, tuple(checks))
    _require_room(result)
    return result


def _require_room(result: Inspection) -> None:
    """DamagedFileError where the graph declares more weights than the file has bytes."""
    room = min(part.size_bytes for part in result.parts)
    if room < 0:
        raise DamagedFileError(
            f"{result.path}: not a whole {result.path.suffix}: its graph declares {-room} bytes more than there are"
        )


def describe_file(target: Target, path: Path) -> Description:
    """The file from the inside, by the reader of its target; DamagedFileError for what is none."""
    target_module(target)  # names the extra where the target's library is not installed
    with quiet_conversion(f"reading {path}"):
        module: Any = importlib.import_module(f"edgecsd.targets.{target}.describe")
        description: Description = module.describe(path)
    return description


def _compared(name: str, found: str, expected: str, source: str) -> Check:
    if found == expected:
        return Check(name, Outcome.OK, f"that of {source}")
    return Check(name, Outcome.DIFFERS, f"{found}, but {source} says {expected}")


def _metadata(
    description: Description, text: str, target: Target, path: Path
) -> tuple[ArtifactMetadata | None, list[Check]]:
    """The metadata where it is valid, and what became of its checks."""
    try:
        metadata = metadata_from_json(text, path.name)  # recomputes the fingerprint from the space's parts
    except BadInputError as error:
        return None, [Check("metadata", Outcome.DIFFERS, str(error))]
    checks = [
        Check("metadata", Outcome.OK, f"schema version {metadata.schema_version}"),
        Check("fingerprint", Outcome.OK, "recomputed from the parts of the embedding space"),
        _compared("target", target.value, metadata.target.value, "its metadata"),
        _precision(metadata, description),
        _content(metadata, path),
        _weights_of_the_run(metadata, path),
    ]
    if metadata.calibration_digest is not None:
        reason = f"needs the {metadata.calibration_count} calibration photos"
        checks.append(Check("calibration digest", Outcome.NOT_CHECKED, reason))
    return metadata, checks


def _precision(metadata: ArtifactMetadata, description: Description) -> Check:
    """Whether constants and operators are those of the precision that is named."""
    name, stated, held = "precision", metadata.precision, held_precision(description)
    if held is None:
        return Check(name, Outcome.NOT_CHECKED, "no convolution here has weights of a type that shows it")
    count = sum(description.quantised_operators.values())
    seen = f"the convolutions' weights and {count} operators on 8-bit activations are those of {held}"
    if held is stated:
        return Check(name, Outcome.OK, seen)
    return Check(name, Outcome.DIFFERS, f"{stated} by its metadata, but {seen}")


def _content(metadata: ArtifactMetadata, path: Path) -> Check:
    """Whether the file's bytes are those that were written: weights, graph and metadata."""
    name, stated = "content digest", metadata.content_digest
    if stated is None:
        return Check(name, Outcome.NOT_CHECKED, "the file states none: edgecsd wrote none before schema version 2")
    found = content_digest(path)
    if found == stated:
        return Check(name, Outcome.OK, "recomputed from every byte of the file but its own")
    return Check(name, Outcome.DIFFERS, f"{found}, but {stated} was written: the file was changed since; export again")


def _weights_of_the_run(metadata: ArtifactMetadata, path: Path) -> Check:
    """The digest that the file names against its run folder's (RUN/exports/FILE); a converter changes the weights."""
    name, described = "weights digest", path.resolve().parent.parent / "query_model.json"
    if not described.is_file():
        return Check(name, Outcome.NOT_CHECKED, "needs the run folder that the file was exported from")
    try:
        run = read_json(described)
    except BadInputError as error:
        return Check(name, Outcome.NOT_CHECKED, str(error))
    expected = str(run.get("weights_digest")) if isinstance(run, dict) else ""
    return _compared(name, metadata.weights_digest, expected, f"{described.parent.name}/{described.name}")
