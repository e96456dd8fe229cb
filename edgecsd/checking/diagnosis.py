"""Why do embeddings differ from the expected ones: which named pixel mistake, if any, explains what was found?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgecsd.checking.pairing import Pair
from edgecsd.gate.facts import DeviceFacts, Diagnosis, LinkName
from edgecsd.gate.thresholds import DEFAULT_THRESHOLDS
from edgecsd.metrics.retrieval import cosines
from edgecsd.photos.images import ImageSet
from edgecsd.photos.pixel_mistakes.diagnosis import Explanation, explain_pixels, renormalising
from edgecsd.progress import Reporter

EXPLAINED = 0.25  # a mistake explains a deviation if it leaves at most this share of it
LIKELY = 0.5  # and what is wrong is most like it if it leaves at most this share
SLACK = 0.005  # below the precision's mean cosine: eight photos, and a mistake's own pixels
DOUBTFUL = 0.9999  # mean cosine of a device's embeddings to this machine's: below it mistakes are tried
Floats = NDArray[np.float32]


def diagnose(
    pair: Pair, photos: ImageSet, exported: Floats, torch: Floats, device: Floats | None, reporter: Reporter
) -> tuple[Diagnosis, ...]:
    """The mistakes that explain the file's embeddings (n, D) against torch's, and a device's against the file's."""
    limits = DEFAULT_THRESHOLDS[pair.artifact.metadata.precision]
    found: list[Diagnosis] = []
    if cosines(exported, torch).mean() < limits.min_cosine_mean or not np.isfinite(exported).all():
        reporter.message("the file is not the torch model: trying known pixel mistakes")
        found += _explanations(pair, photos, exported, LinkName.FILE)
    if device is not None and not cosines(device, exported).mean() >= DOUBTFUL:
        reporter.message("the device's embeddings are not this machine's: trying known pixel mistakes")
        found += _explanations(pair, photos, device, LinkName.DEVICE)
    return tuple(found)


def device_facts(path: str, device: Floats, exported: Floats) -> DeviceFacts:
    """How near a device's embeddings (n, D) are to this machine's of the same file; NaN where they are not finite."""
    near = cosines(device, exported)
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = np.linalg.norm(device.astype(np.float64), axis=1)
        unit = device / np.maximum(lengths, 1e-12)[:, None]
        nearest = np.nan_to_num(unit @ exported.T, nan=-1.0).max(axis=1)
    misplaced = (near < DOUBTFUL) & (nearest >= DOUBTFUL)
    return DeviceFacts(
        path=path,
        cosine_mean=float(near.mean()),
        cosine_min=float(near.min()),
        norm_error=float(np.abs(lengths - 1).max()),
        misplaced=float(misplaced.mean()),
    )


def _explanations(pair: Pair, photos: ImageSet, found: Floats, link: LinkName) -> Iterator[Diagnosis]:
    """The mistake that comes nearest, if it is near enough; the torch model can be normalised otherwise, a file not."""
    least = DEFAULT_THRESHOLDS[pair.artifact.metadata.precision].min_cosine_mean - SLACK
    contract = pair.model.config.preprocess
    inside = pair.artifact.metadata.baked is not None  # then the file takes no pixels with a mistake in their resize
    device = link is LinkName.DEVICE and not inside
    file = explain_pixels(pair.artifact.embed, found, photos, contract) if device else None
    torch = None
    if file is None or not _explains(file, least):
        torch = explain_pixels(pair.model.embed, found, photos, contract, renormalised=renormalising(pair.model))
    tried = [explanation for explanation in (file, torch) if explanation is not None]
    for explanation in tried:
        if _explains(explanation, least):
            yield _diagnosis(link, explanation, whole=True)
            return
    nearest = max(tried, key=lambda explanation: explanation.cosine, default=None)
    if nearest is not None and 1 - nearest.cosine <= LIKELY * (1 - nearest.right):
        yield _diagnosis(link, nearest, whole=False)


def _diagnosis(link: LinkName, found: Explanation, *, whole: bool) -> Diagnosis:
    return Diagnosis(link=link, mistake=found.name, cosine=found.cosine, without=found.right, whole=whole)


def _explains(found: Explanation, least: float) -> bool:
    return found.cosine >= least and 1 - found.cosine <= EXPLAINED * (1 - found.right)
