"""Queries with the images that two models retrieve for them: the cards of the HTML page, and the same as a figure."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from edgecsd.errors import ImageReadError
from edgecsd.photos.decoding import read_image
from edgecsd.photos.images import ImageSet
from edgecsd.report.drawing.style import INK, MUTED, NEUTRAL, PAPER, RIGHT, WRONG, look, new_figure, printable

THUMBNAIL = 128  # pixels: the longer side
JPEG_QUALITY = 78  # 4 kB a thumbnail


class Mark(StrEnum):
    """What a retrieved image is; the value is the page's word for it."""

    RIGHT = "right"  # has the query's label
    WRONG = "wrong"
    SHARED = "found by both"  # without labels: among the first of both models
    ALONE = "found by this model only"

    @property
    def sign(self) -> str:
        """Told apart without colours: ticks against a cross or a ring."""
        return {Mark.RIGHT: "✓", Mark.SHARED: "✓", Mark.WRONG: "✗", Mark.ALONE: "○"}[self]

    @property
    def good(self) -> bool:
        return self in (Mark.RIGHT, Mark.SHARED)


@dataclass(frozen=True)
class Shown:
    """An image of the page: its id, maybe its label, JPEG bytes (None: not to be had) and, if retrieved, its mark."""

    item: str
    label: str | None = None
    thumbnail: bytes | None = None
    mark: Mark | None = None


@dataclass(frozen=True)
class Card:
    """A query, why it is shown, what it reached in words, and what each model ranks first, best first."""

    query: Shown
    group: str
    figures: str
    by_gallery_model: tuple[Shown, ...]
    by_query_model: tuple[Shown, ...]


class Thumbnails:
    """Small JPEGs of the photos that are shown, and of those only; each is read once.

    digests: of each id the SHA-256 of the encoded photo its features came from ("" if unknown). A photo that is not
    there, cannot be read or was changed has none; `problems` says why.
    """

    def __init__(self, images: ImageSet, digests: dict[str, str]) -> None:
        self._images, self._digests = images, digests
        self._position = {item: position for position, item in enumerate(images.ids)}
        self._made: dict[str, bytes | None] = {}
        self.problems: dict[str, str] = {}

    def of(self, item: str) -> bytes | None:
        if item not in self._made:
            self._made[item] = self._make(item)
        return self._made[item]

    @property
    def none_was_found(self) -> bool:
        """Photos were asked for, and not one could be shown."""
        return bool(self._made) and not any(self._made.values())

    def _make(self, item: str) -> bytes | None:
        if item not in self._position:
            self.problems[item] = f"{item} is not in {self._images.root}"
            return None
        try:
            image, digest = read_image(self._images.path(self._position[item]))
        except ImageReadError as error:
            self.problems[item] = str(error)
            return None
        if self._digests.get(item) not in ("", None, digest):
            self.problems[item] = f"{item} is not the photo that its features were extracted from"
            return None
        return thumbnail(image)


def thumbnail(image: Image.Image) -> bytes:
    """JPEG bytes of an RGB image, its longer side at most THUMBNAIL pixels; nothing of the file's EXIF goes along."""
    small = Image.fromarray(np.asarray(image))
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return stream.getvalue()


def retrieval_figure(cards: Sequence[Card]) -> Figure:
    """The cards as one figure: left the query, beside it the gallery model's images above the query model's."""
    depth = max([1, *(len(row) for card in cards for row in (card.by_gallery_model, card.by_query_model))])
    with look():
        figure = new_figure(1.9 * len(cards) + 0.4, width=0.88 * (depth + 2.4))
        for axes, card in zip(figure.subplots(len(cards), 1, squeeze=False)[:, 0], cards, strict=True):
            axes.set_axis_off()
            axes.set_xlim(-2.4, depth)
            axes.set_ylim(2.05, -0.3)
            axes.set_aspect("equal")
            _place(axes, card.query, -2.35, 0.35, 1.3)
            axes.text(-2.4, -0.12, f"{card.group}: {card.figures}", fontsize=8, color=INK)
            for row, images in enumerate((card.by_gallery_model, card.by_query_model)):
                name = ("gallery\nmodel", "query\nmodel")[row]
                axes.text(-0.12, row + 0.5, name, fontsize=8, color=MUTED, ha="right", va="center")
                for column, shown in enumerate(images):
                    _place(axes, shown, column, row, 0.92)
    return figure


def _place(axes: Axes, shown: Shown, left: float, top: float, side: float) -> None:
    """An image within the square at (left, top), framed by its mark; only its id where there is no photo."""
    if shown.thumbnail is not None:
        with Image.open(io.BytesIO(shown.thumbnail)) as image:
            pixels = np.asarray(image)
        height, width = (length * side / max(pixels.shape[:2]) for length in pixels.shape[:2])
        x, y = left + (side - width) / 2, top + (side - height) / 2
        axes.imshow(pixels, extent=(x, x + width, y + height, y), interpolation="none", aspect="auto")
    else:
        axes.text(
            left + side / 2,
            top + side / 2,
            printable(shown.item[-14:]),
            fontsize=5,
            ha="center",
            va="center",
            color=INK,
        )
    colour = NEUTRAL if shown.mark is None else RIGHT if shown.mark.good else WRONG
    style = "--" if colour == WRONG else "-"
    axes.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=colour, linestyle=style, linewidth=1.8))
    if shown.mark is not None:
        axes.text(
            left + 0.03,
            top + 0.03,
            shown.mark.sign,
            fontsize=8,
            color=PAPER,
            fontweight="bold",
            va="top",
            bbox={"boxstyle": "square,pad=0.12", "facecolor": colour, "edgecolor": "none"},
        )
