"""import-features: each format, and every fault a file of somebody else's vectors can have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgecsd.errors import BadInputError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.gallery.import_features import import_features
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.progress import Silent

NAMES = [f"shop/{row}.jpg" for row in range(10)]


def unit(rows: int = 10, dim: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def given(folder: Path, vectors: np.ndarray, names: list[str] = NAMES) -> dict[str, Any]:
    np.save(folder / "vectors.npy", vectors)
    (folder / "ids.txt").write_text("\n".join(names) + "\n")
    return {"file": folder / "vectors.npy", "ids": folder / "ids.txt", "out": folder / "out.store", "space": "acme-v7"}


def parquet(folder: Path, **columns: Any) -> dict[str, Any]:
    pq.write_table(pa.table(columns), folder / "vectors.parquet")
    return {"file": folder / "vectors.parquet", "out": folder / "out.store", "space": "acme-v7"}


def assert_whole(store: FeatureStore, dtype: str = "float32") -> None:
    assert store.items.ids == tuple(NAMES) and store.space == EmbeddingSpace(gallery_model="acme-v7", dim=8)
    np.testing.assert_allclose(store.vectors(), unit(), atol=1e-3 if dtype == "float16" else 1e-7)


def test_npy_with_ids(tmp_path: Path) -> None:
    store = import_features(**given(tmp_path, unit()), dim=8, dtype="float32")
    assert_whole(store)
    assert store.items.labels is None and set(store.items.digests) == {""}


def test_npy_of_doubles_and_halves(tmp_path: Path) -> None:
    assert_whole(import_features(**given(tmp_path, unit().astype(np.float64))), "float16")
    halves = unit(rows=200).astype(np.float16)
    lengths = np.linalg.norm(halves.astype(np.float32), axis=1)
    assert np.abs(lengths - 1).max() > 1e-4  # unit as far as float16 goes: nothing to refuse
    store = import_features(**given(tmp_path, halves, [str(n) for n in range(200)]), overwrite=True)
    np.testing.assert_array_equal(store.vectors(), halves.astype(np.float32))


def test_ids_and_labels_from_csv(tmp_path: Path) -> None:
    arguments = given(tmp_path, unit())
    names = [*NAMES[:9], "a, quoted\nname"]
    rows = [f'"{name}",{number % 2}' for number, name in enumerate(names)]
    (tmp_path / "ids.csv").write_text("id,label\n" + "\n".join(rows))
    store = import_features(**{**arguments, "ids": tmp_path / "ids.csv"})
    assert store.items.ids == tuple(names) and store.items.labels == ("0", "1") * 5


def test_ids_may_hold_what_python_takes_for_a_line_end(tmp_path: Path) -> None:
    names = [*NAMES[:9], "odd\u2028name\x0b"]
    assert import_features(**given(tmp_path, unit(), names)).items.ids == tuple(names)


@pytest.mark.parametrize("kind", ["fixed", "list", "large", "halves", "doubles"])
def test_parquet(kind: str, tmp_path: Path) -> None:
    value = {"halves": pa.float16(), "doubles": pa.float64()}.get(kind, pa.float32())
    rows = unit().astype(value.to_pandas_dtype())
    types = {"list": pa.list_(value), "large": pa.large_list(value)}
    column = pa.array(list(rows), types.get(kind, pa.list_(value, 8)))
    store = import_features(**parquet(tmp_path, id=NAMES, vector=column, label=["x"] * 10))
    assert_whole(store, "float16")
    assert store.items.labels == ("x",) * 10


def test_faiss(tmp_path: Path) -> None:
    space = EmbeddingSpace(gallery_model="acme-v7", dim=8)
    source = write_store(tmp_path / "s", space, Items(tuple(NAMES), ("",) * 10), unit(), dtype="float32")
    build_index(source, tmp_path / "i", type="hnsw")
    arguments = given(tmp_path, unit())
    assert_whole(import_features(**{**arguments, "file": tmp_path / "i" / "index.faiss"}, dtype="float32"))


def index_with_ids(file: Path, ids: list[int]) -> None:
    index = faiss.index_factory(8, "IDMap,Flat", faiss.METRIC_INNER_PRODUCT)
    index.add_with_ids(unit(), np.array(ids, np.int64))
    faiss.write_index(index, str(file))


def test_a_faiss_index_with_ids_of_its_own(tmp_path: Path) -> None:
    """How most people save one; reading it ended the process."""
    arguments = {**given(tmp_path, unit()), "file": tmp_path / "x.faiss"}
    index_with_ids(tmp_path / "x.faiss", [1000 + n for n in range(10)])
    own = import_features(**{**arguments, "ids": None}, dtype="float32")
    assert own.items.ids == tuple(str(1000 + n) for n in range(10))
    np.testing.assert_array_equal(own.vectors(), unit())
    with pytest.raises(BadInputError, match=r"has ids of its own, 1000 to 1009, which are no lines of .*ids\.txt"):
        import_features(**arguments, overwrite=True)
    index_with_ids(tmp_path / "x.faiss", [9 - n for n in range(10)])
    notes = Notes()
    mapped = import_features(**arguments, overwrite=True, reporter=notes)
    assert mapped.items.ids == tuple(reversed(NAMES))
    assert "each vector takes the line of" in notes.lines[0]


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def test_columns_as_people_have_them(tmp_path: Path) -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(unit())
    for name, column in (("embedding", list(unit())), ("features", tensors)):
        ids = pa.array([each.encode() for each in NAMES], pa.binary())
        assert_whole(import_features(**parquet(tmp_path, id=ids, **{name: column}), overwrite=True), "float16")
    with pytest.raises(BadInputError, match="column 'id' holds bytes that are no UTF-8 text"):
        import_features(**parquet(tmp_path, id=pa.array([b"\xff"] * 10), vector=list(unit())), overwrite=True)
    with pytest.raises(BadInputError, match=r"no column vector \(or embedding, features, .* \(found: id, other\)"):
        import_features(**parquet(tmp_path, id=NAMES, other=list(unit())), overwrite=True)


def test_a_folder_of_parquet_files(tmp_path: Path) -> None:
    folder, arguments = tmp_path / "parts", {"out": tmp_path / "out.store", "space": "acme-v7"}
    folder.mkdir()
    with pytest.raises(BadInputError, match=r"a folder without \.parquet files"):
        import_features(folder, **cast(Any, arguments))
    for part in (0, 1):
        rows = slice(5 * part, 5 * part + 5)
        pq.write_table(pa.table({"id": NAMES[rows], "vector": list(unit()[rows])}), folder / f"part-{part}.parquet")
    assert_whole(import_features(folder, **cast(Any, arguments)), "float16")
    pq.write_table(pa.table({"id": ["x"], "vector": [[1.0, 0.0]]}), folder / "part-2.parquet")
    with pytest.raises(BadInputError, match=r"its files differ in dimension \(\[2, 8\]\)"):
        import_features(folder, **cast(Any, arguments), overwrite=True)


def test_npz(tmp_path: Path) -> None:
    arguments = {**given(tmp_path, unit()), "file": tmp_path / "v.npz"}
    np.savez(tmp_path / "v.npz", anything=unit())
    assert_whole(import_features(**arguments), "float16")
    np.savez(tmp_path / "v.npz", embedding=unit(), other=unit(), ids=np.array(NAMES))
    assert_whole(import_features(**{**arguments, "ids": None}, overwrite=True), "float16")
    with pytest.raises(BadInputError, match="brings its own ids"):
        import_features(**arguments, overwrite=True)
    np.savez(tmp_path / "v.npz", a=unit(), b=unit())
    with pytest.raises(BadInputError, match="which of its arrays holds the vectors"):
        import_features(**arguments, overwrite=True)
    (tmp_path / "v.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(BadInputError, match=r"not a plain \.npz archive"):
        import_features(**arguments, overwrite=True)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "the pointer of a Git LFS file: git lfs pull"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x80\x05\x95", "a pickle, which could run code"),
        (b"\x1f\x8b\x08", "compressed by gzip"),
    ],
)
@pytest.mark.parametrize("name", ["v.npy", "v.parquet", "v.faiss"])
def test_what_a_file_really_is(name: str, head: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(head)
    with pytest.raises(BadInputError, match=f"{name}: is {what}"):
        import_features(**{**given(tmp_path, unit()), "file": tmp_path / name})


def broken(change: str) -> np.ndarray:
    vectors = unit()
    if change == "long":
        vectors[4] *= 2
    elif change in ("nan", "inf"):
        vectors[4, 2] = float(change)
    elif change == "zero":
        vectors[4] = 0
    return vectors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("long", r"row 4 \(shop/4\.jpg\) has length 2\.0000, not 1.*`normalise` mends it"),
        ("nan", r"row 4 \(shop/4\.jpg\) has NaN or infinity.*`drop_invalid` mends it"),
        ("inf", r"row 4 \(shop/4\.jpg\) has NaN or infinity.*`drop_invalid` mends it"),
        ("zero", r"row 4 \(shop/4\.jpg\) has length 0\.0000"),
    ],
)
def test_faulty_vectors(change: str, message: str, tmp_path: Path) -> None:
    arguments = given(tmp_path, broken(change))
    with pytest.raises(BadInputError, match=message):
        import_features(**arguments)
    assert not (tmp_path / "out.store").exists()


def test_a_space_without_a_name_and_vectors_of_one_number(tmp_path: Path) -> None:
    arguments = given(tmp_path, unit())
    for nothing in ("", "  "):
        with pytest.raises(BadInputError, match=r"`space` is empty: name the gallery model and its version"):
            import_features(**{**arguments, "space": nothing})
    with pytest.raises(BadInputError, match=r"dimension 1; 2 or more are needed"):
        import_features(**given(tmp_path, np.ones((10, 1), np.float32)))


def test_the_advice_is_not_misled_by_names(tmp_path: Path) -> None:
    names = [*NAMES[:4], "wavelength-unique-NaN.jpg", *NAMES[5:]]
    with pytest.raises(BadInputError, match="`drop_invalid` mends it"):
        import_features(**given(tmp_path, broken("nan"), names))
    with pytest.raises(BadInputError, match="`normalise` mends it"):
        import_features(**given(tmp_path, broken("long"), names))


def test_the_advice_works(tmp_path: Path) -> None:
    arguments = given(tmp_path, unit() * np.float32(1e30))  # squares overflow in float32
    assert_whole(import_features(**arguments, normalise=True), "float16")
    for change in ("nan", "inf", "zero"):
        store = import_features(**given(tmp_path, broken(change)), drop_invalid=True, overwrite=True)
        assert store.items.ids == (*NAMES[:4], *NAMES[5:])
    with pytest.raises(BadInputError, match=r"row 4 .* is all zeros and cannot be normalised; `drop_invalid`"):
        import_features(**given(tmp_path, broken("zero")), normalise=True, overwrite=True)
    with pytest.raises(BadInputError, match="NaN or infinity"):
        import_features(**given(tmp_path, broken("inf")), normalise=True, overwrite=True)


def test_repeated_ids(tmp_path: Path) -> None:
    arguments = given(tmp_path, unit(), [*NAMES[:9], NAMES[2]])
    with pytest.raises(BadInputError, match=r"'shop/2\.jpg' stands more than once; `drop_duplicates` mends it"):
        import_features(**arguments)
    store = import_features(**arguments, drop_duplicates=True, dtype="float32")
    assert store.items.ids == tuple(NAMES[:9])
    np.testing.assert_array_equal(store.vectors(), unit()[:9])


def test_of_repeated_ids_the_first_valid_row_stays(tmp_path: Path) -> None:
    arguments = given(tmp_path, broken("nan"), [*NAMES[:9], NAMES[4]])
    store = import_features(**arguments, drop_duplicates=True, drop_invalid=True, dtype="float32")
    assert store.items.ids == (*NAMES[:4], *NAMES[5:9], NAMES[4])
    np.testing.assert_array_equal(store.vectors()[-1], unit()[9])


def test_counts_and_dimensions(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"ids\.txt: 9 ids for 10 vectors"):
        import_features(**given(tmp_path, unit(), NAMES[:9]))
    with pytest.raises(BadInputError, match="its vectors have dimension 8, `dim` says 512"):
        import_features(**given(tmp_path, unit()), dim=512)
    with pytest.raises(BadInputError, match=r"holds float32 \(80,\); floats of shape \(N, D\) are needed"):
        import_features(**given(tmp_path, unit().ravel()))
    with pytest.raises(BadInputError, match="holds int64"):
        import_features(**given(tmp_path, np.ones((10, 8), np.int64)))
    with pytest.raises(BadInputError, match="there is no vector"):
        import_features(**given(tmp_path, unit()[:0], []))


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    arguments = given(tmp_path, unit())
    np.save(tmp_path / "vectors.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadInputError, match=r"not a plain .npy array"):
        import_features(**arguments)
    (tmp_path / "vectors.npy").write_bytes(b"")
    with pytest.raises(BadInputError, match=r"not a plain .npy array"):
        import_features(**arguments)


def test_faulty_parquet(tmp_path: Path) -> None:
    rows = [row.tolist() for row in unit()]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": NAMES, "vector": rows}, "no column id .found: name, vector"),
        ({"id": NAMES, "vector": [*rows[:9], rows[9][:7]]}, "differ in dimension"),
        ({"id": NAMES, "vector": [*rows[:9], None]}, "missing in some rows"),
        ({"id": NAMES, "vector": pa.array([*rows[:9], None], pa.list_(pa.float32(), 8))}, "missing in some rows"),
        ({"id": NAMES, "vector": [*rows[:9], [None, *rows[9][1:]]]}, "NaN or infinity"),
        ({"id": NAMES, "vector": NAMES}, "column 'vector' is no list of numbers"),
        ({"id": NAMES, "vector": [["a"] * 8] * 10}, "lists of string; numbers are needed"),
        ({"id": [*NAMES[:9], None], "vector": rows}, "column 'id' has 1 rows without a value"),
        ({"id": NAMES, "vector": rows, "label": [None] * 10}, "column 'label' has 10 rows without a value"),
    ]
    for columns, message in cases:
        with pytest.raises(BadInputError, match=message):
            import_features(**parquet(tmp_path, **columns))
    (tmp_path / "vectors.parquet").write_bytes(b"nonsense")
    with pytest.raises(BadInputError, match="not readable as Parquet"):
        import_features(tmp_path / "vectors.parquet", tmp_path / "out.store", space="acme-v7")


def test_faulty_ids(tmp_path: Path) -> None:
    arguments = given(tmp_path, unit())
    with pytest.raises(BadInputError, match=r"`ids` is needed: \.npy files hold no item ids"):
        import_features(**{**arguments, "ids": None})
    with pytest.raises(BadInputError, match="cannot be read"):
        import_features(**{**arguments, "ids": tmp_path / "none.txt"})
    (tmp_path / "ids.csv").write_text("name\n" + "\n".join(NAMES))
    with pytest.raises(BadInputError, match="a header with an 'id' column"):
        import_features(**{**arguments, "ids": tmp_path / "ids.csv"})
    (tmp_path / "ids.csv").write_text("id,label\na,1\nb\n")
    with pytest.raises(BadInputError, match="row 1 after the header is too short"):
        import_features(**{**arguments, "ids": tmp_path / "ids.csv"})
    with pytest.raises(BadInputError, match="a Parquet file brings its own 'id' column"):
        import_features(**{**parquet(tmp_path, id=NAMES, vector=list(unit())), "ids": tmp_path / "ids.txt"})


def test_vectors_become_int8(tmp_path: Path) -> None:
    made = import_features(**given(tmp_path, unit()), dtype="int8")
    assert made.dtype == "int8" and made.items.ids == tuple(NAMES)
    assert (made.vectors() * unit()).sum(axis=1).min() > 0.9998


def test_other_files_and_places(tmp_path: Path) -> None:
    arguments = given(tmp_path, unit())
    with pytest.raises(BadInputError, match="no such file"):
        import_features(**{**arguments, "file": tmp_path / "none.npy"})
    (tmp_path / "x.faiss").write_bytes(b"nonsense")
    with pytest.raises(BadInputError, match="faiss cannot read"):
        import_features(**{**arguments, "file": tmp_path / "x.faiss"})
    with pytest.raises(BadInputError, match="not as int4"):
        import_features(**arguments, dtype="int4")
    import_features(**arguments)
    with pytest.raises(BadInputError, match="already there"):
        import_features(**arguments)
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadInputError, match="`overwrite` replaces a feature store only"):
        import_features(**{**arguments, "out": tmp_path / "mine"}, overwrite=True)
