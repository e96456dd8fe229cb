"""check.html: one page on its own: verdict, waterfall, distributions, worst queries as images, environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecsd.attribution import MAP, OVERLAP, RECALL_1, LinkFigures
from edgecsd.bootstrap import Interval
from edgecsd.evidence import Evidence, LinkName
from edgecsd.gates import Gate, Judgement, Verdict
from edgecsd.report.check_figures import page_figures
from edgecsd.report.check_template import CHECK_PAGE
from edgecsd.report.html import PageFigure, fill
from edgecsd.report.retrieval_page import Card, Mark, Shown, Thumbnails

SHOWN = 6  # images of a strip
WORDS = {
    Verdict.PASSED: "Pass: may ship against this index",
    Verdict.UNDECIDED: "Pass, not all decided: may ship against this index",
    Verdict.FAILED: "Fail: must not ship against this index",
}


@dataclass(frozen=True)
class CheckPage:
    """All that the page shows."""

    title: str
    verdict: str
    words: str
    told: tuple[Gate, ...]
    waterfall: PageFigure
    links: tuple[tuple[str, ...], ...]
    link_texts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    gates: tuple[Gate, ...]
    distributions: tuple[PageFigure, ...]
    cards: tuple[Card, ...]
    cards_note: str
    legend: tuple[tuple[str, str, bool], ...]
    facts: tuple[tuple[str, str], ...]


def write_page(
    path: Path, evidence: Evidence, judgement: Judgement, queries: Thumbnails, gallery: Thumbnails | None
) -> None:
    """Write the page. gallery None: what is found is shown by its ids."""
    path.write_text(render_check(make_page(evidence, judgement, queries, gallery)), encoding="utf-8")


def make_page(evidence: Evidence, judgement: Judgement, queries: Thumbnails, gallery: Thumbnails | None) -> CheckPage:
    """Put the page together; photos that cannot be shown are shown by their ids."""
    facts, links = evidence.facts, judgement.links
    waterfall, distributions = page_figures(evidence, judgement)
    told = sorted((g for g in judgement.gates if g.verdict is not Verdict.PASSED), key=lambda gate: gate.passed)
    notes = list(facts.notes)
    if judgement.shift is not None:
        notes.append(judgement.shift.words())
    refused = judgement.verdict is Verdict.UNDECIDED and not judgement.passed
    words = "Fail: not all decided, as was asked for" if refused else WORDS[judgement.verdict]
    return CheckPage(
        title=f"{Path(facts.artifact.path).name} in {Path(facts.index.path).name}",
        verdict=str(Verdict.FAILED if refused else judgement.verdict),
        words=words, told=tuple(told), waterfall=waterfall, links=_table(links, facts.k, evidence.depth),
        link_texts=tuple((str(link.name), link.text) for link in links), notes=tuple(notes), gates=judgement.gates,
        distributions=distributions, cards=_cards(evidence, links, queries, gallery),
        cards_note=f"The queries that lost most overlap@{facts.k} by each link, with the first {SHOWN} results. The "
        "query's own photo in the gallery is left out.",
        legend=tuple((mark.sign, str(mark), mark.good) for mark in (Mark.SHARED, Mark.ALONE)), facts=_facts(evidence),
    )  # fmt: skip


def render_check(page: CheckPage) -> str:
    """The HTML text; every value is escaped."""
    return fill(CHECK_PAGE, page=page)


def _table(links: tuple[LinkFigures, ...], k: int, depth: int) -> tuple[tuple[str, ...], ...]:
    names = [(OVERLAP, f"overlap@{k}"), (RECALL_1, "recall@1"), (MAP, f"mAP@{depth}")]
    shown = [(figure, title) for figure, title in names if figure in links[-1].figures]
    rows = [("", *(title for _, title in shown), "change")]
    for link in links:
        change = link.change.get(OVERLAP)
        rows.append(
            (
                str(link.name),
                *(_with_interval(link.figures[figure], "") for figure, _ in shown),
                "" if change is None else _with_interval(change, "+"),
            )
        )
    return tuple(rows)


def _with_interval(interval: Interval, sign: str) -> str:
    """ "0.701 [0.667, 0.733]", which the template writes in two lines."""
    if np.isnan(interval.low):
        return f"{interval.mean:{sign}.3f}"
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def _cards(
    evidence: Evidence, links: tuple[LinkFigures, ...], queries: Thumbnails, gallery: Thumbnails | None
) -> tuple[Card, ...]:
    """The worst queries of each link, link by link."""
    truth, k = evidence.links[0].rows, evidence.facts.k
    cards = []
    for number in range(1, len(links)):
        for query in links[number].worst:
            found, wanted = evidence.links[number].rows[query], truth[query]
            before, now = (link.values[OVERLAP][query] for link in links[number - 1 : number + 1])
            item = evidence.queries[query]
            label = evidence.query_labels[query] if evidence.query_labels is not None else None
            cards.append(
                Card(
                    Shown(item, label or None, queries.of(item)),
                    f"lost by the {LinkName(links[number].name)}",
                    f"overlap@{k} {before:.2f} → {now:.2f}",
                    _strip(evidence, wanted[:SHOWN].tolist(), set(found[:k].tolist()), gallery),
                    _strip(evidence, found[:SHOWN].tolist(), set(wanted[:k].tolist()), gallery),
                )
            )
    return tuple(cards)


def _strip(evidence: Evidence, rows: list[int], others: set[int], gallery: Thumbnails | None) -> tuple[Shown, ...]:
    shown = []
    for row in rows:
        if row < 0:
            continue
        item, labels = evidence.gallery[row], evidence.gallery_labels
        label = labels.get(row) if labels is not None else None
        mark = Mark.SHARED if row in others else Mark.ALONE
        shown.append(Shown(item, label or None, None if gallery is None else gallery.of(item), mark))
    return tuple(shown)


def _facts(evidence: Evidence) -> tuple[tuple[str, str], ...]:
    facts = evidence.facts
    artifact, index, images = facts.artifact, facts.index, facts.images
    pairs = [
        ("File", f"{artifact.path}, {artifact.precision}, SHA-256 {artifact.sha256}"),
        ("Run by", artifact.runtime),
        ("Query model", f"{artifact.backbone}, {facts.run}"),
        ("Index", f"{index.path}: {index.search}, {index.count} items"),
        ("Exact results from", index.store or "the index's own vectors"),
        ("Embedding space", index.fingerprint),
        ("Photos", f"{images.count} of {images.root}; {images.unreadable} unreadable or without features, "
         f"{len(images.left_out)} copies of gallery images left out"),
        ("Gallery model's features", facts.reference),
        ("Environment", ", ".join(f"{name} {value}" for name, value in facts.environment.items())),
        ("Exported with", ", ".join(f"{name} {value}" for name, value in artifact.versions.items())),
        ("Probes that could not run", "; ".join(facts.probes_skipped) or "none"),
        ("Checked", facts.checked_at),
    ]  # fmt: skip
    return tuple(pairs)
