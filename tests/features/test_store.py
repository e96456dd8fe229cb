"""The feature store: what is written is read again, and what breaks its promises is not written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_stores import SPACE, items, unit, write_ten

import edgecsd.features.shards
from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.features.store import FeatureStore, Items, check_vectors, write_store
from edgecsd.files.whole import read_manifest, sha256_file
from edgecsd.photos.views import ViewRecipe


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_ten(tmp_path / "s")


# ------------------------------------------------------------------------------------------------- round trip


def stored_as(vectors: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "int8":
        return vectors.astype(dtype).astype(np.float32)
    whole = np.round(127 * vectors / np.abs(vectors).max(axis=1, keepdims=True))
    return whole / np.linalg.norm(whole, axis=1, keepdims=True).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_what_was_written_is_read(tmp_path: Path, dtype: str) -> None:
    vectors, views = unit(10), unit(20, seed=1)
    write_store(
        tmp_path / "s",
        SPACE,
        items(10, labels=True),
        vectors,
        views=ViewRecipe(count=2),
        view_vectors=views,
        dtype=dtype,
        provenance={"why": "test"},
    )
    opened = FeatureStore.open(tmp_path / "s", verify=True)
    assert opened.items == items(10, labels=True)
    assert opened.space == SPACE
    assert opened.count == 10
    assert opened.manifest["provenance"] == {"why": "test"}
    assert opened.row_of["item 0003 ü.jpg"] == 3
    assert opened.dtype == dtype
    np.testing.assert_allclose(opened.vectors(), stored_as(vectors, dtype), rtol=0, atol=3e-8)
    both = opened.view_vectors()
    assert both.shape == (10, 3, 4)
    for row in range(10):
        assert np.array_equal(both[row, 0], opened.vectors()[row])
        for view in (1, 2):  # row i * views + v - 1 is view v of item i
            wanted = stored_as(views, dtype)[row * 2 + view - 1]
            np.testing.assert_allclose(both[row, view], wanted, rtol=0, atol=3e-8)


def test_an_edgecsd_that_knows_no_int8_refuses_it(store: Path, tmp_path: Path) -> None:
    write_store(tmp_path / "int8", SPACE, items(3), unit(3), dtype="int8")
    with pytest.raises(DamagedFileError, match="schema_version 2 is unknown to this edgecsd, which reads 1; use"):
        read_manifest(tmp_path / "int8" / "manifest.json", "feature store", 1)
    assert read_manifest(store / "manifest.json", "feature store", 1)["schema_version"] == 1


def test_a_store_without_views_has_one_vector_an_item(tmp_path: Path) -> None:
    opened = write_store(tmp_path / "s", SPACE, items(3), unit(3))
    assert opened.view_vectors().shape == (3, 1, 4)
    assert opened.items.labels is None


def test_shards_follow_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edgecsd.features.shards, "SHARD_ROWS", 4)
    vectors = unit(10)
    opened = write_store(tmp_path / "s", SPACE, items(10), vectors, dtype="float32")
    names = sorted(p.name for p in (tmp_path / "s").glob("*.npy"))
    assert names == [f"features-0000{n}-of-00003.npy" for n in range(3)]
    blocks = list(opened.blocks())
    assert [(first, len(block)) for first, block in blocks] == [(0, 4), (4, 4), (8, 2)]
    assert all(isinstance(block, np.memmap) for _, block in blocks)
    assert np.array_equal(np.concatenate([block for _, block in blocks]), vectors)
    assert np.array_equal(opened.vectors(), vectors)


def test_the_same_contents_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_store(tmp_path / name, SPACE, items(10, labels=True), unit(10))
    assert sha256_file(tmp_path / "a") == sha256_file(tmp_path / "b")


def test_unreadable_images_are_listed_one_a_line(tmp_path: Path) -> None:
    bad = [("a\tb\n.jpg", "broken\nstream"), ("bad-\udcff.jpg", "not UTF-8")]
    write_store(tmp_path / "s", SPACE, items(3), unit(3), unreadable=bad)
    lines = (tmp_path / "s" / "unreadable.txt").read_text().splitlines()
    assert lines == ["a\\tb\\n.jpg\tbroken\\nstream", "bad-\\udcff.jpg\tnot UTF-8"]


def test_a_store_replaces_a_store(store: Path) -> None:
    write_store(store, SPACE, items(3), unit(3))
    assert FeatureStore.open(store, verify=True).count == 3
    assert [p.name for p in store.parent.iterdir()] == ["s"]


def test_what_a_killed_writer_left_is_cleared_away(store: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    (store.parent / f".s.{int(dead.stdout)}.tmp").mkdir()
    write_store(store, SPACE, items(3), unit(3))
    assert [p.name for p in store.parent.iterdir()] == ["s"]


# --------------------------------------------------------------------------------------------- refused writes


def with_value(row: int, value: float) -> np.ndarray:
    vectors = unit(5)
    vectors[row, 1] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "ids", "message"),
    [
        (unit(5)[:, :3], None, r"shape \(5, 3\); \(N, 4\) is expected"),
        (unit(5).ravel(), None, r"shape \(20,\)"),
        (unit(4), None, "4 vectors but 5 ids"),
        (unit(5) * 2, None, r"row 0 \(item 0000 ü.jpg\) has length 2.0000, not 1"),
        (with_value(3, np.nan), None, r"row 3 \(item 0003 ü.jpg\) has NaN or infinity \(1 such"),
        (with_value(2, np.inf), None, r"row 2 .* has NaN or infinity"),
        (np.zeros((5, 4), np.float32), None, "has length 0.0000"),
        (unit(5), ("a", "b", "c", "b", "e"), "ids are not unique: 'b' stands more than once"),
    ],
)
def test_vectors_that_break_the_promises_are_refused(
    tmp_path: Path, vectors: np.ndarray, ids: tuple[str, ...] | None, message: str
) -> None:
    rows = Items(ids, ("",) * 5) if ids else items(5)
    with pytest.raises(BadInputError, match=message):
        write_store(tmp_path / "s", SPACE, rows, vectors)
    assert list(tmp_path.iterdir()) == []


def test_no_vector_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no vector"):
        write_store(tmp_path / "s", SPACE, items(0), np.empty((0, 4), np.float32))


def test_half_precision_input_is_given_its_rounding() -> None:
    vectors = unit(50, 512).astype(np.float16)
    check_vectors(vectors, [str(n) for n in range(50)], 512)


def test_view_vectors_are_checked_too(tmp_path: Path) -> None:
    def write(view_vectors: np.ndarray) -> None:
        write_store(tmp_path / "s", SPACE, items(5), unit(5), views=ViewRecipe(count=2), view_vectors=view_vectors)

    with pytest.raises(BadInputError, match=r"5 items of 2 views need \(10, 4\)"):
        write(unit(9))
    with pytest.raises(BadInputError, match=r"5 items of 2 views need \(10, 4\)"):
        write(unit(10, 5))
    broken = unit(10)
    broken[7] *= 3
    with pytest.raises(BadInputError, match=r"view 2 of item 0003 ü.jpg\) has length 3"):
        write(broken)


def test_other_types_digests_and_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="float32, float16 or int8, not as int4"):
        write_store(tmp_path / "s", SPACE, items(3), unit(3), dtype="int4")
    with pytest.raises(BadInputError, match="2 digests for 3 ids"):
        write_store(tmp_path / "s", SPACE, Items(items(3).ids, ("", "")), unit(3))
    with pytest.raises(BadInputError, match="1 labels for 3 ids"):
        write_store(tmp_path / "s", SPACE, Items(items(3).ids, ("",) * 3, ("a",)), unit(3))
    with pytest.raises(BadInputError, match="not valid UTF-8"):
        write_store(tmp_path / "s", SPACE, Items(("a\udcff", "b"), ("",) * 2), unit(2))
    assert list(tmp_path.iterdir()) == []
