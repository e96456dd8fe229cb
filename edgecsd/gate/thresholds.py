"""Thresholds of the gates: their defaults, and those that a team sets in a file or on the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecsd.errors import BadInputError, validation_text
from edgecsd.quantisation.precisions import Precision

ALL = "all"  # the section of a thresholds file that is for every precision
Share = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]


def _option(text: str, default: Any = ...) -> Any:
    """A threshold that is an option of edgecsd check and gate too; `text` describes it there."""
    return Field(default, description=text, json_schema_extra={"panel": "Gates"})


class Thresholds(BaseModel):
    """What an artifact must reach. A `loss` is relative: 0.05 = a twentieth of what the link before had is gone.

    min_cosine_mean, min_cosine   of the exported embeddings to torch's
    max_difference                of one element to torch's; only asked of fp32
    max_norm_error                largest |length - 1|
    max_overlap_loss, max_rbo_loss, max_recall_loss, max_map_loss   of the file against torch, both searched exactly:
                                  of overlap@k, of rank-biased overlap, of recall@k of the gallery model's first hit
    max_score_shift               mean change of the best cosine against torch, in either direction
    min_device_cosine             mean cosine of a device's embeddings to this machine's of the same file
    min_calibration               photos that the ranges of 8-bit activations come from
    max_device_loss               overlap lost by a device's embeddings against the host's of the same file
    max_index_loss                overlap lost by the index against exact search
    min_overlap                   overlap@k of what the app gets with what the gallery model finds
    max_leaked                    share of queries that are byte-identical to a gallery image of another id
    max_false_accepts, max_false_rejects   shares at the product's threshold, where one is given
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)  # true is no number

    min_overlap: Share = _option("Overlap@k with the gallery model's results, at least", 0.3)
    max_overlap_loss: Share = _option("Relative loss of overlap against the torch model, at most (by precision)")
    max_index_loss: Share = _option("Relative loss of overlap by the index, at most", 0.1)
    min_cosine_mean: Cosine = _option("Mean cosine to the torch model, at least (by precision)")
    min_cosine: Cosine = _option("Lowest cosine to the torch model, at least (by precision)")
    max_rbo_loss: Share
    max_recall_loss: Share
    max_map_loss: Share
    max_score_shift: Annotated[float, Field(ge=0, le=2)]
    max_difference: Annotated[float, Field(gt=0)] | None = None
    max_norm_error: Annotated[float, Field(gt=0)] = 1e-2
    min_device_cosine: Cosine = 0.995  # a decoder that rounds one value in ten otherwise: 0.998 to 0.9999 a photo
    min_calibration: Annotated[int, Field(ge=0)] = 0
    max_device_loss: Share = 0.02
    max_leaked: Share = 0.05
    max_false_accepts: Share | None = None
    max_false_rejects: Share | None = None


# From benchmarks/results/defects.md, with room for other processors: what is sound passes, every seeded defect fails. 8
# bit gave cosines of 0.98 to 0.997 and lost 0 to 2 % of the overlap; calibrated on one photo 0.93, on noise 0.72.
DEFAULT_THRESHOLDS = {
    Precision.FP32: Thresholds(
        min_cosine_mean=0.99999,
        min_cosine=0.9999,
        max_overlap_loss=0.005,
        max_rbo_loss=0.005,
        max_recall_loss=0.02,
        max_map_loss=0.005,
        max_score_shift=1e-4,
        max_difference=1e-3,
    ),
    Precision.FP16: Thresholds(
        min_cosine_mean=0.9999,
        min_cosine=0.999,
        max_overlap_loss=0.01,
        max_rbo_loss=0.01,
        max_recall_loss=0.02,
        max_map_loss=0.01,
        max_score_shift=1e-3,
    ),
    Precision.W8A32: Thresholds(
        min_cosine_mean=0.99,
        min_cosine=0.95,
        max_overlap_loss=0.05,
        max_rbo_loss=0.06,
        max_recall_loss=0.06,
        max_map_loss=0.03,
        max_score_shift=0.02,
    ),
    Precision.W8A8: Thresholds(
        min_cosine_mean=0.96,
        min_cosine=0.85,
        max_overlap_loss=0.08,
        max_rbo_loss=0.1,
        max_recall_loss=0.1,
        max_map_loss=0.05,
        max_score_shift=0.03,
        min_device_cosine=0.98,
        min_calibration=16,
    ),
}


def read_thresholds(file: Path) -> dict[str, dict[str, Any]]:
    """Section -> changes, of a TOML file with the sections [all] and [<precision>]; another section is refused."""
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise BadInputError(f"`thresholds` {file}: no such file") from None
    except (OSError, ValueError) as error:
        raise BadInputError(f"`thresholds` {file}: not readable as TOML: {error}") from None
    known = [ALL, *Precision]
    for section, values in document.items():
        if section not in known or not isinstance(values, dict):
            raise BadInputError(f"`thresholds` {file}: {section!r} is no section of it; there are: {', '.join(known)}")
    for precision in Precision:  # a mistake in another precision's section must not wait for its first file
        choose_thresholds(precision, document)
    return document


def choose_thresholds(
    precision: str, file: Mapping[str, Mapping[str, Any]] | None = None, changes: Mapping[str, float] | None = None
) -> Thresholds:
    """The precision's defaults, changed by the file's [all], then its [<precision>], then `changes`."""
    sections = file or {}
    merged = {**sections.get(ALL, {}), **sections.get(precision, {}), **(changes or {})}
    try:
        return Thresholds.model_validate({**DEFAULT_THRESHOLDS[Precision(precision)].model_dump(), **merged})
    except ValidationError as error:
        raise BadInputError(f"thresholds: {validation_text(error)}") from None
