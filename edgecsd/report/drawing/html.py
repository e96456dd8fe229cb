"""The report's one HTML file: text, figures and thumbnails in it, nothing outside it.

Ids come from file names, and anybody can name a file `<script>.jpg`: jinja2 escapes every value, and the page's own
content security policy lets no script run and nothing be fetched.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgecsd.errors import missing_extra
from edgecsd.report.drawing.parts import page
from edgecsd.report.drawing.retrieval_page import Card
from edgecsd.report.drawing.style import dark

try:
    from jinja2 import Environment, StrictUndefined
except ImportError:
    raise missing_extra("jinja2", "report") from None


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page. caption: what it means; alternative: what it shows, for those who cannot see it."""

    title: str
    svg: str  # the file's text
    caption: str
    alternative: str


@dataclass(frozen=True)
class Section:
    """A heading with its figures."""

    title: str
    figures: tuple[PageFigure, ...]


@dataclass(frozen=True)
class Page:
    """All that the HTML shows. table: rows of cells, the header first; facts: (name, value) pairs at the end."""

    title: str
    summary: str
    table: tuple[tuple[str, ...], ...]
    table_note: str
    cards: tuple[Card, ...]
    cards_note: str
    sections: tuple[Section, ...]
    facts: tuple[tuple[str, str], ...]


def render(page: Page) -> str:
    """The HTML text."""
    return fill(PAGE, page=page, legend=_legend(page.cards))


def fill(template: str, **values: Any) -> str:
    """Fill a jinja2 template (parts.py); every value is escaped, and a missing one is an error."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(jpeg=_jpeg, svg=_svg, dark=dark)
    return environment.from_string(template).render(**values)


def _jpeg(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _svg(text: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}"


def _legend(cards: Sequence[Card]) -> tuple[tuple[str, str, bool], ...]:
    """(sign, word, good) of every mark that the cards use."""
    used = {
        shown.mark
        for card in cards
        for shown in (*card.by_gallery_model, *card.by_query_model)
        if shown.mark is not None
    }
    return tuple((mark.sign, str(mark), mark.good) for mark in sorted(used, key=lambda mark: (not mark.good, mark)))


PAGE = page("""<header>
<h1>{{ page.title }}</h1>
<p>{{ page.summary }}</p>
</header>
<main>
{{ table(page.table) }}
<p class="muted">{{ page.table_note }}</p>
<section>
<h2>Queries and what is retrieved</h2>
<p class="muted">{{ page.cards_note }}</p>
{{ draw_legend(legend) }}
<div class="cards">
{% for card in page.cards %}
{{ draw_card(card, "gallery model", "query model") }}
{% endfor %}
</div>
</section>
{% for section in page.sections %}
<section>
<h2>{{ section.title }}</h2>
<div class="figures">
{% for figure in section.figures %}{{ draw(figure) }}{% endfor %}
</div>
</section>
{% endfor %}
<section>
<h2>How this was made</h2>
{{ draw_facts(page.facts) }}
</section>
</main>
""")
