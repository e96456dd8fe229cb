"""The page: hostile names stay text, nothing outside is asked for, every picture has words."""

from __future__ import annotations

from figure_checks import PageReader
from PIL import Image

from edgecsd.report.drawing.html import Page, PageFigure, Section, render
from edgecsd.report.drawing.retrieval_page import Card, Mark, Shown, thumbnail
from edgecsd.report.drawing.style import BLUE, DARK_OF

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}.jpg"
JPEG = thumbnail(Image.new("RGB", (400, 100), "red"))
SVG = f'<svg xmlns="http://www.w3.org/2000/svg"><path stroke="{BLUE}"/></svg>'


def page(photo: bytes | None = JPEG) -> Page:
    images = (Shown(HOSTILE, HOSTILE, photo, Mark.RIGHT), Shown("b.jpg", None, photo, Mark.WRONG))
    card = Card(Shown(HOSTILE, HOSTILE, JPEG), "lost most", "AP 0.90 → 0.40", images, images[::-1])
    section = Section(HOSTILE, (PageFigure(HOSTILE, SVG, HOSTILE, HOSTILE),))
    rows = (("", "mAP"), ("query model", "0.701 [0.667, 0.733]"))
    return Page(HOSTILE, HOSTILE, rows, "note", (card,), "chosen", (section,), ((HOSTILE, HOSTILE),))


def test_hostile_names_stay_text() -> None:
    text = render(page())
    read = PageReader(text)
    assert "script" not in read.tags and "{{ 7 * 7 }}" in text and "onerror" not in str([*map(dict.keys, read.images)])
    assert read.tags.count("img") == 1 + 4 + 1 and HOSTILE in read.text
    assert f"query {HOSTILE}" in [image["alt"] for image in read.images]


def test_the_page_asks_for_nothing_outside_itself() -> None:
    text = render(page())
    assert "http://" not in text and "https://" not in text and "url(" not in text and "@import" not in text
    read = PageReader(text)
    assert len(read.addresses) == 7 and all(address.startswith("data:image/") for address in read.addresses)
    assert all(image["alt"] for image in read.images)
    assert "default-src 'none'" in text and "width=device-width" in text


def test_figures_have_a_dark_twin() -> None:
    from base64 import b64decode

    twin, figure = PageReader(render(page())).addresses[-2:]
    assert b64decode(figure.split(",")[1]).decode() == SVG
    assert b64decode(twin.split(",")[1]).decode() == SVG.replace(BLUE, DARK_OF[BLUE])


def test_without_photos_the_ids_are_shown() -> None:
    read = PageReader(render(page(photo=None)))
    assert read.tags.count("img") == 2 and read.text.count("b.jpg") == 2


def test_marks_have_signs_and_a_legend() -> None:
    read = PageReader(render(page()))
    assert read.text.count("✓") == read.text.count("✗") == 3  # two strips and the legend
    assert {"right", "wrong"} <= set(read.text) and "[0.667, 0.733]" in read.text
    assert len({mark.sign for mark in (Mark.RIGHT, Mark.WRONG)}) == len(
        {mark.sign for mark in (Mark.SHARED, Mark.ALONE)}
    )
