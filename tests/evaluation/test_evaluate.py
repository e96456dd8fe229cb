"""evaluate: relevance with and without labels, the query's own photo, and proof that asymmetric means asymmetric."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from doubles import PixelGallery
from evaluations import SPACE, PixelGalleryEmbedder, clusters, store

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.evaluation.benchmark import Benchmark
from edgecsd.evaluation.evaluate import OWN_ROW, evaluate
from edgecsd.evaluation.ranking import rank
from edgecsd.evaluation.relevance import make_benchmark
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.gallery.extract import extract
from edgecsd.metrics.retrieval import Relevance
from edgecsd.models.embedding import embed_store_items
from edgecsd.photos.finding import find_images


def test_without_labels_the_gallery_model_is_the_truth(tmp_path: Path) -> None:
    gallery, queries = store(tmp_path / "g", 60, 1, labelled=False), store(tmp_path / "q", 12, 2, labelled=False)
    result = evaluate(gallery.path, queries.path)
    (row,) = result.rows
    assert row.mean_average_precision == 1.0 and set(row.overlap.values()) == {1.0}
    assert row.precision == {1: 1.0, 5: 1.0, 10: 1.0} and row.recall == {1: 1.0, 5: 1.0, 10: 1.0}
    assert result.queries == 12 and result.gallery == 60 and "mAP is 1 by definition" in result.relevance
    with pytest.raises(BadInputError, match="labels were asked for, but not both stores have them"):
        evaluate(gallery.path, queries.path, labels=True)


def test_labels_decide_what_is_relevant(tmp_path: Path) -> None:
    gallery, queries = store(tmp_path / "g", 60, 1), store(tmp_path / "q", 12, 2)
    benchmark = make_benchmark(gallery, queries)
    assert gallery.items.labels is not None and queries.items.labels is not None
    for query, relevance in enumerate(benchmark.relevance):
        same = {row for row, label in enumerate(gallery.items.labels) if label == queries.items.labels[query]}
        assert relevance.ok == same and relevance.junk == frozenset()
    figures = benchmark.score("symmetric", queries.vectors())
    assert 0.8 < figures.mean_average_precision <= 1.0 and figures.overlap[10] == 1.0
    assert make_benchmark(gallery, queries, labels=False, relevance_k=3).relevance[0].ok == frozenset(
        rank(queries.vectors(), gallery.vectors())[0, :3].tolist()
    )


def test_the_querys_own_photo_is_junk(tmp_path: Path) -> None:
    """Queries that are gallery photos too: by bytes where they are known, by id elsewhere."""
    vectors, labels = clusters(40, 1)
    digests = tuple(f"{row // 2:064d}" for row in range(40))  # rows 2n and 2n + 1 show the same bytes
    ids = tuple(f"photo-{row}" for row in range(40))
    known = write_store(tmp_path / "known", SPACE, Items(ids, digests, labels), vectors, dtype="float32")
    benchmark = make_benchmark(known, known)
    assert all(rel.junk == {2 * (q // 2), 2 * (q // 2) + 1} for q, rel in enumerate(benchmark.relevance))
    assert not any(rel.ok & rel.junk for rel in benchmark.relevance)
    unknown = write_store(tmp_path / "unknown", SPACE, Items(ids, ("",) * 40, labels), vectors, dtype="float32")
    assert [rel.junk for rel in make_benchmark(unknown, unknown).relevance] == [frozenset({q}) for q in range(40)]
    own = make_benchmark(unknown, unknown, labels=False)
    assert all(q not in rel.ok and len(rel.ok) == 10 for q, rel in enumerate(own.relevance))
    assert own.score("symmetric", vectors).mean_average_precision == 1.0


def test_a_rotated_space_is_worthless_asymmetrically(tmp_path: Path) -> None:
    """The sanity test of the whole toolkit: a perfect model of another space finds itself and finds nothing here."""
    gallery, queries = store(tmp_path / "g", 200, 1), store(tmp_path / "q", 40, 2)
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(16, 16)))[0].astype(np.float32)
    benchmark = make_benchmark(gallery, queries)
    rotated_queries, rotated_gallery = queries.vectors() @ rotation, gallery.vectors() @ rotation
    symmetric = benchmark.score("rotated, symmetric", rotated_queries, rotated_gallery)
    asymmetric = benchmark.score("rotated, asymmetric", rotated_queries)
    own = benchmark.score("gallery model", queries.vectors())
    assert symmetric.mean_average_precision == pytest.approx(own.mean_average_precision, abs=1e-3)
    assert symmetric.mean_average_precision > 0.9 and symmetric.overlap[10] > 0.99
    chance = np.mean([len(rel.ok) / 200 for rel in benchmark.relevance])
    assert asymmetric.mean_average_precision < 2 * chance < 0.5 and asymmetric.overlap[10] < 0.2


def test_queries_of_labels_that_the_gallery_lacks(tmp_path: Path) -> None:
    gallery = store(tmp_path / "g", 30, 1)
    vectors, labels = clusters(6, 2)
    odd = Items(tuple("abcdef"), ("",) * 6, ("nowhere", *labels[1:]))
    queries = write_store(tmp_path / "q", SPACE, odd, vectors, dtype="float32")
    assert np.isfinite(evaluate(gallery.path, queries.path).rows[0].mean_average_precision)
    none = Items(tuple("abcdef"), ("",) * 6, ("nowhere",) * 6)
    alien = write_store(tmp_path / "a", SPACE, none, vectors, dtype="float32")
    with pytest.raises(BadInputError, match="no query has a relevant gallery item"):
        evaluate(gallery.path, alien.path)


def test_a_blank_label_is_no_class(tmp_path: Path) -> None:
    vectors, labels = clusters(20, 1)
    some = tuple(label if row % 3 else "" for row, label in enumerate(labels))
    gallery = write_store(
        tmp_path / "g", SPACE, Items(tuple(f"g{n}" for n in range(20)), ("",) * 20, some), vectors, dtype="float32"
    )
    asked = Items(("a", "b"), ("",) * 2, (labels[1], ""))
    queries = write_store(tmp_path / "q", SPACE, asked, vectors[1:3], dtype="float32")
    found = make_benchmark(gallery, queries).relevance
    assert found[0].ok == {row for row in range(20) if some[row] == labels[1]} and found[1].ok == frozenset()
    alone = write_store(tmp_path / "a", SPACE, Items(("a",), ("",), (labels[1],)), vectors[1:2], dtype="float32")
    one, both = (evaluate(gallery.path, each.path).rows[0].mean_average_precision for each in (alone, queries))
    assert one == both  # who has no label leaves the mean


def test_contradictory_relevance_is_refused() -> None:
    gallery, own = np.eye(4, dtype=np.float32), np.arange(4)[None]
    with pytest.raises(BadInputError, match="both relevant and junk"):
        Benchmark(gallery, (Relevance(frozenset({1}), frozenset({1})),), own, "")
    with pytest.raises(BadInputError, match="outside the gallery of 4"):
        Benchmark(gallery, (Relevance(frozenset({4})),), own, "")


def test_spaces_must_agree(tmp_path: Path, pixel_store: FeatureStore) -> None:
    with pytest.raises(IncompatibleError, match="different embedding spaces"):
        evaluate(pixel_store.path, store(tmp_path / "q", 12, 2).path)


def test_embedding_a_stores_photos(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    images = find_images(photos)
    shuffled = images.subset(range(23, -1, -1))
    embedded = embed_store_items(shuffled, pixel_store, PixelGalleryEmbedder(), name="again")
    np.testing.assert_allclose(embedded, pixel_store.vectors(), atol=1e-3)  # in the store's order, whatever the list's
    with pytest.raises(BadInputError, match=rf"2 photos of .* are not there, the first: {images.ids[0]}"):
        embed_store_items(images.subset(range(2, 24)), pixel_store, PixelGalleryEmbedder(), name="again")
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    shutil.copy(folder / images.ids[1], folder / images.ids[0])
    with pytest.raises(BadInputError, match=rf"{images.ids[0]} is not the photo that .* was extracted from"):
        embed_store_items(find_images(folder), pixel_store, PixelGalleryEmbedder(), name="again")
    (folder / images.ids[0]).write_bytes(b"nonsense")
    with pytest.raises(BadInputError, match="could be read when its features were extracted"):
        embed_store_items(find_images(folder), pixel_store, PixelGalleryEmbedder(), name="again")


def test_options_that_need_one_another(pixel_store: FeatureStore, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="`images` is needed"):
        evaluate(pixel_store.path, pixel_store.path, run=tmp_path)
    with pytest.raises(BadInputError, match="`gallery_images` needs `run`"):
        evaluate(pixel_store.path, pixel_store.path, gallery_images=find_images(photos))


def test_the_gallery_store_of_one_photo(tmp_path: Path) -> None:
    """Nothing remains once the photo itself is ignored."""
    vectors, _ = clusters(1, 1)
    one = write_store(tmp_path / "one", SPACE, Items(("a",), ("",)), vectors)
    with pytest.raises(BadInputError, match="no query has a relevant gallery item"):
        evaluate(one.path, one.path)


def test_extract_then_evaluate(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    queries = extract(find_images(photos).subset(range(0, 24, 3)), PixelGallery(), tmp_path / "queries")
    result = evaluate(pixel_store.path, queries.path, relevance_k=4)
    assert result.queries == 8 and result.gallery == 24 and result.rows[0].mean_average_precision == 1.0


def test_every_row_carries_intervals_and_every_query(tmp_path: Path) -> None:
    gallery, queries = store(tmp_path / "g", 60, 1), store(tmp_path / "q", 12, 2)
    result = evaluate(gallery.path, queries.path)
    (row,) = result.rows
    assert set(row.intervals) == {
        "mAP",
        "RBO",
        *(f"{name}@{k}" for name in ("mP", "recall", "overlap") for k in (1, 5, 10)),
    }
    for name, interval in row.intervals.items():
        assert interval.low <= interval.mean <= interval.high, name
    (scores,) = result.per_query.scores
    assert scores.model == OWN_ROW and scores.queries == queries.items.ids and scores.setting == "all"
    assert np.nanmean(scores.values["AP"]) == pytest.approx(row.mean_average_precision)
    first = rank(queries.vectors(), gallery.vectors())[:, :10]
    assert scores.found == tuple(tuple(gallery.items.ids[position] for position in line) for line in first)
    words = result.protocol.model_dump()
    assert words["distractors"] == words["crop"] == "none" and words["relevance"].startswith("labels")
    assert "BCa" in words["intervals"] and "seed 0" in words["intervals"] and "exact" in words["search"]
    header = result.per_query.header
    assert header.gallery.fingerprint == SPACE.fingerprint and header.queries.count == 12
