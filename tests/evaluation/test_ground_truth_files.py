"""Files of ground truth: the published pickles, JSON and CSV."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.evaluation.ground_truth import GroundTruth, read_ground_truth
from edgecsd.photos.boxes import Box


def truth(easy: set[str], hard: set[str], junk: set[str], **fields: object) -> GroundTruth:
    columns = ((frozenset(items),) for items in (easy, hard, junk))
    values = dict(zip(("easy", "hard", "junk"), columns, strict=True))
    return GroundTruth(**{"query_ids": ("q",), "gallery_ids": None, "boxes": (None,), **values, **fields})


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
        {
            "id": "q_0",
            "box": [136.5, 34.1, 648.5, 955.7],
            "easy": ["a_000", "a_002"],
            "hard": ["a_001"],
            "junk": ["b_001"],
        },
        {"id": "q_1", "box": [0, 1, 2, 3], "hard": ["b_000"]},
    ],
}


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
)
def test_bad_csv_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        read_ground_truth(write(tmp_path, "t.csv", text))
    assert "t.csv" in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"a \.pkl, \.json, \.csv file"):
        read_ground_truth(write(tmp_path, "gnd.mat", "x"))
    with pytest.raises(BadInputError, match=r"gone\.pkl: no such file"):
        read_ground_truth(tmp_path / "gone.pkl")
