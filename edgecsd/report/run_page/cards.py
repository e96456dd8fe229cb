"""From evidence to cards: the chosen queries with the images that each model retrieves, marked and with thumbnails."""

from __future__ import annotations

from collections.abc import Sequence

from edgecsd.report.drawing.retrieval_page import Card, Mark, Shown, Thumbnails
from edgecsd.report.run_page.compared import ComparedModels
from edgecsd.report.run_page.search import Choice


def make_cards(
    evidence: ComparedModels,
    choices: tuple[Choice, ...],
    query_photos: Thumbnails,
    gallery_photos: Thumbnails | None,
    *,
    depth: int,
) -> tuple[Card, ...]:
    """A card a choice. gallery_photos None: the retrieved images are shown by their ids alone."""
    cards = []
    for choice in choices:
        query = choice.query
        one, other = (found.rows[query][:depth] for found in (evidence.gallery_found, evidence.query_found))
        item = evidence.queries.items.ids[query]
        cards.append(
            Card(
                Shown(item, _label(evidence.queries.items.labels, query), query_photos.of(item)),
                str(choice.group),
                evidence.words(query),
                _retrieved(evidence, query, one, other, gallery_photos),
                _retrieved(evidence, query, other, one, gallery_photos),
            )
        )
    return tuple(cards)


def _retrieved(
    evidence: ComparedModels, query: int, rows: tuple[int, ...], others: tuple[int, ...], photos: Thumbnails | None
) -> tuple[Shown, ...]:
    items = evidence.gallery.items
    return tuple(
        Shown(
            items.ids[row],
            _label(items.labels, row),
            None if photos is None else photos.of(items.ids[row]),
            _mark(evidence, query, row, others),
        )
        for row in rows
    )


def _mark(evidence: ComparedModels, query: int, row: int, others: tuple[int, ...]) -> Mark:
    if evidence.by_label:
        return Mark.RIGHT if row in evidence.relevance[query].ok else Mark.WRONG
    return Mark.SHARED if row in others else Mark.ALONE


def _label(labels: Sequence[str] | None, row: int) -> str | None:
    return (labels[row] or None) if labels is not None else None


def cards_note(evidence: ComparedModels, *, depth: int, seed: int, photos: bool) -> str:
    """How the shown queries were chosen and what the marks mean."""
    lost = "average precision" if evidence.by_label else "overlap with the gallery model's results"
    parts = [
        f"A third of the shown queries lost most {lost} by the smaller model, a third lost least, and the others were "
        f"drawn evenly from those between (seed {seed}). Of each: the first {depth} of both models, best first; the "
        "query's own photo in the gallery is left out.",
        "Right: of the query's label."
        if evidence.by_label
        else f"There are no labels: marked is what both models have among their first {depth}.",
    ]
    if not photos:
        parts.append("Ids only, for the gallery's photos were not given (`gallery_images`).")
    return " ".join(parts)
