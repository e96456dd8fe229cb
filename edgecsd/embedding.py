"""Photos through a network in resumable parts: decoding in threads beside the forward pass, order kept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.files import Parts
from edgecsd.images import Arrays, ImageSet, Loaded, Photo, Transform, load_in_order, load_photos
from edgecsd.preprocess import Preprocess, Resize
from edgecsd.progress import SILENT, Reporter
from edgecsd.views import ViewRecipe

PART_ITEMS = 128  # items a resumable part holds: a killed run loses at most this many
AHEAD_ITEMS, AHEAD_BYTES = 64, 256 << 20  # decoded early: at most so many items, of at most so many bytes together
BATCH_PIXELS = 16 * 512 * 512  # in a batch of images that are no squares: they may be large, and batches are for speed


class Embedder(Protocol):
    """Whatever turns pixels into vectors: a gallery model, a query model, an exported file."""

    @property
    def preprocess(self) -> Preprocess: ...

    @property
    def dim(self) -> int: ...

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, S, S, 3) uint8, or (B, h, w, 3) where the contract gives no squares -> (B, dim) float32."""
        ...


@dataclass(frozen=True)
class Embedded:
    """vectors (n, 1 + views, dim) of the n readable images; their positions and digests; problems by position."""

    vectors: NDArray[np.float32]
    kept: list[int]
    digests: list[str]
    problems: dict[int, str]


def embed_images(
    images: ImageSet,
    embedder: Embedder,
    *,
    recipe: ViewRecipe | None = None,
    parts: Parts | None = None,
    part_items: int = PART_ITEMS,
    batch_size: int = 16,
    workers: int | None = None,
    strict: bool = False,
    advice: str = "--strict: leave it out to skip unreadable images",
    name: str = "embedding",
    reporter: Reporter = SILENT,
) -> Embedded:
    """Embed every readable image and its views. With `parts`, finished ones are not made again.

    strict: an unreadable image is an error, to whose text `advice` is added.
    """
    if batch_size < 1 or (workers is not None and workers < 1):
        raise BadInputError(f"batch size {batch_size}, workers {workers}: 1 or more is needed")
    views = recipe or ViewRecipe()
    ranges = [range(first, min(first + part_items, len(images))) for first in range(0, len(images), part_items)]
    done = [parts is not None and parts.has(number) for number in range(len(ranges))]
    finished = sum(len(r) for r, d in zip(ranges, done, strict=True) if d)
    if finished:
        reporter.message(f"going on: {finished} of {len(images)} images were done by an earlier run ({name})")

    contract, per_item = embedder.preprocess, views.count + 1

    def transform(position: int, photo: Photo) -> Arrays:
        shown = (views.view(photo.image, images.ids[position], view) for view in range(per_item))
        return tuple(contract.pixels(image, photo.scale) for image in shown)

    threads = workers or os.cpu_count() or 2
    todo = [position for r, d in zip(ranges, done, strict=True) if not d for position in r]
    collected: list[dict[str, NDArray[Any]]] = []
    with (
        closing(load_photos(images, todo, transform, workers=threads, ahead=_ahead(contract, per_item))) as loaded,
        reporter.task(name, len(images), finished) as advance,
    ):
        for number, positions in enumerate(ranges):
            if parts is not None and done[number]:
                collected.append(parts.read(number))
                continue
            queue, results = _Queue(embedder, batch_size), []
            for _ in positions:
                item = next(loaded)
                if strict and item.problem:
                    raise BadInputError(f"{item.problem} ({advice})")
                queue.put(item.arrays)
                results.append(item)
                advance(1)
            part = _part(results, queue.finish(), per_item, embedder.dim)
            if parts is not None:
                parts.write(number, **part)
            collected.append(part)
    return _collect(collected)


def _ahead(contract: Preprocess, per_item: int) -> int:
    """How many items may be decoded before they are needed."""
    item_bytes = contract.size**2 * 3 * per_item
    return max(2, min(AHEAD_ITEMS, AHEAD_BYTES // item_bytes))


@contextmanager
def loading(
    images: ImageSet, positions: Sequence[int], transform: Transform, *, workers: int | None = None
) -> Iterator[Iterator[Loaded]]:
    """`load_in_order`, closed at once when its user stops or is interrupted: what waits is not decoded any more."""
    with closing(load_in_order(images, positions, transform, workers=workers or os.cpu_count() or 2)) as loaded:
        yield loaded


class _Queue:
    """Gathers pixels of one shape until a batch is full or the shape changes, and embeds them, keeping the order."""

    def __init__(self, embedder: Embedder, batch_size: int) -> None:
        self._embedder, self._batch_size = embedder, batch_size
        self._waiting: list[NDArray[np.uint8]] = []
        self._done: list[NDArray[np.float32]] = []

    def put(self, arrays: Sequence[NDArray[np.uint8]]) -> None:
        for array in arrays:
            if self._waiting and self._waiting[0].shape != array.shape:
                self._embed()
            self._waiting.append(array)
            if len(self._waiting) >= self._limit(array):
                self._embed()

    def _limit(self, array: NDArray[np.uint8]) -> int:
        """Images a batch, fewer of those that may be large."""
        if self._embedder.preprocess.resize is not Resize.LONGER_SIDE:
            return self._batch_size
        return max(1, min(self._batch_size, BATCH_PIXELS // (array.size // 3)))

    def _embed(self) -> None:
        self._done.append(self._embedder.embed(np.stack(self._waiting)))
        self._waiting.clear()

    def finish(self) -> NDArray[np.float32]:
        """(everything put, dim)."""
        if self._waiting:
            self._embed()
        return np.concatenate(self._done) if self._done else np.empty((0, 0), np.float32)


def _part(results: Iterable[Loaded], vectors: NDArray[np.float32], per_item: int, dim: int) -> dict[str, NDArray[Any]]:
    rows = list(results)
    return {
        "vectors": vectors.reshape(-1, per_item, dim),
        "digests": np.array([r.digest for r in rows], dtype=np.str_),
        "problems": np.array([r.problem for r in rows], dtype=np.str_),
    }


def _collect(parts: list[dict[str, NDArray[Any]]]) -> Embedded:
    problems = [str(p) for part in parts for p in part["problems"]]
    digests = [str(d) for part in parts for d in part["digests"]]
    kept = [position for position, problem in enumerate(problems) if not problem]
    vectors = np.concatenate([part["vectors"] for part in parts]) if parts else np.empty((0, 1, 0), np.float32)
    return Embedded(
        vectors, kept, [digests[p] for p in kept], {p: problem for p, problem in enumerate(problems) if problem}
    )
