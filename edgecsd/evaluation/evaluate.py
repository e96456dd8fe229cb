"""evaluate: symmetric and asymmetric retrieval figures of a gallery model, a query model or an exported file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecsd.errors import BadInputError
from edgecsd.evaluation.benchmark import RetrievalFigures, score_settings
from edgecsd.evaluation.per_query import EvaluationProtocol, PerQuery
from edgecsd.evaluation.task import EvaluationTask, open_task
from edgecsd.features.space import EmbeddingSpace, require_same_space
from edgecsd.files.whole import sha256_file
from edgecsd.index.addresses import MilvusAddress, index_name
from edgecsd.index.opening import open_index
from edgecsd.models.embedding import Embedder, embed_store_items
from edgecsd.photos.images import ImageSet
from edgecsd.progress import SILENT, Reporter

Floats = NDArray[np.float32]
OWN_ROW = "gallery model, symmetric"  # the name of the row that the others are measured against


@dataclass(frozen=True)
class EvaluateResult:
    """Rows of figures, one a model and setting, and what they mean. per_query: the values behind them."""

    rows: tuple[RetrievalFigures, ...]
    queries: int
    gallery: int
    relevance: str
    protocol: EvaluationProtocol
    per_query: PerQuery


def evaluate(
    gallery: Path,
    queries: Path,
    *,
    images: ImageSet | None = None,
    run: Path | None = None,
    query_scales: tuple[float, ...] = (),
    artifact: Path | None = None,
    gallery_images: ImageSet | None = None,
    labels: bool | None = None,
    relevance_k: int = 10,
    ground_truth: Path | None = None,
    distractors: Sequence[Path] = (),
    index: Path | MilvusAddress | None = None,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> EvaluateResult:
    """Score the gallery model against itself, then a query model (`run`) and/or exported file (`artifact`).

    images          the photos of the query store; needed for `run` and `artifact`
    query_scales    adds a row: the query model's embeddings of its input at these scales, averaged
    gallery_images  the photos of the gallery store: adds the query model's symmetric search, which embeds them all
    ground_truth    judgements in place of labels: a row for each of easy, medium and hard
    distractors     stores of the same space that are searched behind the gallery and never relevant; they stay on disk
    index           a gallery index over the gallery store: adds to each row the same queries, searched by the index

    Raises IncompatibleError (exit 3) where stores or models live in different embedding spaces.
    """
    _check_options(run, query_scales, artifact, images, gallery_images, labels, ground_truth, distractors, index)
    task = open_task(
        gallery, queries, labels=labels, relevance_k=relevance_k, ground_truth=ground_truth, distractors=distractors
    )
    rows, models = list(task.rows), {OWN_ROW: ""}
    own_queries = task.queries.vectors()[rows]
    scored = score_settings(task.benchmarks, OWN_ROW, own_queries)
    through = _through(index, task, models)
    scored += through(OWN_ROW, "", own_queries)
    for name, embedder, space, digest in _embedders(run, query_scales, artifact):
        require_same_space(space, task.gallery.space, name, str(gallery))
        assert images is not None
        embed = partial(embed_store_items, embedder=embedder, workers=workers, reporter=reporter)
        embedded = embed(task.crop(images, reporter), task.queries, name=f"{name}: queries")[rows]
        models[f"{name}, asymmetric"] = digest
        scored += score_settings(task.benchmarks, f"{name}, asymmetric", embedded)
        scored += through(f"{name}, asymmetric", digest, embedded)
        if gallery_images is not None and name == "query model":
            own = embed(gallery_images, task.gallery, name=f"{name}: gallery")
            models[f"{name}, symmetric"] = digest
            scored += score_settings(task.benchmarks, f"{name}, symmetric", embedded, own)
    per_query = task.per_query(scored, models, relevance_k)
    protocol = per_query.header.protocol
    return EvaluateResult(
        tuple(scored), len(rows), task.benchmarks[0].searched.count, protocol.relevance, protocol, per_query
    )


def _check_options(
    run: Path | None,
    query_scales: tuple[float, ...],
    artifact: Path | None,
    images: object,
    gallery_images: object,
    labels: bool | None,
    ground_truth: Path | None,
    distractors: Sequence[Path],
    index: object,
) -> None:
    if (run or artifact) and images is None:
        raise BadInputError("`images` is needed: the photos of the query store, for the query model to embed")
    if query_scales and run is None:
        raise BadInputError("`query_scales` needs `run`: an exported file takes images of one size")
    if gallery_images is not None and run is None:
        raise BadInputError("`gallery_images` needs `run`: it measures the query model's symmetric search")
    if gallery_images is not None and distractors:
        raise BadInputError(
            "`gallery_images` and `distractors`: the query model's symmetric search would need its own vectors of the "
            "distractors; leave one of them out"
        )
    if index is not None and distractors:
        raise BadInputError("`index` and `distractors`: the index holds the gallery alone; leave one of them out")
    if labels is not None and ground_truth is not None:
        raise BadInputError("`labels` and `labels=False` say what is relevant, and so does `ground_truth`: give one")


def _through(
    index: Path | MilvusAddress | None, task: EvaluationTask, models: dict[str, str]
) -> Callable[[str, str, Floats], list[RetrievalFigures]]:
    """(row's name, model's digest, queries) -> figures of the index's own search, and `models` gains their name."""
    if index is None:
        return lambda name, digest, queries: []
    from edgecsd.evaluation.through_index import score_through, store_rows_of

    opened = open_index(index)
    rows = store_rows_of(opened, task.gallery)

    def score(name: str, digest: str, queries: Floats) -> list[RetrievalFigures]:
        model, _, kind = name.rpartition(", ")
        shown = f"{model}, {kind} through {index_name(index)} ({opened.type.value})"
        models[shown] = digest
        return score_through(opened, rows, task.benchmarks, shown, queries)

    return score


def _embedders(
    run: Path | None, query_scales: tuple[float, ...], artifact: Path | None
) -> list[tuple[str, Embedder, EmbeddingSpace, str]]:
    """Name, embedder, space, and the digest of the weights or of the file."""
    found: list[tuple[str, Embedder, EmbeddingSpace, str]] = []
    if run is not None:
        from edgecsd.models.gallery.model import usable_scales
        from edgecsd.models.query import QueryModelEmbedder, load_query_model

        model = load_query_model(run)
        space, digest = model.config.space, model.config.weights_digest
        found.append(("query model", QueryModelEmbedder(model), space, digest))
        if query_scales:
            scales = usable_scales(query_scales, "`query_scales`")
            name = f"query model at {'+'.join(f'{scale:g}' for scale in scales)}"
            found.append((name, QueryModelEmbedder(model, scales), space, digest))
    if artifact is not None:
        from edgecsd.targets.artifact import ArtifactEmbedder

        exported = ArtifactEmbedder(artifact)
        found.append((artifact.name, exported, exported.metadata.space, sha256_file(artifact)))
    return found
