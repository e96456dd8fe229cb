"""A picture of queries with what the gallery model and another model retrieve for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import missing_extra
from edgecsd.files.whole import replace_whole
from edgecsd.photos.decoding import read_image

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError:
    raise missing_extra("matplotlib", "report") from None

SHARED, OTHER = "#1a9850", "#bbbbbb"
THUMBNAIL = 160  # pixels: the longer side of a photo in the picture


@dataclass(frozen=True)
class Retrieved:
    """One query and the photos that each model ranks first, best first."""

    query: Path
    by_gallery_model: Sequence[Path]
    by_query_model: Sequence[Path]


def retrieval_picture(rows: Sequence[Retrieved], out: Path, *, title: str, query_model: str) -> None:
    """Write a PNG: a row a query; a green frame marks a photo that both models retrieved."""
    depth = max(len(row.by_gallery_model) for row in rows)
    columns = 2 * depth + 2
    figure = Figure(figsize=(1.15 * columns, 1.15 * len(rows) + 0.8), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, row in zip(axes, rows, strict=True):
        _show(line[0], row.query, "#2166ac")
        shared = set(row.by_gallery_model) & set(row.by_query_model)
        for offset, photos in ((1, row.by_gallery_model), (depth + 2, row.by_query_model)):
            for column, photo in enumerate(photos):
                _show(line[offset + column], photo, SHARED if photo in shared else OTHER)
    axes[0][0].set_title("query", fontsize=9)
    axes[0][1].set_title("the gallery model finds", fontsize=9, loc="left")
    axes[0][depth + 2].set_title(f"{query_model} finds", fontsize=9, loc="left")
    figure.suptitle(f"{title}\ngreen: found by both", fontsize=10)
    with replace_whole(out) as temporary:
        figure.savefig(temporary, dpi=130)


def _show(axis: Axes, photo: Path, colour: str) -> None:
    image, _ = read_image(photo)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    pixels: NDArray[np.uint8] = np.asarray(image)
    axis.imshow(pixels)
    axis.set_axis_on()
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=3)
