"""Ground truth: the published pickles, JSON and CSV; ids and rows; the protocol's settings."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.ground_truth import GroundTruth, Setting, match_ids, read_ground_truth
from edgecsd.images import find_images
from edgecsd.metrics import average_precision, mean_of
from edgecsd.preprocess import Box

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
            (Setting.EASY, easy, junk | hard), (Setting.MEDIUM, easy | hard, junk), (Setting.HARD, hard, junk | easy),
        ):  # fmt: skip
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
        gallery_ids=("a", "b"), easy=(frozenset({"b"}), frozenset({"a"})), hard=(frozenset(),) * 2,
        junk=(frozenset(),) * 2, **two,
    )  # fmt: skip
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


# ---------------------------------------------------------------------------------------------- ids

STORE = {"jpg/a_1.jpg": 0, "jpg/a_2.JPEG": 1, "plain": 2, "x/v1.5": 3, "l/d.jpg": 4, "r/d.png": 5, "d.tif": 6}


@pytest.mark.parametrize(
    ("name", "row"),
    [("jpg/a_1.jpg", 0), ("a_1", 0), ("a_1.jpg", 0), ("jpg/a_1", 0), ("a_2", 1), ("plain", 2), ("v1.5", 3), ("l/d", 4),
     ("d.png", 5), ("d.tif", 6)],
)  # fmt: skip
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


# ---------------------------------------------------------------------------------------------- files

PUBLISHED = {
    "imlist": ["a_000", "a_001", "a_002", "b_000", "b_001"],
    "qimlist": ["q_0", "q_1"],
    "gnd": [
        {"bbx": [136.5, 34.1, 648.5, 955.7], "easy": [0, 2], "hard": [1], "junk": [4]},
        {"bbx": [0.0, 1.0, 2.0, 3.0], "easy": [], "hard": [3], "junk": []},
    ],
}
WANTED = GroundTruth(
    ("q_0", "q_1"),
    tuple(PUBLISHED["imlist"]),
    (frozenset({"a_000", "a_002"}), frozenset()),
    (frozenset({"a_001"}), frozenset({"b_000"})),
    (frozenset({"b_001"}), frozenset()),
    (Box(136.5, 34.1, 648.5, 955.7), Box(0, 1, 2, 3)),
)


def published(tmp_path: Path, value: object, protocol: int = 2) -> Path:
    file = tmp_path / "gnd_roxford5k.pkl"
    file.write_bytes(pickle.dumps(value, protocol=protocol))
    return file


def as_arrays(entry: dict[str, list[float]]) -> dict[str, np.ndarray]:
    return {key: np.array(values) for key, values in entry.items()}  # an empty one has float64, as from MATLAB


@pytest.mark.parametrize("form", ["lists", "arrays", "tuples", "scalars", "array of names", "bytes"])
def test_the_published_form_is_read(tmp_path: Path, form: str) -> None:
    value: dict[str, object] = dict(PUBLISHED)
    if form == "arrays":
        value["gnd"] = [as_arrays(entry) for entry in PUBLISHED["gnd"]]
    elif form == "tuples":
        value["gnd"] = tuple({key: tuple(values) for key, values in entry.items()} for entry in PUBLISHED["gnd"])
    elif form == "scalars":
        value["gnd"] = [{key: list(np.array(values)) for key, values in entry.items()} for entry in PUBLISHED["gnd"]]
    elif form == "array of names":
        value["imlist"] = np.array(PUBLISHED["imlist"])
    elif form == "bytes":
        value["qimlist"] = [name.encode() for name in PUBLISHED["qimlist"]]
    assert read_ground_truth(published(tmp_path, value)) == WANTED


def changed(**fields: object) -> dict[str, object]:
    first = {**PUBLISHED["gnd"][0], **fields}
    return {**PUBLISHED, "gnd": [first, PUBLISHED["gnd"][1]]}


ITSELF: list[object] = []
ITSELF.append(ITSELF)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "a dict of imlist, qimlist and gnd"),
        ({"imlist": []}, "a dict of imlist, qimlist and gnd"),
        ({**PUBLISHED, "imlist": [1]}, "imlist: a list of image names"),
        ({**PUBLISHED, "imlist": ITSELF}, "imlist: a list of image names"),
        ({**PUBLISHED, "qimlist": ["q"]}, "one entry for each of the 1 images"),
        ({**PUBLISHED, "qimlist": [], "gnd": []}, "there is no query in it"),
        ({**PUBLISHED, "qimlist": ["q", "q"]}, "query 'q' stands more than once"),
        ({**PUBLISHED, "imlist": ["a"] * 5}, "gallery item 'a' stands more than once|easy item 'a'"),
        ({**PUBLISHED, "gnd": [{"ok": [1], "junk": [2]}] * 2}, "found: junk, ok .the original Oxford"),
        ({**PUBLISHED, "gnd": [1, 2]}, "found: int"),
        (changed(easy=[5]), r"query 'q_0': easy: int is no position in imlist .0 to 4"),
        (changed(easy=[-1]), "is no position in imlist"),
        (changed(easy=[0.5]), "0.5 is no position"),
        (changed(easy=[True]), "True is no position"),
        (changed(easy=ITSELF), "list is no position"),
        (changed(easy=3), "a list of positions"),
        (changed(easy=[0, 0]), "easy item 'a_000' stands more than once"),
        (changed(easy=[1]), "item 'a_001' has two judgements"),
        (changed(bbx=[1, 2, 3]), "query 'q_0': a box is the four numbers"),
        (changed(bbx="abcd"), "a box is the four numbers"),
        (changed(bbx=[1, 2, 3, float("nan")]), "must be finite"),
        (changed(bbx=[1, 2, 3, 10**400]), "query 'q_0': int too large"),
    ],
)
def test_pickles_of_other_content_say_what_is_wrong(tmp_path: Path, value: object, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        read_ground_truth(published(tmp_path, value))
    assert "gnd_roxford5k.pkl" in str(caught.value)


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("/tmp/edgecsd-test-must-not-exist",)


def test_a_hostile_or_cut_pickle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"names '(posix|nt)\.mkdir'"):
        read_ground_truth(published(tmp_path, {**PUBLISHED, "extra": Hostile()}))
    assert not Path("/tmp/edgecsd-test-must-not-exist").exists()
    file = published(tmp_path, PUBLISHED)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DamagedFileError, match=r"gnd_roxford5k\.pkl: damaged"):
        read_ground_truth(file)


JSON = {
    "gallery": list(WANTED.gallery_ids or ()),
    "queries": [
        {"id": "q_0", "box": [136.5, 34.1, 648.5, 955.7], "easy": ["a_000", "a_002"], "hard": ["a_001"],
         "junk": ["b_001"]},
        {"id": "q_1", "box": [0, 1, 2, 3], "hard": ["b_000"]},
    ],
}  # fmt: skip


def write(tmp_path: Path, name: str, text: str) -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_json_is_read(tmp_path: Path) -> None:
    assert read_ground_truth(write(tmp_path, "t.json", json.dumps(JSON))) == WANTED
    small = read_ground_truth(write(tmp_path, "t.json", '{"queries": [{"id": "q", "box": null, "easy": ["a"]}]}'))
    assert small == truth({"a"}, set(), set())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "not ground truth"),
        ('{"queries": []}', "there is no query in it"),
        ('{"queries": [{"id": "q", "eazy": []}]}', r"queries\.0\.eazy"),
        ('{"queries": [{"id": 3}]}', r"queries\.0\.id"),
        ('{"queries": [{"id": ""}]}', "a query has no id"),
        ('{"queries": [{"id": "q", "easy": [1]}]}', r"queries\.0\.easy\.0"),
        ('{"queries": [{"id": "q", "easy": [""]}]}', "a query 'q': easy item has no id"),
        ('{"queries": [{"id": "q", "box": [1, 2, 3]}]}', "query 'q': a box is the four numbers"),
        ('{"queries": [{"id": "q", "box": [1, 2, 3, Infinity]}]}', "query 'q': box .* must be finite"),
        ('{"queries": [{"id": "q"}, {"id": "q"}]}', "query 'q' stands more than once"),
        ('{"queries": [{"id": "q", "easy": ["a"]}], "gallery": ["b"]}', "'a' is judged, and not in the gallery's list"),
        ('{"queries": [{"id": "q", "easy": ["a"]}], "gallery": []}', "'a' is judged, and not in the gallery's list"),
    ],
)
def test_bad_json_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        read_ground_truth(write(tmp_path, "t.json", text))
    assert "t.json" in str(caught.value)


CSV = """query,item,judgement,x1,y1,x2,y2
q_0,a_000,easy,136.5,34.1,648.5,955.7
q_1,b_000,hard,0,1,2,3
q_0,a_002,easy,,,,
q_0,a_001,hard,136.5,34.1,648.5,955.7
q_0,b_001,junk,,,,
"""


def test_csv_is_read(tmp_path: Path) -> None:
    assert read_ground_truth(write(tmp_path, "t.csv", CSV)) == GroundTruth(
        WANTED.query_ids, None, WANTED.easy, WANTED.hard, WANTED.junk, WANTED.boxes
    )
    assert read_ground_truth(write(tmp_path, "t.csv", "query,item,judgement\nq,a,easy\n")) == truth({"a"}, set(), set())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query,item\nq,a\n", "judgement and, for boxes, all of x1, y1, x2, y2 are expected .found: query, item"),
        ("query,item,judgement,x1,y1\n", "all of x1, y1, x2, y2"),
        ("query,item,judgement\n", "there is no query in it"),
        ("query,item,judgement\nq,a,ok\n", r"row 2 .*judgement 'ok'; one of easy, hard, junk"),
        ("query,item,judgement\nq,a,easy\nq,,easy\n", "easy item has no id"),
        ("query,item,judgement\n,a,easy\n", "a query has no id"),
        ("query,item,judgement\nq,a,easy\nq,a,easy\n", "easy item 'a' stands more than once"),
        ("query,item,judgement\nq,a,easy\nq,a,junk\n", "'a' has two judgements"),
        (CSV.replace("0,1,2,3", "0,1,2,"), "row 3 .*x1, y1, x2, y2 = '0', '1', '2', ''"),
        (CSV.replace("0,1,2,3", "0,1,2,nan"), "row 3 .*must be finite"),
        (CSV.replace("b_001,junk,,,,", "b_001,junk,1,2,3,4"), "row 6 .*another box than in an earlier row"),
    ],
)  # fmt: skip
def test_bad_csv_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        read_ground_truth(write(tmp_path, "t.csv", text))
    assert "t.csv" in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"a \.pkl, \.json, \.csv file"):
        read_ground_truth(write(tmp_path, "gnd.mat", "x"))
    with pytest.raises(BadInputError, match=r"gone\.pkl: no such file"):
        read_ground_truth(tmp_path / "gone.pkl")


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(BadInputError, match="as many of each"):
        truth({"a"}, set(), set(), boxes=())
    with pytest.raises(BadInputError, match="1 or more"):
        GroundTruth((), None, (), (), (), ())


def test_boxes_in_a_list_and_in_ground_truth_crop_alike(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "q.png")
    (tmp_path / "list.csv").write_text("path,x1,y1,x2,y2\nq.png,10.5,20.4,200,300\n")
    listed = find_images(tmp_path / "list.csv").read(0)
    given = truth(set(), set(), set(), boxes=(Box(10.5, 20.4, 200, 300),)).query_images(find_images(tmp_path)).read(0)
    assert listed.image.tobytes() == given.image.tobytes()
    assert (listed.digest, listed.scale) == (given.digest, given.scale)
