"""The one look of every figure: fonts, ink, and a palette that colour-blind readers can distinguish.

The palette is Okabe and Ito's ("Color Universal Design", 2008) without its yellow, which is too faint on white. Figures
are drawn for white paper; `dark` turns a figure's SVG into its dark twin by exchanging these very colours.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from edgecsd.errors import missing_extra

try:
    import matplotlib.style
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError:
    raise missing_extra("matplotlib", "report") from None

INK, MUTED, RULE, PAPER = "#1f2328", "#59636e", "#d8dee4", "#ffffff"
NEUTRAL = "#98a1ab"  # readable on white and on black: for points that stay as they are in the dark
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
GALLERY_MODEL, QUERY_MODEL = BLUE, VERMILLION
RIGHT, WRONG = GREEN, VERMILLION
MARKERS = ("o", "s", "^", "D", "v", "P")  # beside the colours, for those who see none
DARK_OF = {INK: "#e6edf3", MUTED: "#9ea7b3", RULE: "#343b44", PAPER: "#14181d", BLUE: "#4c9fe0", SKY: "#a3d4f5"}
WIDTH = 5.0  # inches: about as wide as a phone shows, so that 9 point text stays readable there
DOTS_PER_INCH = 150

_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "edgecsd",
}


def look() -> AbstractContextManager[None]:
    """The settings in force while a figure is drawn or saved; matplotlib's own are untouched afterwards."""
    return matplotlib.style.context(_SETTINGS, after_reset=True)


def new_figure(height: float, *, width: float = WIDTH) -> Figure:
    """An empty figure in this look, in inches. Use inside `look`."""
    return Figure(figsize=(width, height), layout="constrained")


def bare(axes: Axes) -> None:
    """Axes whose numbers mean nothing: no ticks, no grid, a thin frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=RULE)


def printable(text: str, most: int = 40) -> str:
    """Somebody's name for a thing, cut to `most` characters, without what no font and no SVG can hold."""
    clean = "".join(character if character.isprintable() else "?" for character in text)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def dark(svg: str) -> str:
    """The SVG text of a figure for a dark page."""
    for light, night in DARK_OF.items():
        svg = svg.replace(light, night)
    return svg
