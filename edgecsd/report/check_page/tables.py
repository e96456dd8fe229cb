"""The tables and lists of a check's page: links, latency, what the device and the diagnosis say, what was checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgecsd.gate.evidence import Evidence
from edgecsd.gate.facts import LatencyFacts, LinkName
from edgecsd.gate.waterfall import MAP, OVERLAP, RECALL_1, LinkFigures
from edgecsd.metrics.bootstrap import with_interval

Rows = tuple[tuple[str, ...], ...]
Pairs = tuple[tuple[str, str], ...]


def links_table(links: tuple[LinkFigures, ...], k: int, depth: int) -> Rows:
    """A row a link: its figures with their intervals (the template breaks the line), and the change of overlap."""
    names = [(OVERLAP, f"overlap@{k}"), (RECALL_1, "recall@1"), (MAP, f"mAP@{depth}")]
    shown = [(figure, title) for figure, title in names if figure in links[-1].figures]
    rows = [("", *(title for _, title in shown), "change")]
    for link in links:
        change = link.change.get(OVERLAP)
        figures = (with_interval(link.figures[figure]) for figure, _ in shown)
        rows.append((str(link.name), *figures, "" if change is None else with_interval(change, "+.3f")))
    return tuple(rows)


@dataclass(frozen=True)
class LatencyRow:
    """A row of a bench in words. about: what kind of figure it is; cells: as in LATENCY_HEADER after the device."""

    device: str
    about: str
    cells: tuple[str, ...]
    reason: str


LATENCY_HEADER = ("device", "threads", "p50 ms", "p90 ms", "memory MB", "cosine")


def latency_rows(evidence: Evidence) -> tuple[LatencyRow, ...]:
    """The measured rows first, then those that are emulated or imported, then those without figures."""
    order = {"measured": 0, "imported": 1, "emulated": 2}
    rows = sorted(evidence.facts.latency, key=lambda row: (row.p90_ms is None, order.get(row.kind, 3)))
    return tuple(_latency_row(row) for row in rows)


def _latency_row(row: LatencyFacts) -> LatencyRow:
    protocol = f"{row.protocol} protocol" if row.protocol else ""
    about = [row.kind, row.backend, row.label, protocol, row.measured_at[:10]]
    if row.p50_ms is None and row.mean_ms is not None:
        about.append(f"mean {row.mean_ms:.2f} ms")
    if row.contended:
        about.append("the machine was busy: its times, not the file's")
    cosine = _figure(row.cosine_mean, 5) + ("" if row.cosine_min is None else f" [lowest {row.cosine_min:.5f}]")
    cells = (_whole(row.threads), _figure(row.p50_ms, 2), _figure(row.p90_ms, 2), _figure(row.peak_mb, 0), cosine)
    reason = f"{row.status}: {row.reason}" if row.reason else ""
    return LatencyRow(row.device, ", ".join(each for each in about if each), cells, reason)


def _whole(value: int | None) -> str:
    return "-" if value is None else str(value)


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def findings(evidence: Evidence) -> Pairs:
    """What explains a difference, and how a device's embeddings compare with this machine's; empty if neither is."""
    return (*_diagnoses(evidence), *_device(evidence))


def _diagnoses(evidence: Evidence) -> Iterator[tuple[str, str]]:
    for found in evidence.facts.diagnoses:
        what = "explains" if found.whole else "is most like"
        without = "not finite" if found.without is None else f"{found.without:.4f}"
        subject = "the device" if found.link is LinkName.DEVICE else str(found.link)
        yield (
            f"What {what} {subject}",
            f"{found.mistake}: cosine {found.cosine:.4f} to the torch model with this mistake, {without} without it",
        )


def _device(evidence: Evidence) -> Iterator[tuple[str, str]]:
    device = evidence.facts.device
    if device is None:
        return
    mean, least = ("not finite" if each is None else f"{each:.5f}" for each in (device.cosine_mean, device.cosine_min))
    yield "Device's embeddings", device.path
    yield "Their cosine to this machine's", f"mean {mean}, lowest {least}"
    error = "not finite" if device.norm_error is None else f"{device.norm_error:.2g}"
    yield "Largest error of their length", error
    yield "Those that are another photo's", f"{device.misplaced:.1%}"


def checked_facts(evidence: Evidence) -> Pairs:
    """What was checked with what."""
    facts = evidence.facts
    artifact, index, images = facts.artifact, facts.index, facts.images
    photos = (
        f"{images.count} of {images.root}; {images.unreadable} unreadable or without features, "
        f"{len(images.left_out)} copies of gallery images left out"
    )
    calibration = "" if artifact.calibration_count is None else f", ranges from {artifact.calibration_count} photos"
    return (
        ("File", f"{artifact.path}, {artifact.precision}{calibration}, SHA-256 {artifact.sha256}"),
        ("Run by", artifact.runtime),
        ("Query model", f"{artifact.backbone}, {facts.run}"),
        ("Index", f"{index.path}: {index.search}, {index.count} items"),
        ("Exact results from", index.store or "the index's own vectors"),
        ("Embedding space", index.fingerprint),
        ("Photos", photos),
        ("Gallery model's features", facts.reference),
        ("Environment", ", ".join(f"{name} {value}" for name, value in facts.environment.items())),
        ("Exported with", ", ".join(f"{name} {value}" for name, value in artifact.versions.items())),
        ("Probes that could not run", "; ".join(facts.probes_skipped) or "none"),
        ("Checked", facts.checked_at),
    )
