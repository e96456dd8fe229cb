"""The picture of what was retrieved: one PNG, a row a query, green frames around what both models found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from edgecsd.photos.finding import find_images
from edgecsd.report.drawing.picture import SHARED, Retrieved, retrieval_picture


def green(file: Path) -> int:
    pixels = np.asarray(Image.open(file).convert("RGB"), int)
    return int((np.abs(pixels - ImageColor.getrgb(SHARED)).max(axis=2) < 8).sum())


def test_picture(photos: Path, tmp_path: Path) -> None:
    images = find_images(photos)
    paths = [images.path(position) for position in range(9)]
    none = [Retrieved(paths[0], paths[1:4], paths[4:7]), Retrieved(paths[7], paths[1:4], paths[4:7])]
    both = [Retrieved(paths[0], paths[1:4], paths[1:4]), Retrieved(paths[7], paths[1:4], [*paths[4:6]])]
    for name, rows in (("none", none), ("both", both)):
        retrieval_picture(rows, tmp_path / f"{name}.png", title="found", query_model="x.tflite")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["both.png", "none.png"]
    assert green(tmp_path / "none.png") == 0 and green(tmp_path / "both.png") > 500
