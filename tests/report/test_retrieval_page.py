"""Thumbnails of the shown photos alone, and the figure of queries with what is retrieved."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
from figure_checks import ink
from PIL import Image

from edgecsd.features.store import FeatureStore
from edgecsd.photos.finding import find_images
from edgecsd.report.drawing.plots import save
from edgecsd.report.drawing.retrieval_page import THUMBNAIL, Card, Mark, Shown, Thumbnails, retrieval_figure, thumbnail


def test_thumbnails_are_small_and_look_like_the_photo(photo: Image.Image) -> None:
    data = thumbnail(photo)
    with Image.open(io.BytesIO(data)) as small:
        assert small.format == "JPEG" and max(small.size) == THUMBNAIL and len(small.getexif()) == 0
        assert abs(small.width / small.height - photo.width / photo.height) < 0.01
        difference = np.asarray(small, float) - np.asarray(photo.resize(small.size), float)
    assert np.abs(difference).mean() < 8 and len(data) < 12_000
    with Image.open(io.BytesIO(thumbnail(Image.new("RGB", (20, 10))))) as tiny:
        assert tiny.size == (20, 10)


def test_what_cannot_be_shown_is_told(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    ids = find_images(folder).ids
    shutil.copy(folder / ids[1], folder / ids[2])
    (folder / ids[3]).write_bytes(b"nonsense")
    digests = dict(zip(pixel_store.items.ids, pixel_store.items.digests, strict=True))
    shown = Thumbnails(find_images(folder), digests)
    assert [shown.of(item) is not None for item in (*ids[:4], "none.jpg")] == [True, True, False, False, False]
    assert list(shown.problems) == [ids[2], ids[3], "none.jpg"] and not shown.none_was_found
    assert "is not the photo that its features were extracted from" in shown.problems[ids[2]]
    assert "cannot be decoded" in shown.problems[ids[3]] and "is not in" in shown.problems["none.jpg"]
    shown.of(ids[2])
    assert len(shown.problems) == 3
    nothing = Thumbnails(find_images(folder), {})
    assert not nothing.none_was_found
    nothing.of("none.jpg")
    assert nothing.none_was_found


def test_the_figure_frames_what_is_right_and_wrong(photo: Image.Image, tmp_path: Path) -> None:
    data = thumbnail(photo)
    right, wrong = Shown("a/right.jpg", "a", data, Mark.RIGHT), Shown("b/wrong.jpg", "b", None, Mark.WRONG)
    card = Card(Shown("q.jpg", "a", data), "lost most", "AP 1.00 → 0.50", (right, right), (right, wrong))
    figure = retrieval_figure([card, card])
    assert len(figure.axes) == 2
    signs = [text.get_text() for text in figure.axes[0].texts]
    assert signs.count("✓") == 3 and signs.count("✗") == 1 and "b/wrong.jpg" in signs
    assert len(figure.axes[0].images) == 4 and len(figure.axes[0].patches) == 5
    png, svg = save(figure, tmp_path / "retrieval")
    assert ink(png) > 0.1 and "lost most: AP 1.00 → 0.50" in svg.read_text()
