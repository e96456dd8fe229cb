"""The figures of a check's page: the waterfall, how cosine and overlap are spread over the queries, the map."""

from __future__ import annotations

import io
import warnings

import numpy as np
from matplotlib.figure import Figure

from edgecsd.gate.evidence import Evidence
from edgecsd.gate.gates import Judgement
from edgecsd.gate.waterfall import OVERLAP, LinkFigures
from edgecsd.report.drawing.embedding_map import Distances, Points, map_figure
from edgecsd.report.drawing.html import PageFigure
from edgecsd.report.drawing.plots import histogram
from edgecsd.report.drawing.style import GREEN, INK, MUTED, NEUTRAL, VERMILLION, look, new_figure

ROW_HEIGHT = 0.5  # inches a link takes


def waterfall_figure(links: tuple[LinkFigures, ...], k: int) -> Figure:
    """A bar a link, down from the first: grey what is left of overlap@k, red what the link lost, green what it gained.

    The whisker is the interval of the link's change against the link before it, drawn at the bar's end.
    """
    with look():
        figure = new_figure(0.8 + ROW_HEIGHT * len(links), width=4.2)
        axes = figure.subplots()
        before = links[0].figures[OVERLAP].mean
        for row, link in enumerate(links):
            now = link.figures[OVERLAP].mean
            axes.barh(row, min(before, now), color=NEUTRAL, height=0.62)
            axes.barh(row, abs(now - before), left=min(before, now), height=0.62, color=_colour(now - before))
            if row:
                change = link.change[OVERLAP]
                axes.hlines(row, before + change.low, before + change.high, color=INK, linewidth=1.2)
            said = f"{now:.3f}" if not row else f"{now:.3f}  ({now - before:+.3f})"
            axes.annotate(said, (max(before, now), row), (4, 0), textcoords="offset points", va="center", fontsize=8)
            before = now
        axes.set_yticks(range(len(links)), [str(link.name) for link in links])
        axes.set_ylim(len(links) - 0.5, -0.5)
        axes.set_xlim(0, 1.32)
        axes.set_xticks(np.arange(0, 1.01, 0.25))
        axes.grid(visible=False, axis="y")
        axes.axvline(1.0, color=MUTED, linewidth=0.7)
        axes.set_xlabel(f"overlap@{k} with what the gallery model finds")
    return figure


def _colour(change: float) -> str:
    return VERMILLION if change < 0 else GREEN


def page_figures(evidence: Evidence, judgement: Judgement) -> tuple[PageFigure, tuple[PageFigure, ...]]:
    """The waterfall; the distributions and, where the evidence has it, the embedding map."""
    links, k = judgement.links, evidence.facts.k
    said = "; ".join(f"{link.name} {link.figures[OVERLAP].mean:.3f}" for link in links)
    waterfall = PageFigure(
        "What each link loses",
        _svg(waterfall_figure(links, k)),
        "Each bar exchanges one thing against the bar above it; the line is the 95 % interval of that change, over the "
        "same queries.",
        f"Waterfall of overlap@{k}: {said}",
    )
    drawn = (_cosine(evidence), _overlap(links[-1], k), _map(evidence))
    return waterfall, tuple(figure for figure in drawn if figure is not None)


def _cosine(evidence: Evidence) -> PageFigure:
    cosine = evidence.numerics.cosine[np.isfinite(evidence.numerics.cosine)]
    shown = cosine if len(cosine) else np.zeros(1)
    bottom = min(float(shown.min()), 0.999)
    edges = np.linspace(bottom - (1 - bottom) * 0.02, 1 + (1 - bottom) * 0.02, 26)
    broken = len(evidence.queries) - len(cosine)
    extra = f" {broken} embeddings are not finite and stand nowhere here." if broken else ""
    return PageFigure(
        "Cosine of the exported embedding to torch's",
        _svg(histogram(shown, edges=edges, x_label="cosine")),
        f"{len(cosine)} queries: mean {shown.mean():.5f}, lowest {shown.min():.5f}.{extra}",
        f"Histogram of cosines to torch, mean {shown.mean():.5f}",
    )


def _overlap(last: LinkFigures, k: int) -> PageFigure:
    overlap = last.values[OVERLAP]
    none, everything = int((overlap == 0).sum()), int((overlap == 1).sum())
    edges = (np.arange(12) - 0.5) / 10
    return PageFigure(
        f"overlap@{k} of what the app gets",
        _svg(histogram(overlap, edges=edges, x_label=f"overlap@{k}")),
        f"Of {len(overlap)} queries {everything} find all of what the gallery model finds, {none} nothing of it.",
        f"Histogram of overlap@{k}, mean {overlap.mean():.3f}",
    )


def _map(evidence: Evidence) -> PageFigure | None:
    """The queries' embeddings by the gallery model and by the file, joined, over the gallery; and true distances."""
    places = evidence.places
    if places is None:
        return None
    labels = evidence.query_labels
    shown = None if labels is None else tuple(labels[query] for query in places.queries)
    points = Points(places.gallery, places.by_gallery_model, places.by_file, shown)
    flat = np.concatenate([places.gallery, places.by_gallery_model, places.by_file])
    pair, nearest = evidence.numerics.to_gallery, evidence.links[0].scores[:, 0]
    known = np.isfinite(pair) & np.isfinite(nearest)
    distances = Distances.measure(pair[known], nearest[known])
    truth = (
        f"In the space itself a photo's two embeddings are {distances.pair:.3f} apart on average, and the nearest "
        f"other gallery image is {distances.nearest_other:.3f} from the gallery model's (Euclidean, unit vectors)."
    )
    return PageFigure(
        "Embedding map",
        _svg(map_figure(points, flat, other_name="this file")),
        f"{len(places.queries)} of {len(evidence.queries)} queries, a line from the gallery model's embedding to this "
        f"file's, over {len(places.gallery)} of {evidence.facts.index.count} gallery items. The two principal axes "
        f"hold {places.share:.0%} of the gallery model's variance, so the map is a shadow. {truth}",
        f"Scatter plot of two principal axes; lines join the two embeddings of each query. {truth}",
    )


def _svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same figure."""
    stream = io.StringIO()
    with look(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a name in a script that the font lacks
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
