"""The worst queries of each link of a check, as images: what should have been found beside what was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecsd.gate.evidence import Evidence
from edgecsd.gate.facts import LinkName
from edgecsd.gate.waterfall import OVERLAP, LinkFigures
from edgecsd.report.drawing.retrieval_page import Card, Mark, Shown, Thumbnails

SHOWN = 6  # images of a strip
LEGEND = ((Mark.SHARED.sign, "in both lists", True), (Mark.ALONE.sign, "in this list only", False))


@dataclass(frozen=True)
class CardGroup:
    """A link with the queries that lost most by it, the worst first."""

    title: str
    text: str  # what the link exchanges, and what that changed
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Photos:
    """Thumbnails of the queries and of the gallery; None: what is found is shown by its ids."""

    queries: Thumbnails
    gallery: Thumbnails | None


def card_groups(evidence: Evidence, links: tuple[LinkFigures, ...], photos: Photos) -> tuple[CardGroup, ...]:
    """A group for every link by which a query lost anything, in the order of the waterfall."""
    groups = []
    for number, link in enumerate(links[1:], 1):
        change = link.change[OVERLAP]
        said = f"{link.text}: overlap@{evidence.facts.k} {change.mean:+.3f} on average"
        cards = tuple(_card(evidence, links, number, query, photos) for query in link.worst)
        if cards:
            groups.append(CardGroup(f"Lost by {_named(link.name)}", said, cards))
    return tuple(groups)


def _named(link: LinkName) -> str:
    return str(link) if link is LinkName.FILE else f"the {link}"


def cards_note(evidence: Evidence, links: tuple[LinkFigures, ...]) -> str:
    """What the strips show, and which links have none."""
    k = evidence.facts.k
    said = (
        f"Of each query {SHOWN} of the first {k} are shown with ranks: above, what the gallery model finds, those "
        "that are missed before the others; below, what was found. The query's own photo in the gallery is left out."
    )
    free = [str(link.name) for link in links[1:] if not link.worst]
    return said + (f" No query lost anything by: {', '.join(free)}." if free else "")


def _card(evidence: Evidence, links: tuple[LinkFigures, ...], number: int, query: int, photos: Photos) -> Card:
    k = evidence.facts.k
    wanted, found = (evidence.links[link].rows[query, :k] for link in (0, number))
    before, now = (links[link].values[OVERLAP][query] for link in (number - 1, number))
    item = evidence.queries[query]
    label = evidence.query_labels[query] if evidence.query_labels is not None else None
    missed = ~np.isin(wanted, found)
    return Card(
        Shown(item, label or None, photos.queries.of(item)),
        str(links[number].name),
        f"overlap@{k} {before:.2f} → {now:.2f}",
        _strip(evidence, wanted, first_ones(missed), set(found.tolist()), photos.gallery),
        _strip(evidence, found, range(min(SHOWN, len(found))), set(wanted.tolist()), photos.gallery),
    )


def first_ones(missed: NDArray[np.bool_]) -> list[int]:
    """At most SHOWN ranks (from 0), rising: those missed first, so that a loss is seen, then the best of the others."""
    order = np.argsort(~missed, kind="stable")[:SHOWN]
    return sorted(int(rank) for rank in order)


def _strip(
    evidence: Evidence, rows: NDArray[np.int64], ranks: Sequence[int], others: set[int], gallery: Thumbnails | None
) -> tuple[Shown, ...]:
    shown = []
    for rank in ranks:
        row = int(rows[rank])
        if row < 0:
            continue
        item, labels = evidence.gallery[row], evidence.gallery_labels
        said = (labels.get(row) if labels is not None else None) or item
        mark = Mark.SHARED if row in others else Mark.ALONE
        shown.append(Shown(item, f"{rank + 1}  {said}", None if gallery is None else gallery.of(item), mark))
    return tuple(shown)
