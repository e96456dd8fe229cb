"""Every gate on an evidence or a golden pack, in the order in which a reader should look at them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgecsd.gate.evidence import Evidence
from edgecsd.gate.facts import GoldenFacts, LinkName
from edgecsd.gate.gates import ADVICE, Gate, Judgement, Kind, Verdict, exact_gate, not_torch, sampled_gate
from edgecsd.gate.threshold_shift import ThresholdShift, threshold_shift
from edgecsd.gate.thresholds import Thresholds
from edgecsd.gate.waterfall import MAP, OVERLAP, RBO, RECALL_1, RECALL_K, LinkFigures, blamed, relative_loss, waterfall
from edgecsd.metrics.bootstrap import Interval, bootstrap_intervals
from edgecsd.metrics.retrieval import overlap_at
from edgecsd.quantisation.precisions import Precision

RARE = 0.01  # share of the queries that may be below the lowest cosine of 8 bit
MOST_MISPLACED = 0.01  # share: photos that are copies of each other may be taken for one another
Values = NDArray[np.float64]


def judge(
    evidence: Evidence, thresholds: Thresholds, *, strict: bool = False, threshold: float | None = None
) -> Judgement:
    """All gates of the evidence, in the order in which a reader should look at them."""
    links = waterfall(evidence)
    at = evidence.facts.threshold if threshold is None else threshold
    shift = None if at is None else threshold_shift(links[0].best, links[-1].best, at)
    gates = (
        *_handshake(evidence, thresholds),
        *_probes(evidence),
        *_numerics(evidence, thresholds),
        *golden_gates(evidence),
        *_device(evidence, thresholds),
        *_retrieval(evidence, links, thresholds),
        *_decisions(links, shift, thresholds),
    )
    return Judgement(gates, links, _figures(evidence, links), thresholds, shift, strict)


def _handshake(evidence: Evidence, limits: Thresholds) -> Iterator[Gate]:
    facts = evidence.facts
    if facts.artifact.unchanged is not None:
        yield exact_gate(
            "digests that the file states of itself and that do not hold",
            Kind.HANDSHAKE,
            int(not facts.artifact.unchanged),
            0,
            "the file was changed or damaged since export wrote it: copy it again, or export it again",
            at_most=True,
        )
    yield exact_gate(
        "pixel contract of the file, parts unlike the query model's",
        Kind.HANDSHAKE,
        len(facts.artifact.contract),
        0,
        f"the file is fed other pixels than the query model was trained on ({'; '.join(facts.artifact.contract)}): "
        "export it again",
        at_most=True,
    )
    yield exact_gate(
        "photos unlike those the reference features were made of",
        Kind.HANDSHAKE,
        len(facts.images.changed),
        0,
        f"{', '.join(facts.images.changed[:3])}: the reference store was made of other photos of these names; extract "
        "it again, or give the photos it was made of",
        at_most=True,
    )
    if facts.images.digests_known:
        copies = len(facts.images.left_out)
        yield exact_gate(
            "queries that are copies of gallery images, share",
            Kind.PROBE,
            copies / max(1, copies + facts.images.count),
            limits.max_leaked,
            f"the queries are in the gallery under other ids ({', '.join(facts.images.left_out[:3])}): they find "
            "themselves, and the check says nothing about real queries; choose others",
            at_most=True,
        )


def _probes(evidence: Evidence) -> Iterator[Gate]:
    for probe in evidence.facts.probes:
        figure = float("nan") if probe.figure is None else probe.figure
        verdict = Verdict.PASSED if probe.passed else Verdict.FAILED
        message = "" if probe.passed else f"{probe.message} (expected: {probe.expected})"
        yield Gate(f"index contents: {probe.name}", Kind.PROBE, figure, float("nan"), verdict, message=message)


def _numerics(evidence: Evidence, limits: Thresholds) -> Iterator[Gate]:
    numbers = evidence.numerics
    advice = diagnosed(evidence, LinkName.FILE) or not_torch(evidence.facts.artifact.precision)
    link = LinkName.FILE if evidence.link(LinkName.FILE) is not None else LinkName.FP32
    wrong = int((~np.isfinite(numbers.norm)).sum() + (numbers.norm == 0).sum())
    yield exact_gate(
        "embeddings that are zero, NaN or infinite",
        Kind.NUMERICS,
        wrong,
        0,
        "numbers overflow in this precision or the file is broken: run it as fp32 to see which",
        at_most=True,
        link=link,
    )
    yield exact_gate(
        "dimensions stuck at one value, share",
        Kind.NUMERICS,
        numbers.stuck / numbers.dim,
        0,
        "the file answers the same whatever it is shown: a layer is dead or the input is not read",
        at_most=True,
        link=link,
    )
    cosine, norm_error = numbers.cosine, np.abs(numbers.norm - 1)
    yield exact_gate(
        "cosine to the torch model, mean",
        Kind.NUMERICS,
        float(cosine.mean()),
        limits.min_cosine_mean,
        advice,
        link=link,
    )
    name, lowest = _lowest(cosine, evidence.facts.artifact.precision)
    yield exact_gate(name, Kind.NUMERICS, lowest, limits.min_cosine, advice, link=link)
    if (count := evidence.facts.artifact.calibration_count) is not None and limits.min_calibration:
        yield exact_gate(
            "photos that the ranges of activations come from",
            Kind.NUMERICS,
            count,
            limits.min_calibration,
            f"ranges from {count} photos fit no others: export again with `calibration_count` 64",
            link=link,
        )
    if limits.max_difference is not None:
        yield exact_gate(
            "difference to the torch model, largest",
            Kind.NUMERICS,
            float(numbers.max_difference.max()),
            limits.max_difference,
            advice,
            at_most=True,
            link=link,
        )
    yield exact_gate(
        "length of the embedding, largest error",
        Kind.NUMERICS,
        float(norm_error.max()),
        limits.max_norm_error,
        "the L2 normalisation is missing in the file, or fails in this precision: export it again",
        at_most=True,
        link=link,
    )


def _lowest(cosine: Values, precision: str) -> tuple[str, float]:
    """The lowest cosine; of 8 bit the lowest but for 1 query in 100: among thousands one would fail."""
    if precision not in (Precision.W8A32, Precision.W8A8):
        return "cosine to the torch model, lowest", float(cosine.min())
    ascending = np.sort(np.nan_to_num(cosine, nan=-1.0))
    return "cosine to the torch model, lowest but 1 in 100", float(ascending[int(RARE * len(cosine))])


def diagnosed(evidence: Evidence, link: LinkName) -> str:
    """What is known to be wrong with a link's pixels, in words; "" where nothing explains it."""
    for found in evidence.facts.diagnoses:
        if found.link is not link:
            continue
        without = "not finite" if found.without is None else f"{found.without:.4f}"
        what = "the device computes" if link is LinkName.DEVICE else "the file computes"
        how = "what" if found.whole else "something most like what"
        rest = "" if found.whole else ", which does not explain all of it"
        return (
            f"{what} {how} the torch model does with one pixel mistake: {found.mistake} (cosine {found.cosine:.4f} "
            f"with it, {without} without{rest})"
        )
    return ""


def _mistaken(evidence: Evidence, link: LinkName) -> bool:
    """Whether a pixel mistake explains all that is wrong with a link."""
    return any(found.link is link and found.whole for found in evidence.facts.diagnoses)


def _device(evidence: Evidence, limits: Thresholds) -> Iterator[Gate]:
    facts = evidence.facts.device
    if facts is None:
        return
    cause = diagnosed(evidence, LinkName.DEVICE)
    yield exact_gate(
        "pixel mistakes that explain the device's embeddings",
        Kind.NUMERICS,
        int(_mistaken(evidence, LinkName.DEVICE)),
        0,
        f"{cause}: correct the app's preprocessing; it must be the file's pixel contract",
        at_most=True,
        link=LinkName.DEVICE,
    )
    figure = float("nan") if facts.cosine_mean is None else facts.cosine_mean
    yield exact_gate(
        "cosine of the device's embeddings to this machine's, mean",
        Kind.NUMERICS,
        figure,
        limits.min_device_cosine,
        cause or ADVICE[LinkName.DEVICE],
        link=LinkName.DEVICE,
    )
    yield exact_gate(
        "device's embeddings that are another photo's, share",
        Kind.NUMERICS,
        facts.misplaced,
        MOST_MISPLACED,
        "the device's answers stand in another order than its ids: send each with the id of its own photo",
        at_most=True,
        link=LinkName.DEVICE,
    )
    error = float("nan") if facts.norm_error is None else facts.norm_error
    yield exact_gate(
        "length of the device's embedding, largest error",
        Kind.NUMERICS,
        error,
        limits.max_norm_error,
        "what the device sends is of another length than 1: send what the file gives, unchanged",
        at_most=True,
        link=LinkName.DEVICE,
    )


def _retrieval(evidence: Evidence, links: tuple[LinkFigures, ...], limits: Thresholds) -> Iterator[Gate]:
    k, by_name = evidence.facts.k, {link.name: link for link in links}
    torch, last = by_name[LinkName.QUERY], links[-1]
    file = by_name.get(LinkName.FILE) or by_name[LinkName.FP32]
    name, advice = f"overlap@{k} with the gallery model's results, by the query model", ADVICE[LinkName.QUERY]
    yield sampled_gate(
        name, torch.values[OVERLAP], torch.figures[OVERLAP], limits.min_overlap, advice, link=LinkName.QUERY
    )
    broken = _worse(by_name, file)
    for figure, label, most in (
        (OVERLAP, f"overlap@{k}", limits.max_overlap_loss),
        (RBO, "rank-biased overlap", limits.max_rbo_loss),
        (RECALL_K, f"recall@{k}", limits.max_recall_loss),
        (MAP, "mAP", limits.max_map_loss),
    ):
        if figure in file.values:
            yield _loss(f"{label} lost against the torch model", torch, file, figure, most, broken)
    yield from _score_shift(torch, file, limits)
    if (device := by_name.get(LinkName.DEVICE)) is not None:
        yield _loss(f"overlap@{k} lost on the device", file, device, OVERLAP, limits.max_device_loss, LinkName.DEVICE)
    if last.name is LinkName.INDEX:
        before = links[-2]
        yield _loss(f"overlap@{k} lost by the index", before, last, OVERLAP, limits.max_index_loss, LinkName.INDEX)
    worst = torch if torch.figures[OVERLAP].mean < limits.min_overlap else blamed(links[2:])
    chain = ", ".join(f"{link.name} {link.figures[OVERLAP].mean:.3f}" for link in links)
    yield sampled_gate(
        f"overlap@{k} with the gallery model's results",
        last.values[OVERLAP],
        last.figures[OVERLAP],
        limits.min_overlap,
        f"most is lost by {_the(worst.name)} ({chain}): {ADVICE[worst.name]}",
        link=worst.name,
    )


def _the(link: LinkName) -> str:
    return str(link) if link is LinkName.FILE else f"the {link}"


def _worse(by_name: dict[LinkName, LinkFigures], file: LinkFigures) -> LinkName:
    """Which of conversion and precision costs more, where there is an fp32 file to separate them."""
    converted = by_name.get(LinkName.FP32)
    if converted is None or converted is file:
        return file.name
    return min((converted, file), key=lambda link: link.change[OVERLAP].mean).name


def _loss(name: str, before: LinkFigures, after: LinkFigures, figure: str, most: float, link: LinkName) -> Gate:
    values = relative_loss(before.values[figure], after.values[figure])
    return sampled_gate(name, values, _interval(values), most, ADVICE[link], at_most=True, link=link)


def _score_shift(torch: LinkFigures, file: LinkFigures, limits: Thresholds) -> Iterator[Gate]:
    shift = file.best - torch.best
    known = shift[np.isfinite(shift)]
    if not len(known):
        return
    interval, sign = _interval(known), -1.0 if known.mean() < 0 else 1.0
    size = Interval(abs(interval.mean), *sorted((sign * interval.low, sign * interval.high)))
    yield sampled_gate(
        "cosine of the first hit, shift against the torch model",
        sign * known,
        size,
        limits.max_score_shift,
        f"scores moved by {interval.mean:+.4f} against the torch model: a product's threshold means another thing now; "
        "see `threshold`",
        at_most=True,
        link=file.name,
    )


def _decisions(links: tuple[LinkFigures, ...], shift: ThresholdShift | None, limits: Thresholds) -> Iterator[Gate]:
    """Gates at the product's threshold, only where the user asked for them."""
    if shift is None:
        return
    before, now = links[0].best >= shift.threshold, links[-1].best >= shift.threshold
    for name, wrong, interval, most in (
        ("wrongly accepted at the threshold, share", now & ~before, shift.false_accepts, limits.max_false_accepts),
        ("wrongly rejected at the threshold, share", before & ~now, shift.false_rejects, limits.max_false_rejects),
    ):
        if most is not None:
            yield sampled_gate(name, wrong.astype(np.float64), interval, most, shift.words(), at_most=True)


def _interval(values: Values) -> Interval:
    return bootstrap_intervals({"": values})[""]


def _figures(evidence: Evidence, links: tuple[LinkFigures, ...]) -> dict[str, float]:
    """The means that a table or a log wants."""
    numbers, k, by_name = evidence.numerics, evidence.facts.k, {link.name: link for link in evidence.links}
    torch_rows = by_name[LinkName.QUERY].rows
    measured = {link.name: link.figures for link in links}
    torch, last = measured[LinkName.QUERY], links[-1].figures
    file = measured.get(LinkName.FILE) or measured[LinkName.FP32]
    file_rows = (by_name.get(LinkName.FILE) or by_name[LinkName.FP32]).rows
    found = {
        "cosine_mean": float(numbers.cosine.mean()),
        "cosine_min": float(numbers.cosine.min()),
        "max_difference": float(numbers.max_difference.max()),
        "norm_error": float(np.abs(numbers.norm - 1).max()),
        "cosine_to_gallery_mean": float(numbers.to_gallery.mean()),
        "overlap": last[OVERLAP].mean,
        "overlap_torch": torch[OVERLAP].mean,
        "overlap_exact": file[OVERLAP].mean,
        "overlap_loss": 1 - file[OVERLAP].mean / torch[OVERLAP].mean if torch[OVERLAP].mean else 1.0,
        "rank_biased_overlap": last[RBO].mean,
        "overlap_with_torch": float(overlap_at(file_rows, torch_rows, k).mean()),
        "top1_kept": last[RECALL_1].mean,
    }
    if MAP in last:
        found |= {"map": last[MAP].mean, "map_torch": torch[MAP].mean, "map_gallery": links[0].figures[MAP].mean}
    return found


OTHER_NUMBERS = (
    "the same file gives other numbers than when the pack was made: another runtime, its options or its kernels"
)


def golden_gates(evidence: Evidence) -> Iterator[Gate]:
    """None where no pack was given. Tolerances are the pack's own, which apps are held to."""
    facts = evidence.facts.golden
    if facts is None:
        return
    yield exact_gate(
        "golden pack: photos whose tensor is another here",
        Kind.NUMERICS,
        len(facts.changed),
        0,
        _pixels(facts),
        at_most=True,
    )
    yield exact_gate(
        "golden pack: embeddings that are zero, NaN, infinite, or all the same",
        Kind.NUMERICS,
        facts.unusable + int(facts.constant),
        0,
        OTHER_NUMBERS,
        at_most=True,
    )
    for name, figure, limit, at_most in (
        ("cosine to the expected embedding, lowest", facts.cosine, facts.cosine_tolerance, False),
        ("difference to the expected embedding, largest", facts.difference, facts.difference_tolerance, True),
        ("length of the embedding, largest error", facts.norm_error, facts.norm_tolerance, True),
    ):
        if limit is not None:
            shown = float("nan") if figure is None else figure
            yield exact_gate(f"golden pack: {name}", Kind.NUMERICS, shown, limit, OTHER_NUMBERS, at_most=at_most)
    if facts.overlap is not None:
        yield exact_gate(
            "golden pack: share of the expected results that the index gives",
            Kind.NUMERICS,
            facts.overlap,
            facts.overlap_tolerance,
            "the index is not the one of the pack, or its search parameters are others: make "
            "the pack again with `index`",
            at_most=False,
        )


def _pixels(facts: GoldenFacts) -> str:
    """Where the pixels part: at the decoder, or at the contract."""
    photos = ", ".join(facts.changed[:3])
    made = f", the pack was made with Pillow {facts.pillow}" if facts.pillow else ""
    if facts.decoded:
        return f"{photos} decode to other pixels here{made}: another JPEG decoder"
    return (
        f"{photos}: decoded alike, resized otherwise, by {facts.tensor_difference:.3f} levels in the mean{made}: the "
        "pixel contract or Pillow's resize changed; make the pack again if that is meant"
    )
