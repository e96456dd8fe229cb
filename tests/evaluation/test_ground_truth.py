"""Ground truth: the protocol's settings; ids and rows; boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecsd.errors import BadInputError
from edgecsd.evaluation.ground_truth import GroundTruth, Setting, match_ids
from edgecsd.metrics.retrieval import average_precision, mean_of
from edgecsd.photos.boxes import Box
from edgecsd.photos.finding import find_images

TEN = tuple(f"i{number}" for number in range(10))


def truth(easy: set[str], hard: set[str], junk: set[str], **fields: object) -> GroundTruth:
    columns = ((frozenset(items),) for items in (easy, hard, junk))
    values = dict(zip(("easy", "hard", "junk"), columns, strict=True))
    return GroundTruth(**{"query_ids": ("q",), "gallery_ids": None, "boxes": (None,), **values, **fields})


# ---------------------------------------------------------------------------------------------- the protocol

# DESIGN.md, section 8: ranking 0..9, easy {0, 4}, hard {2, 7}, junk {1}
VECTORS = {Setting.EASY: 0.7916666667, Setting.MEDIUM: 0.8110119048, Setting.HARD: 0.6625}


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("setting", list(Setting))
def test_the_settings_give_the_protocols_numbers(setting: Setting, listed: bool) -> None:
    given = truth({"i0", "i4"}, {"i2", "i7"}, {"i1"}, gallery_ids=TEN if listed else None)
    (relevance,) = given.relevance(setting, {item: row for row, item in enumerate(TEN)})
    assert average_precision(np.arange(10), relevance) == pytest.approx(VECTORS[setting], abs=1e-10)


def naive_average_precision(ranked: list[str], ok: set[str], junk: set[str]) -> float:
    """Walk down the list; whatever is junk is not there."""
    clean = [item for item in ranked if item not in junk]
    found, area, before = 0, 0.0, 1.0
    for place, item in enumerate(clean, start=1):
        if item in ok:
            found += 1
            area += (before + found / place) / 2
        before = found / place
    return area / len(ok)


def test_random_judgements_agree_with_lists_without_junk() -> None:
    random = np.random.default_rng(4)
    for _ in range(50):
        gallery = [f"jpg/g_{n:03d}.jpg" for n in range(40)]
        kinds = random.integers(0, 4, 40)  # easy, hard, junk, none
        easy, hard, junk = ({f"g_{n:03d}" for n in np.flatnonzero(kinds == kind)} for kind in range(3))
        ranking = random.permutation(40)
        ranked = [f"g_{n:03d}" for n in ranking]
        row_of = {item: row for row, item in enumerate(gallery)}
        for setting, ok, ignored in (
            (Setting.EASY, easy, junk | hard),
            (Setting.MEDIUM, easy | hard, junk),
            (Setting.HARD, hard, junk | easy),
        ):
            (relevance,) = truth(easy, hard, junk).relevance(setting, row_of)
            wanted = naive_average_precision(ranked, ok, ignored)
            assert average_precision(ranking, relevance) == pytest.approx(wanted, abs=1e-12)


def test_a_query_without_items_of_a_setting_is_nan() -> None:
    given = truth({"i0"}, set(), set())
    values = [average_precision(np.arange(10), given.relevance(s, dict.fromkeys(TEN, 0))[0]) for s in Setting]
    assert values[:2] == [1, 1] and np.isnan(values[2])
    with pytest.raises(BadInputError, match="no query has a relevant"):
        mean_of(values[2:], "mAP")


def test_query_photos_that_are_not_in_the_listed_gallery_are_taken_out_of_it() -> None:
    """The folder of the published photos holds the queries too; the protocol's gallery does not."""
    store = {"jpg/a.jpg": 0, "jpg/q1.jpg": 1, "jpg/b.jpg": 2, "jpg/q2.jpg": 3}
    two = {"query_ids": ("q1", "q2"), "boxes": (None, None)}
    given = GroundTruth(
        gallery_ids=("a", "b"),
        easy=(frozenset({"b"}), frozenset({"a"})),
        hard=(frozenset(),) * 2,
        junk=(frozenset(),) * 2,
        **two,
    )
    first, second = given.relevance(Setting.EASY, store)
    assert (first.ok, first.junk) == ({2}, {1, 3})
    assert (second.ok, second.junk) == ({0}, {1, 3})
    listed = GroundTruth(("q1",), ("q1", "a"), (frozenset({"a"}),), (frozenset(),), (frozenset(),), (None,))
    assert listed.relevance(Setting.EASY, {"q1": 0, "a": 1})[0].junk == frozenset()  # the file says that it is in it


def test_a_querys_own_photo_is_ignored_unless_it_is_judged() -> None:
    rows = {"q": 0, "a": 1, "x/q.jpg": 2}
    assert truth({"a"}, set(), set()).relevance(Setting.MEDIUM, rows)[0].junk == {0}
    assert truth({"q"}, {"a"}, set()).relevance(Setting.EASY, rows)[0].ok == {0}
    assert truth({"q"}, {"a"}, set()).relevance(Setting.HARD, rows)[0].junk == {0}
    other = truth({"a"}, set(), set()).relevance(Setting.MEDIUM, {"a": 1, "x/q.jpg": 2})
    assert other[0].junk == frozenset()  # a name alone does not make it the same photo


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(BadInputError, match="as many of each"):
        truth({"a"}, set(), set(), boxes=())
    with pytest.raises(BadInputError, match="1 or more"):
        GroundTruth((), None, (), (), (), ())


# ---------------------------------------------------------------------------------------------- ids

STORE = {"jpg/a_1.jpg": 0, "jpg/a_2.JPEG": 1, "plain": 2, "x/v1.5": 3, "l/d.jpg": 4, "r/d.png": 5, "d.tif": 6}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("jpg/a_1.jpg", 0),
        ("a_1", 0),
        ("a_1.jpg", 0),
        ("jpg/a_1", 0),
        ("a_2", 1),
        ("plain", 2),
        ("v1.5", 3),
        ("l/d", 4),
        ("d.png", 5),
        ("d.tif", 6),
    ],
)
def test_ids_are_found_without_folder_or_suffix(name: str, row: int) -> None:
    assert match_ids([name], STORE, "items") == (row,)


def test_an_exact_id_comes_before_a_file_of_that_name() -> None:
    assert match_ids(["d", "x/d.jpg"], {"x/d.jpg": 0, "d": 1}, "items") == (1, 0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a_1", "gone", "b"], "2 of 3 items in the ground truth are not there, the first: 'gone'"),
        (["d"], "'d' may be any of 'l/d.jpg', 'r/d.png', 'd.tif'; write the whole id"),
        (["a_1", "jpg/a_1"], "'a_1' and 'jpg/a_1' are both 'jpg/a_1.jpg'"),
        (["v1"], "1 of 1 items"),
        (["other/a_1"], "1 of 1 items"),
        (["a_1.png"], "1 of 1 items"),
    ],
)
def test_ids_that_cannot_be_told(names: list[str], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        match_ids(names, STORE, "items")


def test_a_store_that_lacks_items_is_refused() -> None:
    given = truth({"i0", "x"}, {"y"}, {"z"})
    with pytest.raises(BadInputError, match="3 of 4 gallery items in the ground truth are not there, the first: 'x'"):
        given.relevance(Setting.EASY, {item: row for row, item in enumerate(TEN)})
    with pytest.raises(BadInputError, match="1 of 10 gallery items"):  # listed, not judged: the search would be easier
        truth({"i0"}, set(), set(), gallery_ids=TEN).relevance(Setting.EASY, {i: n for n, i in enumerate(TEN[:9])})


def test_query_photos_come_in_order_with_their_boxes(photos: Path) -> None:
    images = find_images(photos)
    given = GroundTruth(
        ("photo-04", "photo-01"), None, *((frozenset(),) * 2 for _ in range(3)), (Box(5, 6, 60, 70), None)
    )
    chosen = given.query_images(images)
    assert [Path(item).stem for item in chosen.ids] == ["photo-04", "photo-01"]
    assert chosen.boxes == (Box(5, 6, 60, 70), None)
    assert chosen.read(0).image.size == (55, 64)
    assert given.query_rows({item: row for row, item in enumerate(images.ids)}) == tuple(
        images.ids.index(item) for item in chosen.ids
    )
    with pytest.raises(BadInputError, match=r"1 of 1 query photos of .* are not there, the first: 'q'"):
        truth(set(), set(), set()).query_images(images)


def test_boxes_in_a_list_and_in_ground_truth_crop_alike(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "q.png")
    (tmp_path / "list.csv").write_text("path,x1,y1,x2,y2\nq.png,10.5,20.4,200,300\n")
    listed = find_images(tmp_path / "list.csv").read(0)
    given = truth(set(), set(), set(), boxes=(Box(10.5, 20.4, 200, 300),)).query_images(find_images(tmp_path)).read(0)
    assert listed.image.tobytes() == given.image.tobytes()
    assert (listed.digest, listed.scale) == (given.digest, given.scale)
