"""The figures of a check's page: the waterfall, and how cosine and overlap are spread over the queries."""

from __future__ import annotations

import io
import warnings

import numpy as np
from matplotlib.figure import Figure

from edgecsd.attribution import OVERLAP, LinkFigures
from edgecsd.evidence import Evidence
from edgecsd.gates import Judgement
from edgecsd.report.html import PageFigure
from edgecsd.report.plots import histogram
from edgecsd.report.style import GREEN, INK, MUTED, NEUTRAL, VERMILLION, look, new_figure

ROW_HEIGHT = 0.5  # inches a link takes


def waterfall_figure(links: tuple[LinkFigures, ...], k: int) -> Figure:
    """A bar a link, down from the first: grey what is left of overlap@k, red what the link lost, green what it gained.

    The whisker is the interval of the link's change against the link before it, drawn at the bar's end.
    """
    with look():
        figure = new_figure(0.8 + ROW_HEIGHT * len(links))
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
        axes.set_xlabel(f"overlap@{k} with the gallery model's own exact results")
    return figure


def _colour(change: float) -> str:
    return VERMILLION if change < 0 else GREEN


def page_figures(evidence: Evidence, judgement: Judgement) -> tuple[PageFigure, tuple[PageFigure, ...]]:
    """The waterfall, and the distributions."""
    links, k = judgement.links, evidence.facts.k
    said = "; ".join(f"{link.name} {link.figures[OVERLAP].mean:.3f}" for link in links)
    waterfall = PageFigure(
        "What each link loses", _svg(waterfall_figure(links, k)),
        "Each bar exchanges one thing against the bar above it; the line is the 95 % interval of that change, over the "
        "same queries.",
        f"Waterfall of overlap@{k}: {said}",
    )  # fmt: skip
    return waterfall, (_cosine(evidence), _overlap(links[-1], k))


def _cosine(evidence: Evidence) -> PageFigure:
    cosine = evidence.numerics.cosine[np.isfinite(evidence.numerics.cosine)]
    shown = cosine if len(cosine) else np.zeros(1)
    bottom = min(float(shown.min()), 0.999)
    edges = np.linspace(bottom - (1 - bottom) * 0.02, 1 + (1 - bottom) * 0.02, 26)
    broken = len(evidence.queries) - len(cosine)
    extra = f" {broken} embeddings are not finite and stand nowhere here." if broken else ""
    return PageFigure(
        "Cosine of the exported embedding to torch's", _svg(histogram(shown, edges=edges, x_label="cosine")),
        f"{len(cosine)} queries: mean {shown.mean():.5f}, lowest {shown.min():.5f}.{extra}",
        f"Histogram of cosines to torch, mean {shown.mean():.5f}",
    )  # fmt: skip


def _overlap(last: LinkFigures, k: int) -> PageFigure:
    overlap = last.values[OVERLAP]
    none, everything = int((overlap == 0).sum()), int((overlap == 1).sum())
    edges = (np.arange(12) - 0.5) / 10
    return PageFigure(
        f"overlap@{k} of what the app gets", _svg(histogram(overlap, edges=edges, x_label=f"overlap@{k}")),
        f"Of {len(overlap)} queries {everything} find all of what the gallery model finds, {none} nothing of it.",
        f"Histogram of overlap@{k}, mean {overlap.mean():.3f}",
    )  # fmt: skip


def _svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same figure."""
    stream = io.StringIO()
    with look(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a name in a script that the font lacks
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
