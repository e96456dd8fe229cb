"""evaluate with ground truth and distractors: easy, medium and hard, junk, and boxes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from doubles import PixelGallery
from evaluations import SPACE, PixelGalleryEmbedder, clusters, store

from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.evaluation.evaluate import OWN_ROW, evaluate
from edgecsd.evaluation.ground_truth import Setting, read_ground_truth
from edgecsd.evaluation.ranking import rank
from edgecsd.evaluation.relevance import ground_truth_benchmarks, own_photos
from edgecsd.evaluation.task import open_task
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import Items, write_store
from edgecsd.gallery.extract import extract
from edgecsd.metrics.retrieval import average_precision
from edgecsd.models.embedding import embed_store_items
from edgecsd.photos.boxes import Box
from edgecsd.photos.finding import find_images
from edgecsd.progress import Silent


def ground_truth(path: Path, *, hard: bool = True, box: str = "") -> Path:
    """Queries 2 and 0 of the store "q": easy items of every fifth row, hard ones beside them, one of them junk."""
    rows = ["query,item,judgement" + (",x1,y1,x2,y2" if box else "")]
    for query, start in (("q-2", 0), ("q-0", 1)):
        rows += [f"{query},g-{row},easy{box}" for row in range(start, 40, 5)]
        rows += [f"{query},g-{row},hard{box}" for row in range(start + 2, 40, 10) if hard]
        rows += [f"{query},g-{start + 3},junk{box}"]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_easy_medium_and_hard(tmp_path: Path) -> None:
    gallery, queries = store(tmp_path / "g", 60, 1, labelled=False), store(tmp_path / "q", 6, 2, labelled=False)
    truth = read_ground_truth(ground_truth(tmp_path / "truth.csv"))
    result = evaluate(gallery.path, queries.path, ground_truth=tmp_path / "truth.csv")
    assert [row.setting for row in result.rows] == ["easy", "medium", "hard"] and result.queries == 2
    order = [queries.row_of[item] for item in truth.query_ids]
    ranking = rank(queries.vectors()[order], gallery.vectors())
    for row, setting in zip(result.rows, Setting, strict=True):
        relevance = truth.relevance(setting, gallery.row_of)
        expected = [average_precision(line, each) for line, each in zip(ranking, relevance, strict=True)]
        np.testing.assert_allclose(row.values["AP"], expected)
        assert row.name == OWN_ROW and row.overlap[10] == 1.0
    assert {scores.queries for scores in result.per_query.scores} == {truth.query_ids}
    assert "easy, medium, hard" in result.protocol.relevance and result.per_query.header.ground_truth
    assert "no query has a relevant" not in result.relevance
    easy_only = evaluate(
        gallery.path, queries.path, ground_truth=ground_truth(tmp_path / "easy.csv", hard=False)
    )  # nothing is hard: no hard row
    assert [row.setting for row in easy_only.rows] == ["easy", "medium"]
    with pytest.raises(BadInputError, match="`labels=False` say what is relevant, and so does `ground_truth`"):
        evaluate(gallery.path, queries.path, ground_truth=tmp_path / "truth.csv", labels=False)


def test_the_querys_own_photo_is_junk_unless_the_ground_truth_judges_it(tmp_path: Path) -> None:
    vectors, _ = clusters(40, 1)
    known = tuple(f"{row:064d}" for row in range(40))
    gallery = write_store(
        tmp_path / "g", SPACE, Items(tuple(f"g-{n}" for n in range(40)), known), vectors, dtype="float32"
    )
    crops = tuple(f"{known[row]}[0,0,5,5]" for row in (7, 0, 10))
    queries = write_store(tmp_path / "q", SPACE, Items(("q-0", "q-1", "q-2"), crops), vectors[:3], dtype="float32")
    assert own_photos(gallery, queries) == [{7}, {0}, {10}]
    truth = read_ground_truth(ground_truth(tmp_path / "truth.csv"))
    assert truth.query_ids == ("q-2", "q-0")
    easy = ground_truth_benchmarks(gallery, queries, [2, 0], truth)[0].relevance
    assert 10 in easy[0].ok and 10 not in easy[0].junk  # judged easy
    assert 7 in easy[1].junk and 7 not in truth.relevance(Setting.EASY, gallery.row_of)[1].junk  # not judged


def test_distractors_are_searched_and_never_relevant(photos: Path, tmp_path: Path) -> None:
    gallery, queries = store(tmp_path / "g", 60, 1), store(tmp_path / "q", 12, 2)
    more, alien = store(tmp_path / "d", 30, 3), tmp_path / "alien"
    result = evaluate(gallery.path, queries.path, distractors=[more.path])
    (row,), (before,) = result.rows, evaluate(gallery.path, queries.path).rows
    assert row.mean_average_precision < before.mean_average_precision and row.overlap[10] == 1.0
    assert result.gallery == 90 and result.protocol.distractors == "30 items, never relevant"
    found = {item for line in result.per_query.scores[0].found for item in line}
    assert found & set(more.items.ids) and found & set(gallery.items.ids)
    assert result.per_query.header.distractors[0].count == 30
    truth = ground_truth(tmp_path / "truth.csv")
    others = store(tmp_path / "d2", 20, 4)
    easy = evaluate(gallery.path, queries.path, ground_truth=truth, distractors=[more.path, others.path])
    assert easy.gallery == 110 and len(easy.rows) == 3
    write_store(alien, EmbeddingSpace(gallery_model="other", dim=16), more.items, more.vectors())
    with pytest.raises(IncompatibleError, match="different embedding spaces"):
        evaluate(gallery.path, queries.path, distractors=[alien])
    copy = shutil.copytree(gallery.path, tmp_path / "copy")
    for twice in ([gallery.path], [copy], [more.path, more.path]):
        with pytest.raises(BadInputError, match="is searched already; give other photos"):
            evaluate(gallery.path, queries.path, distractors=twice)
    with pytest.raises(BadInputError, match="`distractors` needs labels in both stores or `ground_truth`"):
        evaluate(gallery.path, queries.path, labels=False, distractors=[more.path])
    with pytest.raises(BadInputError, match="`gallery_images` and `distractors`"):
        evaluate(
            gallery.path,
            queries.path,
            run=tmp_path,
            images=find_images(photos),
            gallery_images=find_images(photos),
            distractors=[more.path],
        )


def test_the_querys_photo_among_the_distractors_is_junk(tmp_path: Path) -> None:
    gallery = store(tmp_path / "g", 20, 1)
    queries = store(tmp_path / "q", 3, 2, digests=tuple(f"{n:064d}" for n in range(3)))
    more = store(tmp_path / "d", 3, 2, digests=("", f"{2:064d}", f"{0:064d}"))
    assert own_photos(gallery, queries, [more]) == [{22}, set(), {21}]


def test_boxes_apply_where_the_query_store_was_cropped(photos: Path, tmp_path: Path) -> None:
    """The same boxes from the list that the store was extracted from, and from the ground truth."""
    whole = find_images(photos)
    boxed = whole.with_boxes({item: Box(5, 5, 60, 70) for item in whole.ids[:2]})
    gallery = extract(whole, PixelGallery(), tmp_path / "g")
    truth = tmp_path / "truth.csv"
    truth.write_text(
        "query,item,judgement,x1,y1,x2,y2\n"
        + "".join(f"{item},{whole.ids[n + 5]},easy,5,5,60,70\n" for n, item in enumerate(whole.ids[:2]))
    )
    told: list[str] = []
    for photos_of_store, crop in (
        (boxed, "2 of 2 queries cropped"),
        (whole, "none, although the ground truth has boxes"),
    ):
        queries = extract(photos_of_store.subset(range(4)), PixelGallery(), tmp_path / crop[:4])
        task = open_task(gallery.path, queries.path, ground_truth=truth)
        assert task.protocol().crop.startswith(crop)
        again = embed_store_items(task.crop(whole, Told(told)), queries, PixelGalleryEmbedder(), name="again")
        np.testing.assert_allclose(again, queries.vectors(), atol=1e-3)
    assert len(told) == 1 and "made of whole photos" in told[0]
    with pytest.raises(BadInputError, match="not cropped to the same box"):
        embed_store_items(boxed, queries, PixelGalleryEmbedder(), name="again")


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def message(self, text: str) -> None:
        self._told.append(text)
