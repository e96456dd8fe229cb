"""export: a run folder -> one artifact, read back from disk, run, and compared with the query model it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import edgecsd
from edgecsd.errors import BadInputError, EdgecsdError, GateFailedError
from edgecsd.exporting.photos import ExportPhotos, embed_by_both, read_photos
from edgecsd.exporting.places import default_place, require_place, suffix_of
from edgecsd.features.exact import exact_neighbours, without_own
from edgecsd.files.places import holding_out
from edgecsd.files.whole import replace_whole, sha256_file, size_bytes
from edgecsd.metrics.retrieval import cosines, overlap_at
from edgecsd.photos.images import ImageSet
from edgecsd.photos.whole_photo import PhotoSize
from edgecsd.progress import SILENT, Reporter
from edgecsd.quantisation.precisions import STANDARD, EightBit, Precision, parse_precision
from edgecsd.quantisation.range_guard import FEW, RangeReport, guard_ranges, require_half_precision
from edgecsd.targets.artifact import (
    TargetModule,
    convert,
    latency_measurable,
    load_runner,
    parse_target,
    read_metadata,
    target_module,
)
from edgecsd.targets.content_digest import UNSEALED, seal
from edgecsd.targets.metadata import ArtifactMetadata, Target

if TYPE_CHECKING:
    from edgecsd.exporting.differing import Differing
    from edgecsd.models.query import QueryModel
    from edgecsd.targets.deploy import DeployModel

NORM_TOLERANCE = 3e-3  # of 1; rounding each step of L2 to fp16 gave 1.02e-3 (Lite0, Core ML, one of 64 photos)
FEWEST_SEARCHED, K = 20, 10  # photos among which each is searched; depth
LEAST_OVERLAP = 0.5  # of Core ML's w8a8, among those photos
# What float files may differ from torch by [measured: fp32 1e-5 and 1e-6 of cosine, fp16 0.9999]; above it a converter
# computes something else. A resize inside the file rounds pixels differently from Pillow: then fp16's counts.
MOST_DIFFERENCE, LEAST_COSINE, LEAST_COSINE_FP16 = 1e-4, 0.99999, 0.999
SUSPICIOUS = 0.97  # mean cosine of a quantised file, below which the converter's float file is looked at too
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how near it is to the query model.

    parity   cosine_mean, cosine_min, max_difference (of one element) over the images it was compared on, and of 20
             photos or more overlap_10 (`overlap_among`); compared_on says which, in words
    half_precision   what half precision, as GPUs compute, does to the query model on those images; None for a model
                     whose embeddings are not usable in float
    """

    path: Path
    target: Target
    precision: Precision
    size_bytes: int
    metadata: ArtifactMetadata
    parity: dict[str, float]
    compared_on: str
    sha256: str
    half_precision: RangeReport | None = None


@holding_out
def export(
    run: Path,
    target: str | Target,
    precision: str | Precision,
    *,
    out: Path | None = None,
    calibration: ImageSet | None = None,
    calibration_count: int = 64,
    seed: int = 0,
    licence: str | None = None,
    ort_format: bool = False,
    baked: PhotoSize | None = None,
    how: EightBit = STANDARD,
    study_only: bool = False,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> ExportResult:
    """Turn the query model of a run folder into one artifact for `target` in `precision`.

    out          by default <run>/exports/<backbone>-<precision>.<suffix>
    calibration  images like those the app will see. w8a8 needs them: its ranges come
                 from `calibration_count` of them, chosen by `seed`, and it is compared on as many others, if there are
                 any. The other precisions only compare on them, and without them compare on eight synthetic images.
    ort_format   target onnx: write onnxruntime's own format (.ort), which its reduced builds for phones load
    baked        put resize and crop inside (exporting/photos.py says which target can): the file takes whole upright
                 photos of this size, or of any
    how          of w8a8 (edgecsd.precision_search finds one); the other precisions have one recipe each
    study_only   write a float file whose embeddings are not torch's too, to find out why: its name, metadata and card
                 say what it is, and `check` refuses it

    Nothing is written unless the file, read back from disk, gives finite unit embeddings. A file that computes in fp16
    (Core ML's 8-bit ones too) must also survive half precision as GPUs compute it, on all of those images
    (quantisation/range_guard.py). For other files the reporter warns if they would not, on 16 images.

    Raises:
        GateFailedError: the written file is wrong, differs from torch more than its float precision does, or overflows
            in half precision.
        BadInputError: the target lacks the precision, w8a8 without calibration, `out` exists without `overwrite`.
        MissingBackendError: the target's converter is not installed.
    """
    target, precision = parse_target(target), parse_precision(precision)
    if how != STANDARD and precision is not Precision.W8A8:
        raise BadInputError(f"precision {precision} has one recipe; {how.changes} goes with w8a8")
    module = target_module(target)
    _require_precision(module, target, precision, calibration)
    suffix = suffix_of(target, ort_format)
    from edgecsd.exporting.differing import first_differing, require_exact_float
    from edgecsd.models.query import load_query_model
    from edgecsd.quantisation.bias_correction import correct_biases, require_places
    from edgecsd.quantisation.equalisation import equalise
    from edgecsd.targets.deploy import DeployModel

    model = load_query_model(run)
    model.config.preprocess.require_square("export")
    path = out or default_place(run, model.config.backbone, precision, suffix, baked, study_only)
    require_place(path, target, suffix, overwrite=overwrite)
    photos = read_photos(
        calibration, model.config.preprocess, calibration_count, seed, calibrate=precision is Precision.W8A8
    )
    metadata = _metadata(model, module, target, precision, photos, how, licence, baked, study_only)
    deploy = DeployModel(model)
    require_places(deploy, photos.pixels[:1], how.float_convolutions)
    if how.equalisation:
        equalise(deploy, photos.pixels)
    if precision is Precision.W8A8 and how.bias_correction:
        correct_biases(deploy, photos.pixels, how)
    reporter.message(f"trying {model.config.backbone} in half precision")
    ranges = _guard(deploy, photos.pixels, module, precision, path.name, reporter)
    reporter.message(f"converting {model.config.backbone} to {target}, {precision}")
    with replace_whole(path) as temporary:
        _convert(deploy, temporary, precision, photos, metadata, how)
        written = read_metadata(temporary)
        runner = load_runner(temporary)
        vectors, reference = embed_by_both(runner, written, model, photos, seed, reporter)
        require_unit(vectors, path.name)
        parity = compare(vectors, reference)
        if too_far(written, parity):
            reporter.message("looking for the module that the converter gets wrong")
            problem = unlike_torch(written, parity, path.name, first_differing(deploy, written, photos.compared[:1]))
            if not study_only:
                raise GateFailedError(f"{problem}. Nothing was written; `study_only` writes it, marked as such")
            reporter.message(f"warning: {problem}. It is written for study only")
        elif precision in (Precision.W8A32, Precision.W8A8) and parity["cosine_mean"] < SUSPICIOUS:
            reporter.message(f"cosine {parity['cosine_mean']:.3f}: is it the 8 bit, or the converter?")
            require_exact_float(deploy, written, photos.compared[:1], path.name)
        if photos.digest is not None and len(vectors) >= FEWEST_SEARCHED:
            parity["overlap_10"] = float(overlap_among(vectors, reference, K).mean())
        _require_retrieval(target, precision, parity, path.name, reporter)
    compared_on = f"{len(vectors)} {photos.words}"
    if not latency_measurable(target):  # not what a device runs
        compared_on += f"; {runner.kind}"
    return ExportResult(
        path, target, precision, size_bytes(path), written, parity, compared_on, sha256_file(path), ranges
    )


def _guard(
    deploy: DeployModel,
    pixels: NDArray[np.uint8],
    module: TargetModule,
    precision: Precision,
    name: str,
    reporter: Reporter,
) -> RangeReport | None:
    """Refuse a file that computes in fp16 of a network that half precision breaks; of other files only warn."""
    computes_in_half = precision in module.HALF_PRECISIONS
    report = guard_ranges(deploy, pixels, most=len(pixels) if computes_in_half else FEW)
    if report is None:
        return None
    if computes_in_half:
        others = module.PRECISIONS - module.HALF_PRECISIONS
        require_half_precision(report, name, [each for each in Precision if each in others])
    for problem in report.failures[:3]:
        reporter.message(f"warning: this model will fail on a GPU in half precision: {problem}")
    for warning in report.warnings[:3]:
        reporter.message(f"warning: in half precision {warning}")
    return report


def _require_precision(
    module: TargetModule, target: Target, precision: Precision, calibration: ImageSet | None
) -> None:
    if precision not in module.PRECISIONS:
        has = ", ".join(p for p in Precision if p in module.PRECISIONS)
        raise BadInputError(f"target {target} has no precision {precision}; it has: {has}")
    if precision is Precision.W8A8 and calibration is None:
        raise BadInputError(
            "precision w8a8 takes the ranges of its activations from photos: give `calibration` with a folder or a CSV "
            "list of images like those the app will see (64 are enough)"
        )


def _metadata(
    model: QueryModel,
    module: TargetModule,
    target: Target,
    precision: Precision,
    photos: ExportPhotos,
    how: EightBit,
    licence: str | None,
    baked: PhotoSize | None,
    study_only: bool,
) -> ArtifactMetadata:
    import torch

    config = model.config
    calibrated = precision is Precision.W8A8
    return ArtifactMetadata(
        target=target,
        precision=precision,
        recipe="-".join(filter(None, (module.RECIPES[precision], how.changes))),
        space=config.space,
        fingerprint=config.space.fingerprint,
        dim=config.dim,
        metric=config.space.metric,
        preprocess=config.preprocess,
        baked=baked,
        backbone=config.backbone,
        weights_digest=config.weights_digest,
        calibration_digest=photos.digest if calibrated else None,
        calibration_count=len(photos.pixels) if calibrated else 0,
        content_digest=UNSEALED,
        study_only=study_only or None,
        versions={"edgecsd": edgecsd.__version__, "torch": str(torch.__version__), **module.versions()},
        licence=licence,
    )


def _convert(
    deploy: DeployModel,
    out: Path,
    precision: Precision,
    photos: ExportPhotos,
    metadata: ArtifactMetadata,
    how: EightBit,
) -> None:
    pixels = photos.pixels if precision is Precision.W8A8 else None
    convert(metadata.target, deploy, out, precision, pixels, metadata, how)
    if not out.exists():
        raise EdgecsdError(f"the {metadata.target} converter ended without an error and without a file")
    seal(out)


def require_unit(vectors: Floats, name: str) -> None:
    """GateFailedError unless every row is finite and has length 1 within 0.003."""
    if not np.isfinite(vectors).all():
        raise GateFailedError(f"{name}: {_count(~np.isfinite(vectors).all(axis=1))} embeddings hold NaN or infinity")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    wrong = np.abs(norms - 1.0) > NORM_TOLERANCE
    if wrong.any():
        worst = norms[np.abs(norms - 1.0).argmax()]
        what = "zero" if worst == 0 else f"of length {worst:.6g}, not 1"
        raise GateFailedError(
            f"{name}: {_count(wrong)} embeddings are wrong, the worst is {what}; nothing was written. "
            "Try precision fp32; if that fails too, the query model itself gives such embeddings"
        )


def too_far(metadata: ArtifactMetadata, parity: dict[str, float]) -> bool:
    """Whether a float file's embeddings are not torch's: a converter can be wrong without an error."""
    exact = _is_exact(metadata)
    if not exact and metadata.precision not in (Precision.FP32, Precision.FP16):
        return False
    least = LEAST_COSINE if exact else LEAST_COSINE_FP16
    return parity["cosine_min"] < least or (exact and parity["max_difference"] > MOST_DIFFERENCE)


def unlike_torch(metadata: ArtifactMetadata, parity: dict[str, float], name: str, differing: Differing | None) -> str:
    """What is wrong with a file that is `too_far`, with the module that the converter gets wrong, if one was found."""
    exact = _is_exact(metadata)
    allowed = f"cosine {LEAST_COSINE if exact else LEAST_COSINE_FP16} or more"
    allowed += f", difference {MOST_DIFFERENCE:g} or less" if exact else ""
    others = ", ".join(each for each in Target if each is not metadata.target)
    first = f" The first module whose output differs is {differing}." if differing is not None else ""
    return (
        f"{name}: its embeddings are not torch's: lowest cosine {parity['cosine_min']:.5f}, largest difference "
        f"{parity['max_difference']:.2g} ({allowed}). The converter to {metadata.target} computes something else for "
        f"{metadata.backbone}.{first} Take another `target` ({others}) or another backbone"
    )


def _is_exact(metadata: ArtifactMetadata) -> bool:
    return metadata.precision is Precision.FP32 and metadata.baked is None


def overlap_among(vectors: Floats, reference: Floats, k: int) -> NDArray[np.float64]:
    """(n,) overlap@k of two searches for each photo among the (n, D) reference embeddings of the others.

    One search is with the photo's embedding in `vectors`, the other with its reference: retrieval without a gallery.
    """
    own = np.arange(len(reference))
    searches = [exact_neighbours(queries, [(own, reference)], k + 1) for queries in (vectors, reference)]
    found, wanted = (without_own(*each, own, k)[1] for each in searches)
    return overlap_at(found, wanted, k)


def _require_retrieval(
    target: Target, precision: Precision, parity: dict[str, float], name: str, reporter: Reporter
) -> None:
    """A warning about an 8-bit file that loses too much; a Core ML one is refused, for no device has run one yet."""
    if precision is not Precision.W8A8:
        return
    kept = parity.get("overlap_10")
    if target is not Target.COREML:
        if kept is not None and kept < LEAST_OVERLAP:
            reporter.message(
                f"warning: {name} finds {kept:.0%} of each photo's ten nearest among the others, as torch has them: "
                f"too little to ship; edgecsd precision looks for what keeps more, or take `precision` w8a32 or fp16"
            )
    elif kept is None:
        reporter.message(
            f"warning: fewer than {FEWEST_SEARCHED} photos to search with: what this file finds was not measured; give "
            "more `calibration` photos, or measure it with edgecsd check"
        )
    elif kept < LEAST_OVERLAP:
        raise GateFailedError(
            f"{name}: finds {kept:.0%} of each photo's ten nearest among the others, as torch has them; nothing was "
            f"written, for Core ML's w8a8 is offered from {LEAST_OVERLAP:.0%} up. Take `precision` w8a32 or fp16"
        )


def _count(flags: Any) -> str:
    return f"{int(flags.sum())} of {len(flags)}"


def compare(vectors: Floats, reference: Floats) -> dict[str, float]:
    """cosine_mean, cosine_min and max_difference of (n, D) embeddings against (n, D) others, row by row."""
    near = cosines(vectors, reference)
    return {
        "cosine_mean": float(near.mean()),
        "cosine_min": float(near.min()),
        "max_difference": float(np.abs(vectors.astype(np.float64) - reference).max()),
    }
