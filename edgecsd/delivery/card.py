"""card.md: the model card of an exported file: what goes in and comes out, what was measured and what was not."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecsd.photos.contract import PIXEL_STEPS
from edgecsd.precision_search.results import HeldOutFigures
from edgecsd.targets.metadata import ArtifactMetadata, Target

if TYPE_CHECKING:
    from edgecsd.gate.verdict import CheckResult
    from edgecsd.golden.costs import Costs
    from edgecsd.measuring.schema import BenchRow
    from edgecsd.quantisation.range_guard import RangeReport


STUDY_ONLY = "**For study only**: it was written whether or not its embeddings are torch's. It must not ship."
DEAREST = 8  # mistakes on the card; all are in the golden pack's README


def card(name: str, metadata: ArtifactMetadata, measured: MeasuredFile, how_to: str = "") -> str:
    """The card's text. how_to: how this device class loads the file."""
    lines = [
        f"# {name}",
        "",
        f"A query model for image search on a device: {metadata.backbone} as {metadata.target}, {metadata.precision}. "
        f"Its embeddings are searched in galleries that {metadata.space.gallery_model} has embedded, and in no others: "
        f"an index of another embedding space than `{metadata.fingerprint}` gives results that mean nothing.",
        *(["", STUDY_ONLY] if metadata.study_only else []),
        *(["", how_to] if how_to else []),
        "",
        "## Input and output",
        "",
        "| | |",
        "|---|---|",
        *(f"| {what} | {value} |" for what, value in _input_and_output(metadata)),
        "",
        "## Measured",
        "",
        "| | | on |",
        "|---|---|---|",
        *(f"| {what} | {value} | {where} |" for what, value, where in _figures(measured)),
        *(line for note in measured.notes for line in ("", f"**Known:** {note}.")),
        *_not_measured(name, measured),
    ]
    if measured.costs is not None:
        lines += ["", "## What wrong pixels cost", "", *_costs(measured.costs)]
    lines += ["", "## Made by", "", "| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in _made(metadata))]
    return "\n".join([*lines, ""])


CARD = "card.md"


@dataclass(frozen=True)
class MeasuredFile:
    """What is known of a file: None where it was not measured, which the card says.

    parity   cosine_mean, cosine_min, max_difference and overlap_10 to the torch query model, on `parity_on`
    notes    what runtimes are known to do wrongly with such a file
    """

    size_bytes: int
    sha256: str
    parity: dict[str, float]
    parity_on: str
    half_precision: RangeReport | None = None
    checked: CheckResult | None = None
    row: BenchRow | None = None
    costs: Costs | None = None
    held_out: HeldOutFigures | None = None
    notes: tuple[str, ...] = ()


def _costs(costs: Costs) -> list[str]:
    from edgecsd.golden.for_apps import cost_table, cost_words  # needs faiss, which made the costs

    dearest = costs.model_copy(update={"mistakes": costs.mistakes[:DEAREST]})
    return [cost_words(dearest), "", *cost_table(dearest)]


def _input_and_output(metadata: ArtifactMetadata) -> Iterator[tuple[str, str]]:
    contract, inside = metadata.preprocess, metadata.baked is not None
    sides = (contract.size, contract.size) if metadata.baked is None else metadata.baked.sides or ("h", "w")
    as_image = metadata.target is Target.COREML
    shape = f"an RGB image of {sides[1]} x {sides[0]}" if as_image else f"(1, {sides[0]}, {sides[1]}, 3) uint8, RGB"
    yield "input", f"`image`, {shape}; rows from the top; the file normalises by itself"
    crop = f", the centre {contract.crop_pct:g} of the shorter side" if contract.resize == "shorter-side" else ""
    filter_name = f"{contract.interpolation} with antialias, as Pillow"
    resized = f"{contract.resize}{crop}, to {contract.size} x {contract.size}, {filter_name}"
    decoded = PIXEL_STEPS.decoding
    yield "pixels", f"{decoded}; then {resized}{' (inside the file: give it the whole photo)' if inside else ''}"
    yield "output", f"`embedding`, (1, {metadata.dim}) float32, length 1, compared by {metadata.metric}"


def _figures(measured: MeasuredFile) -> Iterator[tuple[str, str, str]]:
    yield "size", f"{measured.size_bytes / 1e6:.2f} MB", f"SHA-256 `{measured.sha256}`"
    parity = measured.parity
    yield (
        "cosine to the torch query model",
        f"mean {parity['cosine_mean']:.5f}, lowest {parity['cosine_min']:.5f}",
        measured.parity_on,
    )
    if "overlap_10" in parity:
        yield (
            "overlap@10 with the torch query model, each photo searched among the others",
            f"{parity['overlap_10']:.3f}",
            measured.parity_on,
        )
    if measured.half_precision is not None:
        report = measured.half_precision
        safe = f"cosine mean {report.cosine_mean:.5f}, lowest {report.cosine_min:.5f}"
        said = safe if report.safe else f"**breaks**: {report.failures[0]}"
        yield "the network in half precision, as GPUs compute", said, f"{report.images} images, emulated"
    if measured.held_out is not None:
        yield from _kept(measured.held_out)
    if measured.checked is not None:
        yield from _retrieval(measured.checked)
    if measured.row is not None:
        yield from _speed(measured.row)


def _kept(held_out: HeldOutFigures) -> Iterator[tuple[str, str, str]]:
    lost, torch = held_out.lost, held_out.torch_overlap
    where = f"{held_out.photos} held-out photos, by which the precision was chosen"
    yield "overlap@10 with the gallery model's results", f"{torch * (1 - lost.mean):.3f}, torch {torch:.3f}", where
    spread = f"{lost.mean:.2%} [{lost.low:.2%}, {lost.high:.2%}]"
    yield "share of the torch query model's overlap@10 that is lost", spread, where


def _retrieval(checked: CheckResult) -> Iterator[tuple[str, str, str]]:
    from edgecsd.gate.waterfall import MAP, OVERLAP, RECALL_1  # needs faiss, with which the check was made
    from edgecsd.metrics.bootstrap import with_interval

    links = checked.judgement.links
    torch, last = links[1].figures, links[-1].figures
    where = f"{checked.images} photos in {Path(str(checked.index)).name}"
    yield f"overlap@{checked.k} with the gallery model's results", with_interval(last[OVERLAP]), where
    yield "the same of the torch query model", with_interval(torch[OVERLAP]), where
    yield "the gallery model's first result found first", with_interval(last[RECALL_1]), where
    if MAP in last:
        yield "mAP by the photos' labels", with_interval(last[MAP]), where
        yield "mAP of the gallery model", with_interval(links[0].figures[MAP]), where
    gates = checked.gates
    passed = sum(gate.passed for gate in gates)
    yield "gates passed", f"{passed} of {len(gates)}, verdict {checked.verdict}", "edgecsd check"


def _speed(row: BenchRow) -> Iterator[tuple[str, str, str]]:
    if row.figures is None:
        yield "latency", str(row.status), row.reason
        return
    figures, threads = row.figures, f"{row.threads} thread{'' if row.threads == 1 else 's'}"
    busy = "; the machine was busy" if row.contended else ""
    yield "latency", f"p50 {figures.p50_ms:.2f} ms, p90 {figures.p90_ms:.2f} ms", f"{row.label}, {threads}{busy}"
    yield "CPU time of one inference", f"p50 {figures.cpu_p50_ms:.2f} ms", "the same runs"


def _not_measured(name: str, measured: MeasuredFile) -> list[str]:
    missing, name = [], shlex.quote(name)
    if measured.checked is None:
        others = "" if measured.held_out is None else " on other photos"
        missing.append(f"retrieval{others} (`edgecsd check {name} --run RUN --index INDEX --images PHOTOS`)")
    if measured.row is None:
        missing.append(f"latency (`edgecsd bench {name} --device DEVICE`)")
    if measured.costs is None:
        missing.append(f"what wrong pixels cost (`edgecsd golden {name} --index INDEX --images PHOTOS --out PACK`)")
    return ["", f"Not measured: {'; '.join(missing)}."] if missing else []


def _made(metadata: ArtifactMetadata) -> Iterator[tuple[str, str]]:
    yield "recipe", metadata.recipe
    if metadata.calibration_digest is not None:
        yield "calibration", f"{metadata.calibration_count} photos, SHA-256 `{metadata.calibration_digest}`"
    yield "weights", f"SHA-256 `{metadata.weights_digest}`"
    yield "versions", ", ".join(f"{name} {version}" for name, version in metadata.versions.items())
    yield "licence", metadata.licence or "not stated: add it with edgecsd export --licence"
