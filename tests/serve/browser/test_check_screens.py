"""check.html in headless Chromium, on a phone and a desk, light and dark: nothing is cut off, faint or fetched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from devtools import Chromium
from saved_evidence import make_evidence
from screens import Screen, look, start

from edgecsd.gate.facts import DeviceFacts, Diagnosis, LatencyFacts, LinkName
from edgecsd.gate.judging import judge
from edgecsd.gate.thresholds import DEFAULT_THRESHOLDS
from edgecsd.photos.finding import find_images
from edgecsd.quantisation.precisions import Precision
from edgecsd.report.check_page.page import write_page
from edgecsd.report.drawing.retrieval_page import Thumbnails

PHONE, DESK = 390, 1280
LONG = "a_name_without_any_place_where_a_line_could_end_" * 3 + ".jpg"
LATENCY = LatencyFacts(
    device=f"Pixel 8a {LONG}",
    kind="measured",
    label="phone",
    threads=4,
    status="ok",
    p50_ms=12.345,
    p90_ms=1234.5678,
    peak_mb=123.4,
    contended=True,
    cosine_mean=0.99321,
    cosine_min=0.98111,
    protocol="report",
    source="bench.jsonl",
    measured_at="2026-11-24T00:00:00+00:00",
)
FAILED_ROW = LATENCY.model_copy(
    update={"status": "failed", "reason": f"the runtime ended: {LONG}", "p50_ms": None, "p90_ms": None}
)
DEVICE = DeviceFacts(path=f"devices/{LONG}", cosine_mean=0.82, cosine_min=0.5, norm_error=1e-7, misplaced=0.02)
SWAPPED = Diagnosis(link=LinkName.DEVICE, mistake="channels swapped (BGR for RGB)", cosine=0.99, without=0.78)


@pytest.fixture(scope="module")
def page(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that a page can show, over real photos: 240 queries, every link at a loss, labels, a long name."""
    made = make_evidence(
        {LinkName.FP32: 0.3, LinkName.FILE: 0.5, LinkName.INDEX: 1.0},
        queries=240,
        threshold=0.5,
        notes=(f"a note on {LONG}",),
        latency=(LATENCY, FAILED_ROW),
        latency_note="2 rows of others are not shown",
        device=DEVICE,
        diagnoses=(SWAPPED,),
    )
    ids = find_images(photos).ids
    gallery = {row: ids[row % 24] if row % 9 else LONG for row in made.gallery}
    labels = tuple("abcde"[query % 5] for query in range(240))
    evidence = replace(
        made,
        queries=tuple(ids[query % 24] for query in range(240)),
        gallery=gallery,
        query_labels=labels,
        gallery_labels={row: "abcde"[row % 5] for row in gallery},
        relevant=made.links[0].rows[:, 0] * 0 + 80,
    )
    file = tmp_path_factory.mktemp("page") / "check.html"
    images = find_images(photos)
    write_page(
        file,
        evidence,
        judge(evidence, DEFAULT_THRESHOLDS[Precision.W8A8]),
        Thumbnails(images, {}),
        Thumbnails(images, {}),
    )
    return file


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with start(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def screens(browser: Chromium, page: Path) -> dict[tuple[int, str], Screen]:
    return {
        (width, scheme): look(browser, page, page.parent / f"{width}-{scheme}.png", width=width, scheme=scheme)
        for width in (PHONE, DESK)
        for scheme in ("light", "dark")
    }


EVERY = pytest.mark.parametrize(("width", "scheme"), [(w, s) for w in (PHONE, DESK) for s in ("light", "dark")])


@EVERY
def test_nothing_is_cut_off(screens: dict[tuple[int, str], Screen], width: int, scheme: str) -> None:
    found = screens[width, scheme].found
    assert found["inner"] == width and found["width"] <= width and found["wide"] == [] and found["cut"] == 0


@EVERY
def test_every_image_is_there_and_nothing_is_fetched(
    screens: dict[tuple[int, str], Screen], width: int, scheme: str
) -> None:
    screen = screens[width, scheme]
    assert screen.found["images"] > 100 and screen.found["broken"] == []
    assert screen.requests == () and screen.complaints == ()


@EVERY
def test_text_can_be_read(screens: dict[tuple[int, str], Screen], width: int, scheme: str) -> None:
    found = screens[width, scheme].found
    assert found["texts"] > 200 and found["faint"] == []


@EVERY
def test_something_is_drawn_in_the_asked_for_scheme(
    screens: dict[tuple[int, str], Screen], width: int, scheme: str
) -> None:
    screen = screens[width, scheme]
    assert screen.colours > 2000
    assert (screen.found["paper"] > 0.9) if scheme == "light" else (screen.found["paper"] < 0.05)


def test_figures_have_a_dark_twin(screens: dict[tuple[int, str], Screen]) -> None:
    light, dark = (screens[PHONE, scheme].found["shown"] for scheme in ("light", "dark"))
    assert len(light) == len(dark) > 100
    assert [one != other for one, other in zip(light, dark, strict=True)] == [True] * 4 + [False] * (len(light) - 4)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("verdict", "lost"), [("passed", 0.0), ("undecided", 0.1)])
def test_every_verdict_can_be_read(
    browser: Chromium, photos: Path, tmp_path: Path, verdict: str, lost: float, scheme: str
) -> None:
    evidence = make_evidence({LinkName.QUERY: 0.0, LinkName.FILE: 0.0, LinkName.INDEX: lost}, queries=30)
    judgement = judge(evidence, DEFAULT_THRESHOLDS[Precision.W8A8])
    assert str(judgement.verdict) == verdict
    write_page(tmp_path / "page.html", evidence, judgement, Thumbnails(find_images(photos), {}), None)
    screen = look(browser, tmp_path / "page.html", tmp_path / "page.png", width=PHONE, scheme=scheme)
    assert screen.found["faint"] == [] and screen.found["wide"] == [] and screen.found["texts"] > 50


def test_the_page_stays_small(page: Path) -> None:
    assert 300_000 < page.stat().st_size < 3_000_000


def test_a_bad_page_is_caught(browser: Chromium, tmp_path: Path) -> None:
    """Every measure above can fail."""
    (tmp_path / "bad.html").write_text(
        '<meta name="viewport" content="width=device-width"><body style="background:#fff">'
        '<p style="color:#999">faint</p><div style="width:3000px">wide</div><img src="none.png" alt="gone">'
        '<div class="scroll" style="overflow:auto"><div style="width:2000px">cut</div></div>'
        "<script>console.error('wrong'); undefined.x</script>"
    )
    screen = look(browser, tmp_path / "bad.html", tmp_path / "bad.png", width=PHONE, scheme="light")
    found = screen.found
    assert found["width"] > PHONE and found["wide"] and found["cut"] == 1 and found["broken"] == ["gone"]
    assert [each[2] for each in found["faint"]] == ["faint"] and screen.colours < 500
    assert screen.requests == ((tmp_path / "none.png").as_uri(),) and len(screen.complaints) >= 2
