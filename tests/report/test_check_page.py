"""check.html: on its own, hostile names stay text, the verdict first, figures for every link, photos where they are."""

from __future__ import annotations

import sys
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import pytest
from figure_checks import PageReader

sys.path.insert(0, str(Path(__file__).parents[1]))
from saved_evidence import make_evidence

from edgecsd.evidence import Evidence, LinkName
from edgecsd.gate import judge
from edgecsd.gates import DEFAULT_THRESHOLDS, Judgement
from edgecsd.images import find_images
from edgecsd.report.check_page import make_page, render_check
from edgecsd.report.retrieval_page import Thumbnails

W8A8 = DEFAULT_THRESHOLDS["w8a8"]  # type: ignore[index]
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}.jpg"


@pytest.fixture(scope="module")
def evidence(photos: Path) -> Evidence:
    """Queries and gallery items that are real photos, but for one query of a hostile name; a bad index."""
    made = make_evidence({LinkName.INDEX: 3.0}, queries=24, gallery=120, threshold=0.5, notes=("a note",))
    ids = find_images(photos).ids
    gallery = {row: ids[row % 24] if row % 3 else HOSTILE for row in made.gallery}
    return replace(made, queries=(HOSTILE, *ids[1:]), gallery=gallery)


@pytest.fixture(scope="module")
def judgement(evidence: Evidence) -> Judgement:
    return judge(evidence, W8A8)


@pytest.fixture(scope="module")
def text(evidence: Evidence, judgement: Judgement, photos: Path) -> str:
    shown = [Thumbnails(find_images(photos), {}) for _ in range(2)]
    return render_check(make_page(evidence, judgement, *shown))


def test_the_page_asks_for_nothing_outside_itself(text: str) -> None:
    read = PageReader(text)
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert all(address.startswith("data:image/") for address in read.addresses) and len(read.addresses) > 20
    assert all(image["alt"] for image in read.images)
    assert "script" not in read.tags and "{{ 7 * 7 }}" in text and HOSTILE in read.text
    assert "default-src 'none'" in text and "width=device-width" in text


def test_the_verdict_comes_first_then_what_to_do(text: str) -> None:
    said = PageReader(text).text
    verdict = said.index("Fail: must not ship against this index")
    assert verdict < said.index("Where it is lost") < said.index("All gates") < said.index("What was checked")
    advice = next(place for place, each in enumerate(said) if "raise nprobe" in each)
    assert verdict < advice < said.index("Where it is lost")
    assert "a note" in said and any("at cosine 0.5 the gallery model accepts" in each for each in said)


def test_the_waterfall_has_every_link(text: str, judgement: Judgement) -> None:
    addresses = PageReader(text).addresses
    figures = [b64decode(each.split(",")[1]).decode() for each in addresses if each.startswith("data:image/svg")]
    assert len(figures) == 6  # three and their dark twins
    for link in judgement.links:
        assert f">{link.name}<" in figures[0] and f"{link.figures['overlap'].mean:.3f}" in figures[0]


def test_the_worst_queries_of_each_link_are_shown(text: str, judgement: Judgement) -> None:
    read = PageReader(text)
    worst = sum(len(link.worst) for link in judgement.links)
    assert worst >= 6 and read.tags.count("article") == worst
    assert read.text.count("should have been found (gallery model)") == worst
    assert "lost by the index" in read.text and len(read.images) > 5 * worst


def test_photos_that_are_not_there_are_shown_by_id(evidence: Evidence, judgement: Judgement, photos: Path) -> None:
    queries = Thumbnails(find_images(photos), {})
    read = PageReader(render_check(make_page(evidence, judgement, queries, None)))
    assert len(read.images) < 3 + sum(len(link.worst) for link in judgement.links) + 1
    assert any(each in read.text for each in evidence.gallery.values())


def test_a_passed_page_has_nothing_to_tell(photos: Path) -> None:
    evidence = make_evidence({LinkName.QUERY: 0.0, LinkName.FILE: 0.0, LinkName.INDEX: 0.0}, queries=20)
    page = make_page(evidence, judge(evidence, W8A8), Thumbnails(find_images(photos), {}), None)
    assert page.verdict == "passed" and not page.told and not page.cards
    assert "Pass: may ship against this index" in PageReader(render_check(page)).text
