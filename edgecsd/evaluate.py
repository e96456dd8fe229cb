"""evaluate: symmetric and asymmetric retrieval figures of a gallery model, a query model or an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecsd.embedding import Embedder, embed_images
from edgecsd.errors import BadInputError
from edgecsd.features import FeatureStore
from edgecsd.images import ImageSet, find_images
from edgecsd.metrics import Relevance, average_precision, mean_of, overlap_at, precision_at, recall_at
from edgecsd.progress import SILENT, Reporter
from edgecsd.space import EmbeddingSpace, require_same_space

Floats = NDArray[np.float32]
DEPTHS = (1, 5, 10)
BLOCK_QUERIES = 256  # queries ranked at once


@dataclass(frozen=True)
class Figures:
    """What one way of searching reached; every figure is a mean over queries with a relevant item.

    overlap: share of the gallery model's own first k that were found, by k; overlap_error: its standard error
    """

    name: str
    mean_average_precision: float
    precision: dict[int, float]
    recall: dict[int, float]
    overlap: dict[int, float]
    overlap_error: dict[int, float]


@dataclass(frozen=True)
class EvaluateResult:
    """Rows of figures and what they mean."""

    rows: tuple[Figures, ...]
    queries: int
    gallery: int
    relevance: str
    protocol: str = "exact search, trapezoidal AP (revisited Oxford/Paris), the query's own photo ignored, ties by row"


@dataclass(frozen=True)
class Benchmark:
    """Queries and gallery with the relevance between them; ranks and scores any embeddings."""

    gallery: Floats
    relevance: tuple[Relevance, ...]
    own_ranking: NDArray[np.int64]  # the gallery model's, (Q, N)
    described: str

    def __post_init__(self) -> None:
        for relevance in self.relevance:
            relevance.check(len(self.gallery))

    def score(
        self, name: str, queries: Floats, gallery: Floats | None = None, depths: Sequence[int] = DEPTHS
    ) -> Figures:
        """Figures of (Q, D) query embeddings searched in the gallery model's vectors, or in others (N, D')."""
        ranking = rank(queries, self.gallery if gallery is None else gallery)
        pairs = list(zip(ranking, self.relevance, strict=True))
        mean_average_precision = mean_of([average_precision(r, rel) for r, rel in pairs], "mAP")
        overlaps = {k: self._overlaps(ranking, k) for k in depths}  # there is a depth: some query has a relevant item
        return Figures(
            name,
            mean_average_precision,
            {k: mean_of([precision_at(r, rel, k) for r, rel in pairs], f"mP@{k}") for k in depths},
            {k: mean_of([recall_at(r, rel, k) for r, rel in pairs], f"recall@{k}") for k in depths},
            {k: float(values.mean()) for k, values in overlaps.items()},
            {k: float(values.std() / len(values) ** 0.5) for k, values in overlaps.items()},
        )

    def _overlaps(self, ranking: NDArray[np.int64], k: int) -> NDArray[np.float64]:
        """(Q,) share of the gallery model's own first k, junk taken out."""
        return overlap_at(self._without_junk(ranking, k), self._without_junk(self.own_ranking, k), k)

    def _without_junk(self, ranking: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """(Q, k): the first k of each ranking that are not junk."""
        most = max((len(rel.junk) for rel in self.relevance), default=0)
        rows = []
        for row, relevance in zip(ranking[:, : k + most], self.relevance, strict=True):
            clean = [position for position in row if int(position) not in relevance.junk]
            rows.append(clean[: min(k, ranking.shape[1] - most)])
        return np.array(rows, np.int64)


def rank(queries: Floats, gallery: Floats) -> NDArray[np.int64]:
    """(Q, N) gallery rows by falling cosine, ties by row."""
    blocks = [queries[i : i + BLOCK_QUERIES] @ gallery.T for i in range(0, len(queries), BLOCK_QUERIES)]
    return np.concatenate([np.argsort(-block, axis=1, kind="stable") for block in blocks]).astype(np.int64)


def make_benchmark(
    gallery: FeatureStore, queries: FeatureStore, *, labels: bool | None = None, relevance_k: int = 10
) -> Benchmark:
    """Relevance from labels where both stores have them (or as `labels` says), else the gallery model's first k.

    A gallery row that shows the query's very photo (same bytes; same id where digests are unknown) is junk.
    """
    require_same_space(queries.space, gallery.space, str(queries.path), str(gallery.path))
    have = gallery.items.labels is not None and queries.items.labels is not None
    if labels and not have:
        raise BadInputError(
            "labels were asked for, but not both stores have them; extract from a CSV list with a 'label' column"
        )
    vectors = gallery.vectors()
    own = rank(queries.vectors(), vectors)
    junk = _own_photos(gallery, queries)
    if have and labels is not False:
        assert gallery.items.labels is not None and queries.items.labels is not None
        by_label: dict[str, set[int]] = {}
        for row, label in enumerate(gallery.items.labels):
            by_label.setdefault(label, set()).add(row)
        relevance = tuple(
            Relevance(frozenset(by_label.get(label, set()) - j), j)
            for label, j in zip(queries.items.labels, junk, strict=True)
        )
        return Benchmark(vectors, relevance, own, "labels: a gallery item of the query's label is relevant")
    relevance = tuple(
        Relevance(frozenset([int(p) for p in row if int(p) not in j][:relevance_k]), j)
        for row, j in zip(own, junk, strict=True)
    )
    return Benchmark(
        vectors,
        relevance,
        own,
        f"no labels: the gallery model's own first {relevance_k} are relevant, so its mAP is 1 by definition",
    )


def _own_photos(gallery: FeatureStore, queries: FeatureStore) -> list[frozenset[int]]:
    by_digest: dict[str, list[int]] = {}
    for row, digest in enumerate(gallery.items.digests):
        by_digest.setdefault(digest, []).append(row)
    result = []
    for item, digest in zip(queries.items.ids, queries.items.digests, strict=True):
        if digest:
            result.append(frozenset(by_digest.get(digest, ())))
        else:
            result.append(frozenset([gallery.row_of[item]] if item in gallery.row_of else []))
    return result


def embed_store_items(
    images: ImageSet,
    store: FeatureStore,
    embedder: Embedder,
    *,
    name: str,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> Floats:
    """(count, dim) embeddings of a store's items, in its order, from the photos they were made of."""
    place = {item: position for position, item in enumerate(images.ids)}
    absent = [item for item in store.items.ids if item not in place]
    if absent:
        raise BadInputError(
            f"{images.root}: {len(absent)} photos of {store.path} are not there, the first: {absent[0]}"
        )
    chosen = images.subset([place[item] for item in store.items.ids])
    embedded = embed_images(
        chosen, embedder, strict=True, advice="it could be read when its features were extracted",
        name=name, workers=workers, reporter=reporter,
    )  # fmt: skip
    known = zip(store.items.ids, embedded.digests, store.items.digests, strict=True)
    changed = [item for item, now, then in known if then and now != then]
    if changed:
        raise BadInputError(
            f"{images.root}: {changed[0]} is not the photo that {store.path} was extracted from "
            f"({len(changed)} such photos); give the photos it was made of, or extract again"
        )
    return embedded.vectors[:, 0]


def evaluate(
    gallery: Path,
    queries: Path,
    *,
    images: Path | ImageSet | None = None,
    split: str | None = None,
    run: Path | None = None,
    artifact: Path | None = None,
    gallery_images: Path | ImageSet | None = None,
    gallery_split: str | None = None,
    labels: bool | None = None,
    relevance_k: int = 10,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> EvaluateResult:
    """Score the gallery model against itself, then a query model (`run`) and/or exported file (`artifact`).

    images          the photos of the query store; needed for `run` and `artifact`
    gallery_images  the photos of the gallery store: adds the query model's symmetric search, which embeds them all
    """
    gallery_store, query_store = FeatureStore.open(gallery), FeatureStore.open(queries)
    benchmark = make_benchmark(gallery_store, query_store, labels=labels, relevance_k=relevance_k)
    rows = [benchmark.score("gallery model, symmetric", query_store.vectors())]
    if (run or artifact) and images is None:
        raise BadInputError("--images is needed: the photos of the query store, for the query model to embed")
    if gallery_images is not None and run is None:
        raise BadInputError("--gallery-images needs --run: it measures the query model's symmetric search")
    photos = _photos(images, split)
    for name, embedder, space in _embedders(run, artifact):
        require_same_space(space, gallery_store.space, name, str(gallery_store.path))
        assert photos is not None
        embedded = embed_store_items(
            photos, query_store, embedder, name=f"{name}: queries", workers=workers, reporter=reporter
        )
        rows.append(benchmark.score(f"{name}, asymmetric", embedded))
        gallery_photos = _photos(gallery_images, gallery_split)
        if gallery_photos is not None and name == "query model":
            own = embed_store_items(
                gallery_photos, gallery_store, embedder, name=f"{name}: gallery", workers=workers, reporter=reporter
            )
            rows.append(benchmark.score(f"{name}, symmetric", embedded, own))
    return EvaluateResult(tuple(rows), query_store.count, gallery_store.count, benchmark.described)


def _photos(source: Path | ImageSet | None, split: str | None) -> ImageSet | None:
    return source if source is None or isinstance(source, ImageSet) else find_images(source, split=split)


def _embedders(run: Path | None, artifact: Path | None) -> list[tuple[str, Embedder, EmbeddingSpace]]:
    found: list[tuple[str, Embedder, EmbeddingSpace]] = []
    if run is not None:
        from edgecsd.query_models import QueryModelEmbedder, load_query_model

        model = load_query_model(run)
        found.append(("query model", QueryModelEmbedder(model), model.config.space))
    if artifact is not None:
        from edgecsd.targets.embedder import ArtifactEmbedder

        exported = ArtifactEmbedder(artifact)
        found.append((artifact.name, exported, exported.metadata.space))
    return found
