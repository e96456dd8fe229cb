"""Columns of strings in Arrow's memory: read like a tuple, and rows found by id as by a dict."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgecsd.files import columns as item_columns
from edgecsd.files.columns import Column, DigestOf, RowOf, first_repeated, read_column

IDS = (*(f"gallery/photo {number:04d}.jpg" for number in range(700)), "", "ü/ß.jpg", "日本.png")
DIGESTS = tuple(hashlib.sha256(item.encode()).hexdigest() if n % 7 else "" for n, item in enumerate(IDS))
LABELS = tuple(f"label {number % 5}" for number in range(len(IDS)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Several row groups, which a column must join."""
    columns = {"id": IDS, "digest": DIGESTS, "label": LABELS}
    table = pa.table({name: pa.array(list(values), pa.string()) for name, values in columns.items()})
    pq.write_table(table, tmp_path / "items.parquet", row_group_size=300)
    return tmp_path / "items.parquet"


def column(file: Path, name: str) -> Column:
    found = read_column(file, name)
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "wanted"), [("id", IDS), ("digest", DIGESTS), ("label", LABELS)])
def test_a_column_is_the_tuple(name: str, wanted: tuple[str, ...], file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_columns, "AT_ONCE", 100)
    for found in (column(file, name), Column.of(wanted), Column.of(iter(wanted))):
        assert len(found) == len(wanted) and tuple(found) == wanted
        assert found == wanted and wanted == found and list(wanted) == found and found == column(file, name)
        assert found != wanted[::-1] and found != wanted[1:] and wanted[1:] != found and found != 3
        for row in (0, 299, 300, len(wanted) - 1, -1, -len(wanted)):
            assert found[row] == wanted[row]
        for rows in (slice(290, 310), slice(-5, None), slice(600, 20, -7), slice(9, 3), slice(0, 9999), slice(None)):
            assert found[rows] == wanted[rows]
        for outside in (len(wanted), -len(wanted) - 1):
            with pytest.raises(IndexError):
                found[outside]
        assert found.known == sum(1 for text in wanted if text)
        assert found.strings().to_pylist() == list(wanted) and found.strings().type == pa.string()


def test_no_such_column_and_no_row(tmp_path: Path, file: Path) -> None:
    assert read_column(file, "place") is None
    pq.write_table(pa.table({"id": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    for empty in (column(tmp_path / "empty.parquet", "id"), Column.of(())):
        assert len(empty) == 0 and tuple(empty) == () and empty == () and len(RowOf(empty)) == 0
        assert "x" not in RowOf(empty)


def test_digests_take_32_bytes_and_those_of_boxes_stay_text(tmp_path: Path, file: Path) -> None:
    packed = column(file, "digest")._values
    assert packed.type == pa.binary(32) and packed.null_count == sum(1 for digest in DIGESTS if not digest)
    for odd in (f"{'a' * 64}[10,10,40,20]", "A" * 64, "g" * 64, "0", "ü" * 32):
        pq.write_table(pa.table({"digest": [*DIGESTS, odd]}), tmp_path / "odd.parquet", row_group_size=300)
        assert tuple(column(tmp_path / "odd.parquet", "digest")) == (*DIGESTS, odd)


def test_labels_stand_once(file: Path) -> None:
    values = column(file, "label")._values
    assert pa.types.is_dictionary(values.type) and values.chunk(0).dictionary.to_pylist() == sorted(set(LABELS))


@pytest.mark.parametrize(
    "values", [pa.array(["a", None]), pa.array([1, 2]), pa.array([b"a", b"b"]), pa.array([["a"], ["b"]])]
)
def test_a_row_without_a_string_is_refused(values: pa.Array, tmp_path: Path) -> None:
    for name in ("id", "digest", "label"):
        pq.write_table(pa.table({name: values}), tmp_path / "x.parquet")
        with pytest.raises(ValueError, match=f"column '{name}' has a row without a string"):
            read_column(tmp_path / "x.parquet", name)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        Column.of(["a\udcff"])


def test_rows_by_id_are_a_dict(file: Path) -> None:
    wanted = {item: row for row, item in enumerate(IDS)}
    for found in (RowOf(column(file, "id")), RowOf(IDS)):
        assert len(found) == len(IDS) and dict(found) == wanted and found == wanted and wanted == found
        assert found.keys() <= wanted.keys() and found.get("absent", -1) == -1 and found.find("absent") == -1
        assert "absent" not in found and 3 not in found
        with pytest.raises(KeyError):
            found["absent"]


def test_ids_whose_hashes_are_equal_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's hashes of strings differ almost always: here only 3 values of them are used."""
    monkeypatch.setattr(item_columns, "hash", lambda text: len(text) % 3, raising=False)
    found = RowOf(IDS)
    assert len(found) == len(IDS) and [found[item] for item in IDS] == list(range(len(IDS)))
    assert "absent" not in found and first_repeated(IDS) is None
    assert len(RowOf((*IDS, IDS[5]))) == len(IDS)
    assert first_repeated((*IDS, IDS[5], IDS[4])) == IDS[5]


def test_ids_that_stand_twice_are_counted() -> None:
    twice = ("a", "b", "a", "c", "b", "a")
    assert len(RowOf(twice)) == 3 and RowOf(twice)["a"] == 0
    assert first_repeated(twice) == "a" and first_repeated(twice[:2]) is None and first_repeated(()) is None


def test_known_digests_by_id(file: Path) -> None:
    row_of, digests = RowOf(column(file, "id")), column(file, "digest")
    found = DigestOf(row_of, digests)
    wanted = {item: digest for item, digest in zip(IDS, DIGESTS, strict=True) if digest}
    assert found == wanted and len(found) == len(wanted) and IDS[0] not in found and found.get(IDS[0], "") == ""
    assert not DigestOf(row_of, Column.of([""] * len(IDS)))


def test_far_fewer_bytes_than_strings_and_a_dict(tmp_path: Path) -> None:
    """What Arrow holds for 100,000 ids and digests, and what looking them up takes: 31 + 32 + 12 bytes each."""
    count = 100_000
    ids = [f"gallery/photo-{row:09d}.jpg" for row in range(count)]
    digests = np.random.default_rng(0).bytes(32 * count).hex()
    table = {"id": ids, "digest": [digests[64 * row : 64 * row + 64] for row in range(count)]}
    pq.write_table(pa.table(table), tmp_path / "items.parquet")
    found = [column(tmp_path / "items.parquet", name) for name in ("id", "digest")]
    row_of = RowOf(found[0])
    assert sum(each._values.nbytes for each in found) / count < 64
    assert (row_of._hashes.nbytes + row_of._rows.nbytes) / count == 12
