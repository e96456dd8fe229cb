"""check.html: on its own, hostile names stay text, the verdict first, figures for every link, photos where they are."""

from __future__ import annotations

import sys
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from figure_checks import PageReader

sys.path.insert(0, str(Path(__file__).parents[1]))
from saved_evidence import make_evidence

from edgecsd.gate.evidence import Evidence
from edgecsd.gate.facts import DeviceFacts, Diagnosis, LatencyFacts, LinkName
from edgecsd.gate.gates import Judgement
from edgecsd.gate.judging import judge
from edgecsd.gate.thresholds import DEFAULT_THRESHOLDS
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.report.check_page.cards import Photos, card_groups
from edgecsd.report.check_page.figures import page_figures
from edgecsd.report.check_page.page import make_page, render_check
from edgecsd.report.check_page.tables import findings
from edgecsd.report.drawing.retrieval_page import Mark, Thumbnails

W8A8 = DEFAULT_THRESHOLDS["w8a8"]  # type: ignore[index]
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}.jpg"


@pytest.fixture(scope="module")
def evidence(photos: Path) -> Evidence:
    """Queries and gallery items that are real photos, but for one query of a hostile name; a bad index."""
    noise = {LinkName.FILE: 0.3, LinkName.INDEX: 3.0}
    made = make_evidence(noise, queries=24, gallery=120, threshold=0.5, notes=("a note",))
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
    assert len(figures) == 8  # four and their dark twins
    for link in judgement.links:
        assert f">{link.name}<" in figures[0] and f"{link.figures['overlap'].mean:.3f}" in figures[0]


def test_the_worst_queries_of_each_link_are_shown(
    text: str, evidence: Evidence, judgement: Judgement, photos: Path
) -> None:
    read = PageReader(text)
    worst = sum(len(link.worst) for link in judgement.links)
    assert worst >= 6 and read.tags.count("article") == worst
    assert read.text.count("should have been found (gallery model)") == worst
    assert "Lost by the index" in read.text and "Lost by this file" in read.text and len(read.images) > 5 * worst
    shown = Thumbnails(find_images(photos), {})
    groups = card_groups(evidence, judgement.links, Photos(shown, shown))
    assert [len(group.cards) for group in groups] == [len(link.worst) for link in judgement.links if link.worst]


def test_what_was_missed_is_among_what_is_shown(evidence: Evidence, judgement: Judgement) -> None:
    """However deep in the first ten it stood; the marks and ranks are those of the two lists."""
    shown = Thumbnails(find_images_of_none(), {})
    for number, link in enumerate(judgement.links[1:], 1):
        group = card_groups(evidence, judgement.links[: number + 1], Photos(shown, None))
        for card, query in zip(group[-1].cards if link.worst else (), link.worst, strict=True):
            wanted, found = (evidence.links[each].rows[query, :10].tolist() for each in (0, number))
            missed = [rank for rank, row in enumerate(wanted) if row not in found]
            ranks = [int((each.label or "").split()[0]) - 1 for each in card.by_gallery_model]
            assert ranks == sorted(ranks) and len(ranks) == 6 and set(missed[:6]) <= set(ranks)
            for rank, each in zip(ranks, card.by_gallery_model, strict=True):
                assert each.item == evidence.gallery[wanted[rank]]
                assert (each.mark is Mark.ALONE) == (rank in missed)
            assert [each.item for each in card.by_query_model] == [evidence.gallery[row] for row in found[:6]]


def find_images_of_none() -> ImageSet:
    return ImageSet(Path("nowhere"), ("none.jpg",))


def test_a_link_that_loses_nothing_is_named(photos: Path) -> None:
    evidence = make_evidence({LinkName.INDEX: 0.5}, queries=40)
    page = make_page(evidence, judge(evidence, W8A8), Thumbnails(find_images(photos), {}), None)
    assert page.cards_note.endswith("No query lost anything by: fp32 export.")
    assert [group.title for group in page.groups] == [
        "Lost by the query model",
        "Lost by this file",
        "Lost by the index",
    ]


def test_the_map_joins_the_two_embeddings_of_each_query(evidence: Evidence, judgement: Judgement, text: str) -> None:
    _, figures = page_figures(evidence, judgement)
    drawn = figures[-1]
    assert drawn.title == "Embedding map" and ">this file<" in drawn.svg and ">gallery model<" in drawn.svg
    assert "24 of 24 queries" in drawn.caption and "over 120 of 120 gallery items" in drawn.caption
    pair = np.sqrt(2 - 2 * evidence.numerics.to_gallery).mean()
    assert f"two embeddings are {pair:.3f} apart" in drawn.caption and drawn.caption in PageReader(text).text
    _, without = page_figures(replace(evidence, places=None), judgement)
    assert [figure.title for figure in without] == [figure.title for figure in figures[:-1]]


def test_latency_says_what_it_is(evidence: Evidence, judgement: Judgement, photos: Path) -> None:
    row = LatencyFacts(
        device="Pixel 8a",
        kind="emulated",
        label="a label",
        threads=4,
        status="ok",
        p50_ms=4.256,
        p90_ms=5.5,
        peak_mb=99.6,
        contended=True,
        cosine_mean=0.9912345,
        cosine_min=0.98,
        protocol="report",
        source="b.jsonl",
        measured_at="2026-11-24T00:00:00+00:00",
    )
    host = row.model_copy(update={"kind": "measured", "device": "host", "contended": False})
    failed = row.model_copy(update={"status": "failed", "reason": HOSTILE, "p50_ms": None, "p90_ms": None})
    facts = evidence.facts.model_copy(update={"latency": (failed, row, host), "latency_note": "3 others"})
    page = make_page(replace(evidence, facts=facts), judgement, Thumbnails(find_images(photos), {}), None)
    assert [(each.device, each.about.split(",")[0]) for each in page.latency] == [
        ("host", "measured"),
        ("Pixel 8a", "emulated"),
        ("Pixel 8a", "emulated"),
    ]
    assert page.latency[0].cells == ("4", "4.26", "5.50", "100", "0.99123 [lowest 0.98000]")
    assert "the machine was busy" in page.latency[1].about and "the machine was busy" not in page.latency[0].about
    read = PageReader(render_check(page))
    assert "4.26" in read.text and "3 others" in read.text and f"failed: {HOSTILE}" in read.text
    assert "script" not in read.tags


def test_what_explains_a_link_and_a_device_is_told(evidence: Evidence, judgement: Judgement, photos: Path) -> None:
    swapped = Diagnosis(link=LinkName.DEVICE, mistake="channels swapped", cosine=0.99, without=0.5)
    doubtful = Diagnosis(link=LinkName.FILE, mistake="cropped", cosine=0.7, without=None, whole=False)
    device = DeviceFacts(path="device.npz", cosine_mean=0.82, cosine_min=None, norm_error=None, misplaced=0.25)
    facts = evidence.facts.model_copy(update={"diagnoses": (swapped, doubtful), "device": device})
    found = dict(findings(replace(evidence, facts=facts)))
    assert found["What explains the device"].startswith("channels swapped: cosine 0.9900")
    assert found["What is most like this file"].endswith("not finite without it")
    assert found["Their cosine to this machine's"] == "mean 0.82000, lowest not finite"
    assert found["Those that are another photo's"] == "25.0%" and found["Largest error of their length"] == "not finite"
    page = make_page(replace(evidence, facts=facts), judgement, Thumbnails(find_images(photos), {}), None)
    assert "device.npz" in PageReader(render_check(page)).text
    assert findings(evidence) == ()


def test_photos_that_are_not_there_are_shown_by_id(evidence: Evidence, judgement: Judgement, photos: Path) -> None:
    queries = Thumbnails(find_images(photos), {})
    read = PageReader(render_check(make_page(evidence, judgement, queries, None)))
    assert len(read.images) <= 4 + sum(len(link.worst) for link in judgement.links)
    assert any(each in read.text for each in evidence.gallery.values())


def test_a_passed_page_has_nothing_to_tell(photos: Path) -> None:
    evidence = make_evidence({LinkName.QUERY: 0.0, LinkName.FILE: 0.0, LinkName.INDEX: 0.0}, queries=20)
    page = make_page(evidence, judge(evidence, W8A8), Thumbnails(find_images(photos), {}), None)
    assert page.verdict == "passed" and not page.open_gates and not page.groups
    assert "Pass: may ship against this index" in PageReader(render_check(page)).text
