"""Photos through a network in resumable parts: decoding in threads beside the forward pass, order kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgecsd.distributed import ALONE, Ranks, own_cores
from edgecsd.errors import BadInputError
from edgecsd.features.store import FeatureStore
from edgecsd.files.columns import Column
from edgecsd.files.whole import Parts, writing_array
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.decoding import Photo
from edgecsd.photos.images import Arrays, ImageSet, Loaded, Transform, load_in_order, load_photos
from edgecsd.photos.views import ViewRecipe
from edgecsd.progress import SILENT, Reporter

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
class Joined:
    """vectors (n, dim) of the n readable images and those of their views (n * views, dim), memory-mapped; the rest as
    in Embedded."""

    vectors: NDArray[np.float32]
    view_vectors: NDArray[np.float32]
    kept: Sequence[int]
    digests: Column
    problems: dict[int, str]


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
    advice: str = "`strict`: leave it out to skip unreadable images",
    name: str = "embedding",
    reporter: Reporter = SILENT,
) -> Embedded:
    """Embed every readable image and its views. With `parts`, finished ones are not made again.

    strict: an unreadable image is an error, to whose text `advice` is added.
    """
    work = _EmbeddingWork(images, embedder, recipe or ViewRecipe(), part_items, batch_size, workers, strict, advice)
    done = _done(work, parts, name, reporter)
    todo = [number for number in range(work.parts) if number not in done]
    made: dict[int, dict[str, NDArray[Any]]] = {}
    finished = sum(len(work.positions(number)) for number in done)
    for number, part in _make(work, todo, name, (len(images), finished), reporter):
        if parts is not None:
            parts.write(number, **part)
        made[number] = part
    return _collect([made[n] if n in made or parts is None else parts.read(n) for n in range(work.parts)])


def embed_parts(
    images: ImageSet,
    embedder: Embedder,
    parts: Parts,
    *,
    recipe: ViewRecipe | None = None,
    part_items: int = PART_ITEMS,
    batch_size: int = 16,
    workers: int | None = None,
    strict: bool = False,
    advice: str = "`strict`: leave it out to skip unreadable images",
    name: str = "embedding",
    everyone: Ranks = ALONE,
    reporter: Reporter = SILENT,
) -> None:
    """Like `embed_images`, for any number of images: `parts` hold the result (join_parts), memory none of it.

    everyone   the processes that share the work and the folder of `parts`: each makes the parts of its share. Parts
               are numbered alike for any number of processes, so a run goes on with more or fewer.
    """
    work = _EmbeddingWork(images, embedder, recipe or ViewRecipe(), part_items, batch_size, workers, strict, advice)
    done = _done(work, parts, name, reporter)
    everyone.meet()  # nobody begins before all have seen what is done
    todo = everyone.share([number for number in range(work.parts) if number not in done])
    own = sum(len(work.positions(number)) for number in todo)
    shown, counted = (
        (name, (len(images), len(images) - own))
        if everyone.count == 1
        else (f"{name}, share {everyone.rank + 1} of {everyone.count}", (own, 0))
    )
    for number, part in _make(work, todo, shown, counted, reporter):
        parts.write(number, **part)
    everyone.meet()


def join_parts(parts: Parts, count: int, per_item: int, dim: int, *, part_items: int = PART_ITEMS) -> Joined:
    """What `embed_parts` made of `count` images, as memory-mapped files in the folder of `parts`.

    Holds one part in memory at a time, but for the digests, 68 bytes an image, and the problems.
    """
    numbers, problems = range(math.ceil(count / part_items)), dict[int, str]()

    def readable() -> Iterator[str]:
        for number in numbers:
            part = parts.read(number, "digests", "problems")
            outcomes = zip(part["digests"].tolist(), part["problems"].tolist(), strict=True)
            for position, (digest, problem) in enumerate(outcomes, number * part_items):
                if problem:
                    problems[position] = problem
                else:
                    yield digest

    digests = Column.of(readable())
    kept = [p for p in range(count) if p not in problems] if problems else range(count)
    shapes = ((len(kept), dim), (len(kept) * (per_item - 1), dim))
    files = (parts.folder / "vectors.npy", parts.folder / "views.npy")
    with writing_array(files[0], shapes[0]) as own, writing_array(files[1], shapes[1]) as views:
        for number in numbers:
            vectors = parts.read(number, "vectors")["vectors"]
            if len(vectors):
                own(vectors[:, 0])
                views(vectors[:, 1:].reshape(-1, dim))
    return Joined(np.load(files[0], mmap_mode="r"), np.load(files[1], mmap_mode="r"), kept, digests, problems)


@dataclass(frozen=True)
class _EmbeddingWork:
    """Everything that decides what the numbered parts hold, and how they are made."""

    images: ImageSet
    embedder: Embedder
    views: ViewRecipe
    part_items: int
    batch_size: int
    workers: int | None
    strict: bool
    advice: str

    def __post_init__(self) -> None:
        if self.batch_size < 1 or (self.workers is not None and self.workers < 1):
            raise BadInputError(f"batch size {self.batch_size}, workers {self.workers}: 1 or more is needed")

    @property
    def parts(self) -> int:
        return math.ceil(len(self.images) / self.part_items)

    def positions(self, number: int) -> range:
        """The images of part `number`."""
        return range(number * self.part_items, min((number + 1) * self.part_items, len(self.images)))


def _done(work: _EmbeddingWork, parts: Parts | None, name: str, reporter: Reporter) -> set[int]:
    """Numbers of the parts that are there."""
    done = {number for number in range(work.parts) if parts is not None and parts.has(number)}
    if done:
        images = sum(len(work.positions(number)) for number in done)
        reporter.message(f"going on: {images} of {len(work.images)} images were done by an earlier run ({name})")
    return done


def _make(
    work: _EmbeddingWork, numbers: Sequence[int], name: str, total_and_done: tuple[int, int], reporter: Reporter
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """(number, its arrays) of each part of `numbers`, in their order; photos are decoded ahead across parts."""
    contract, per_item = work.embedder.preprocess, work.views.count + 1

    def transform(position: int, photo: Photo) -> Arrays:
        shown = (work.views.view(photo.image, work.images.ids[position], view) for view in range(per_item))
        return tuple(contract.pixels(image, photo.scale) for image in shown)

    todo = [position for number in numbers for position in work.positions(number)]
    threads, ahead = work.workers or own_cores(), _ahead(contract, per_item)
    with (
        closing(load_photos(work.images, todo, transform, workers=threads, ahead=ahead)) as loaded,
        reporter.task(name, *total_and_done) as advance,
    ):
        for number in numbers:
            queue, results = _Queue(work.embedder, work.batch_size), []
            for _ in work.positions(number):
                item = next(loaded)
                if work.strict and item.problem:
                    raise BadInputError(f"{item.problem} ({work.advice})")
                queue.put(item.arrays)
                results.append(item)
                advance(1)
            yield number, _part(results, queue.finish(), per_item, work.embedder.dim)


def _ahead(contract: Preprocess, per_item: int) -> int:
    """How many items may be decoded before they are needed."""
    item_bytes = contract.likely_pixels * 3 * per_item
    return max(2, min(AHEAD_ITEMS, AHEAD_BYTES // item_bytes))


@contextmanager
def loading(
    images: ImageSet, positions: Sequence[int], transform: Transform, *, workers: int | None = None
) -> Iterator[Iterator[Loaded]]:
    """`load_in_order`, closed at once when its user stops or is interrupted: what waits is not decoded any more."""
    with closing(load_in_order(images, positions, transform, workers=workers or own_cores())) as loaded:
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
        if self._embedder.preprocess.one_size:
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


def embed_store_items(
    images: ImageSet,
    store: FeatureStore,
    embedder: Embedder,
    *,
    name: str,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> Floats:
    """(count, dim) embeddings of a store's items, in its order, from the photos they were made of.

    A photo is the one its item was made of if its bytes are, and its box, where it is cropped to one.
    """
    place = {item: position for position, item in enumerate(images.ids)}
    absent = [item for item in store.items.ids if item not in place]
    if absent:
        raise BadInputError(
            f"{images.root}: {len(absent)} photos of {store.path} are not there, the first: {absent[0]}"
        )
    chosen = images.subset([place[item] for item in store.items.ids])
    embedded = embed_images(
        chosen,
        embedder,
        strict=True,
        advice="it could be read when its features were extracted",
        name=name,
        workers=workers,
        reporter=reporter,
    )
    known = zip(store.items.ids, embedded.digests, store.items.digests, strict=True)
    changed = [item for item, now, then in known if then and now != then]
    if changed:
        raise BadInputError(
            f"{images.root}: {changed[0]} is not the photo that {store.path} was extracted from, or not cropped to the "
            f"same box ({len(changed)} such photos); give the photos it was made of, or extract again"
        )
    return embedded.vectors[:, 0]


Floats = NDArray[np.float32]
