"""embed_images: order, parts, and what happens to the decoding threads when the work stops."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from doubles import PixelGallery
from PIL import Image

from edgecsd.embedding import embed_images
from edgecsd.errors import BadInputError
from edgecsd.features import FeatureStore
from edgecsd.files import Parts
from edgecsd.images import find_images
from edgecsd.preprocess import Preprocess
from edgecsd.views import ViewRecipe


class SlowPixels(Preprocess):
    """A contract that takes its time, and counts."""

    def pixels(self, image: Image.Image) -> np.ndarray:
        CALLS.append(1)
        time.sleep(0.05)
        return super().pixels(image)


CALLS: list[int] = []


class Embedder(PixelGallery):
    dim = 16


class Interrupted(Embedder):
    def embed(self, pixels: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [KeyboardInterrupt, BadInputError])
def test_what_waits_is_not_decoded_after_an_interruption(
    stop: type[BaseException], photos: Path, tmp_path: Path
) -> None:
    embedder = Interrupted()
    embedder.preprocess = SlowPixels(size=32)
    source = photos
    if stop is BadInputError:  # --strict and a first photo that cannot be read
        source = tmp_path
        (source / "0.jpg").write_bytes(b"nonsense")
        for number, item in enumerate(find_images(photos).ids):
            (source / f"{number + 1}.jpg").write_bytes((photos / item).read_bytes())
    CALLS.clear()
    with pytest.raises(stop):
        embed_images(find_images(source), embedder, batch_size=2, workers=1, strict=True)
    after = len(CALLS)
    assert after < 12
    time.sleep(0.3)
    assert len(CALLS) == after  # no thread goes on


@pytest.mark.parametrize("batch_size", [1, 5, 16, 100])
def test_batches_change_nothing(batch_size: int, photos: Path, pixel_store: FeatureStore) -> None:
    recipe = ViewRecipe(count=2, seed=3)
    embedded = embed_images(find_images(photos), Embedder(), recipe=recipe, batch_size=batch_size, workers=2)
    assert embedded.kept == list(range(24)) and embedded.problems == {}
    assert tuple(embedded.digests) == pixel_store.items.digests
    np.testing.assert_allclose(embedded.vectors, pixel_store.view_vectors(), atol=1e-3)


def test_parts_hold_what_one_call_gives(photos: Path, tmp_path: Path) -> None:
    images = find_images(photos)
    whole = embed_images(images, Embedder())
    parts = Parts(tmp_path / "x", {})
    with pytest.raises(KeyboardInterrupt):
        embed_images(images, Interrupted(), parts=parts, part_items=7)
    first = embed_images(images.subset(range(24)), Embedder(), parts=parts, part_items=7)
    again = embed_images(images, Interrupted(), parts=parts, part_items=7)  # all parts are there: nothing is embedded
    np.testing.assert_array_equal(first.vectors, whole.vectors)
    np.testing.assert_array_equal(again.vectors, whole.vectors)
    assert again.digests == whole.digests


def test_unusable_settings(photos: Path) -> None:
    with pytest.raises(BadInputError, match="batch size 0, workers None: 1 or more is needed"):
        embed_images(find_images(photos), Embedder(), batch_size=0)
    with pytest.raises(BadInputError, match="workers 0"):
        embed_images(find_images(photos), Embedder(), workers=0)
