"""embed_images: order, parts, and what happens to the decoding threads when the work stops."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from doubles import PixelGallery
from PIL import Image

from edgecsd.errors import BadInputError
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import Parts
from edgecsd.models.embedding import BATCH_PIXELS, _ahead, embed_images
from edgecsd.photos.boxes import Box
from edgecsd.photos.contract import Preprocess, Resize
from edgecsd.photos.finding import find_images


class SlowPixels(Preprocess):
    """A contract that takes its time, and counts."""

    def pixels(self, image: Image.Image, scale: float = 1.0) -> np.ndarray:
        CALLS.append(1)
        time.sleep(0.05)
        return super().pixels(image, scale)


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
    recipe = pixel_store.views
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


class AnyShape:
    """Embeds images of any one shape a batch as their side lengths and mean colour, and notes the batches."""

    dim = 5

    def __init__(self, size: int) -> None:
        self.preprocess = Preprocess(size=size, resize=Resize.LONGER_SIDE)
        self.batches: list[tuple[int, ...]] = []

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(pixels.shape)
        sides = np.tile(np.float32(pixels.shape[1:3]), (len(pixels), 1))
        return np.concatenate([sides, pixels.mean(axis=(1, 2)).astype(np.float32)], axis=1)


@pytest.fixture
def shapes(tmp_path: Path, photo: Image.Image) -> Path:
    sizes = [(60, 40), (60, 40), (60, 40), (40, 60), (60, 40), (50, 50), (50, 50), (30, 20)]
    for number, (width, height) in enumerate(sizes):
        photo.crop((number * 9, 0, number * 9 + width, height)).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_images_of_different_shapes_come_back_in_order(batch_size: int, shapes: Path) -> None:
    images, embedder = find_images(shapes), AnyShape(48)
    embedded = embed_images(images, embedder, batch_size=batch_size)
    alone = [AnyShape(48).embed(embedder.preprocess.pixels(images.read(p).image)[None])[0] for p in range(8)]
    np.testing.assert_allclose(embedded.vectors[:, 0], alone, rtol=1e-5)
    assert embedded.vectors[:, 0, :2].tolist() == [
        [32, 48],
        [32, 48],
        [32, 48],
        [48, 32],
        [32, 48],
        [48, 48],
        [48, 48],
        [20, 30],
    ]
    assert all(shape[0] <= batch_size for shape in embedder.batches)
    if batch_size == 16:
        assert [shape[0] for shape in embedder.batches] == [3, 1, 1, 2, 1]


def test_boxed_images_are_cropped_and_keep_their_scale(shapes: Path) -> None:
    images = find_images(shapes).with_boxes({"0.png": Box(10, 10, 40, 20), "5.png": Box(0, 0, 99, 99)})
    embedded = embed_images(images, AnyShape(48))
    assert embedded.vectors[0, 0, :2].tolist() == [8, 24]  # 48 * 30 / 60 = 24 for the longer side of 30 x 10
    assert list(embedded.problems) == [5] and "outside the image of 50 x 50" in embedded.problems[5]
    assert embedded.digests[0].endswith("[10,10,40,20]") and len(embedded.digests[1]) == 64


def test_parts_keep_the_digests_of_crops(shapes: Path, tmp_path: Path) -> None:
    images, parts = find_images(shapes).with_boxes({"0.png": Box(10, 10, 40, 20)}), Parts(tmp_path / "out", {})
    first = embed_images(images, AnyShape(48), parts=parts, part_items=3)
    again = embed_images(images, AnyShape(48), parts=parts, part_items=3)
    assert first.digests == again.digests
    np.testing.assert_array_equal(first.vectors, again.vectors)


def test_batches_and_what_is_decoded_early_are_bounded(tmp_path: Path, photo: Image.Image) -> None:
    large = photo.resize((1500, 1000))
    for number in range(5):
        large.save(tmp_path / f"{number}.jpg")
    embedder = AnyShape(1500)
    embed_images(find_images(tmp_path), embedder, batch_size=16)
    assert [shape[0] for shape in embedder.batches] == [2, 2, 1] and 2 * 1500 * 1000 <= BATCH_PIXELS < 3 * 1500 * 1000
    assert _ahead(Preprocess(size=224), 1) == 64
    assert _ahead(Preprocess(size=2048), 1) * 2048 * 2048 * 3 <= 256 << 20
    assert _ahead(Preprocess(size=2048), 65) == 2
