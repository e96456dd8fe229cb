"""check.html: one page on its own: verdict, waterfall, distributions, map, worst queries as images, latency, facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgecsd.gate.evidence import Evidence
from edgecsd.gate.gates import Gate, Judgement, Verdict
from edgecsd.report.check_page.cards import LEGEND, CardGroup, Photos, card_groups, cards_note
from edgecsd.report.check_page.figures import page_figures
from edgecsd.report.check_page.tables import (
    LATENCY_HEADER,
    LatencyRow,
    Pairs,
    Rows,
    checked_facts,
    findings,
    latency_rows,
    links_table,
)
from edgecsd.report.check_page.template import CHECK_PAGE
from edgecsd.report.drawing.html import PageFigure, fill
from edgecsd.report.drawing.retrieval_page import Thumbnails

WORDS = {
    Verdict.PASSED: "Pass: may ship against this index",
    Verdict.UNDECIDED: "Pass, not all decided: may ship against this index",
    Verdict.FAILED: "Fail: must not ship against this index",
}


@dataclass(frozen=True)
class CheckPage:
    """All that the page shows. open_gates: those not passed; findings: what explains a link, what a device sent."""

    title: str
    verdict: str
    words: str
    open_gates: tuple[Gate, ...]
    waterfall: PageFigure
    links: Rows
    link_texts: Pairs
    notes: tuple[str, ...]
    findings: Pairs
    gates: tuple[Gate, ...]
    figures: tuple[PageFigure, ...]
    groups: tuple[CardGroup, ...]
    cards_note: str
    latency: tuple[LatencyRow, ...]
    latency_note: str
    facts: Pairs
    legend: tuple[tuple[str, str, bool], ...] = LEGEND
    latency_header: tuple[str, ...] = LATENCY_HEADER


def write_page(
    path: Path, evidence: Evidence, judgement: Judgement, queries: Thumbnails, gallery: Thumbnails | None
) -> None:
    """Write the page. gallery None: what is found is shown by its ids."""
    path.write_text(render_check(make_page(evidence, judgement, queries, gallery)), encoding="utf-8")


def make_page(evidence: Evidence, judgement: Judgement, queries: Thumbnails, gallery: Thumbnails | None) -> CheckPage:
    """Put the page together; photos that cannot be shown are shown by their ids."""
    facts, links = evidence.facts, judgement.links
    waterfall, figures = page_figures(evidence, judgement)
    open_gates = sorted((g for g in judgement.gates if g.verdict is not Verdict.PASSED), key=lambda gate: gate.passed)
    notes = list(facts.notes)
    if judgement.shift is not None:
        notes.append(judgement.shift.words())
    refused = judgement.verdict is Verdict.UNDECIDED and not judgement.passed
    words = "Fail: not all decided, as was asked for" if refused else WORDS[judgement.verdict]
    return CheckPage(
        title=f"{Path(facts.artifact.path).name} in {Path(facts.index.path).name}",
        verdict=str(Verdict.FAILED if refused else judgement.verdict),
        words=words,
        open_gates=tuple(open_gates),
        waterfall=waterfall,
        links=links_table(links, facts.k, evidence.depth),
        link_texts=tuple((str(link.name), link.text) for link in links),
        notes=tuple(notes),
        findings=findings(evidence),
        gates=judgement.gates,
        figures=figures,
        groups=card_groups(evidence, links, Photos(queries, gallery)),
        cards_note=cards_note(evidence, links),
        latency=latency_rows(evidence),
        latency_note=facts.latency_note,
        facts=checked_facts(evidence),
    )


def render_check(page: CheckPage) -> str:
    """The HTML text; every value is escaped."""
    return fill(CHECK_PAGE, page=page)
