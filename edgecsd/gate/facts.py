"""Evidence, all but its arrays: artifact, index, photos, probes, device, latency, as they stand in evidence.json."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class LinkName(StrEnum):
    """The links from the gallery model's own results to what the app gets; each exchanges one thing."""

    GALLERY = "gallery model"  # exact search: what should be found
    QUERY = "query model"  # the torch query model instead of the gallery model, exact
    FP32 = "fp32 export"  # an exported fp32 file instead of torch, exact
    FILE = "this file"  # the file in its own precision, exact
    DEVICE = "device"  # the same file's embeddings from a device, exact
    INDEX = "index"  # the actual index with its actual search parameters instead of exact search


class ArtifactFacts(BaseModel):
    """The judged file.

    contract   the parts of its pixel contract that are not the query model's
    unchanged  whether its bytes are those that export wrote, by the digest that it states; None where it states none
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    target: str
    precision: str
    backbone: str
    recipe: str
    weights_digest: str
    runtime: str
    fp32: str | None = None  # the fp32 file of the waterfall
    contract: tuple[str, ...] = ()
    unchanged: bool | None = None
    calibration_count: int | None = None  # photos that 8-bit ranges come from; None in evidence of earlier versions
    versions: dict[str, str] = {}


class IndexFacts(BaseModel):
    """The index that was searched. exact: its own search is exact, so the last link exchanges nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    type: str
    parameters: dict[str, int]
    count: int
    fingerprint: str
    exact: bool
    search: str  # type and search parameters in words
    store: str | None = None  # whose vectors the exact results come from; None: the index's own


class ImageFacts(BaseModel):
    """The query photos. left_out: byte-identical to a gallery image of another id; changed: not the reference's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str
    count: int
    unreadable: int = 0
    left_out: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    digests_known: bool = False


class ProbeFacts(BaseModel):
    """A content probe's result, as edgecsd.checking.probes gave it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    passed: bool
    figure: float | None
    expected: str
    message: str


class Diagnosis(BaseModel):
    """A named pixel mistake that explains what a link gives: the mean cosine to it with the mistake, and without.

    whole   it explains all of the difference; else the link is only most like it
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    link: LinkName
    mistake: str
    cosine: float
    without: float | None = None  # None: not finite
    whole: bool = True


class DeviceFacts(BaseModel):
    """A device's embeddings against this machine's of the same file; None where they are not finite.

    norm_error   the largest |length - 1|
    misplaced    share of the embeddings that are not their own photo's here, but another one's
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    cosine_mean: float | None
    cosine_min: float | None
    norm_error: float | None = None
    misplaced: float = 0.0


class GoldenFacts(BaseModel):
    """A golden pack of this very file, run again here; a figure is None where an embedding is zero or not finite.

    decoded, changed    photos that decode to other pixels here, and photos whose tensor is not the pack's
    tensor_difference   the largest mean difference of such a tensor, in levels
    unusable            embeddings that are zero, NaN or infinite; constant: all of them are the same
    cosine, difference, norm_error   of the embeddings of the pack's tensors: lowest, largest, largest
    overlap             mean share of the expected ids that the index gives; None without expected ids
    pillow              the version that made the pack's tensors
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    photos: int
    decoded: tuple[str, ...]
    changed: tuple[str, ...]
    tensor_difference: float
    unusable: int
    constant: bool
    cosine: float | None
    cosine_tolerance: float
    difference: float | None
    difference_tolerance: float | None
    norm_error: float | None
    norm_tolerance: float
    overlap: float | None
    overlap_tolerance: float
    pillow: str = ""


class LatencyFacts(BaseModel):
    """A row of a bench of this very file. kind: "measured", "emulated" or "imported"; peak_mb: of the whole process.

    What a browser or another tool does not report is None or "".

    status is "ok", or `reason` says why there are no figures; contended: others held the cores meanwhile.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    kind: str
    label: str
    backend: str = ""
    threads: int | None
    status: str
    reason: str = ""
    p50_ms: float | None = None
    p90_ms: float | None = None
    mean_ms: float | None = None
    peak_mb: float | None = None
    contended: bool = False
    cosine_mean: float | None = None
    cosine_min: float | None = None
    protocol: str
    source: str
    measured_at: str


class Facts(BaseModel):
    """All of the evidence that is not an array a query. k: depth of the figures; threshold: the product's, or None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact: ArtifactFacts
    index: IndexFacts
    images: ImageFacts
    run: str
    reference: str
    k: int
    threshold: float | None = None
    probes: tuple[ProbeFacts, ...] = ()
    probes_skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    device: DeviceFacts | None = None
    golden: GoldenFacts | None = None
    latency: tuple[LatencyFacts, ...] = ()
    latency_note: str = ""  # which rows of a bench were left out, or why there are none
    environment: dict[str, str] = {}
    checked_at: str = ""
