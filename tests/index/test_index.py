"""The gallery index: every type, its search parameters, order of ties, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import galleries
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgecsd.checking.probes.recall import LEAST
from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.files.whole import sha256_file
from edgecsd.index.engines.faiss import index as faiss_index
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.engines.faiss.folder import open_folder
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.kinds import IndexType, index_parameters


def make_store(path: Path, vectors: np.ndarray) -> FeatureStore:
    ids = tuple(f"item-{row:04d}" for row in range(len(vectors)))
    space = EmbeddingSpace(gallery_model="acme-v7", dim=vectors.shape[1])
    return write_store(path, space, Items(ids, ("",) * len(ids)), vectors, dtype="float32")


def unit(rows: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """faiss's threads wait by spinning: beside other programs on two cores that takes 30 s instead of one."""
    before = faiss_index.faiss.omp_get_max_threads()
    faiss_index.faiss.omp_set_num_threads(1)
    yield
    faiss_index.faiss.omp_set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return make_store(tmp_path_factory.mktemp("index") / "gallery.store", unit(400))


@pytest.fixture(scope="module")
def flat(store: FeatureStore) -> GalleryIndex:
    return build_index(store, store.path.with_name("flat.index"))


def recall(index: GalleryIndex, exact: GalleryIndex, queries: np.ndarray) -> float:
    found, wanted = index.search(queries, 10)[1], exact.search(queries, 10)[1]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]))


def test_flat_is_exact(store: FeatureStore, flat: GalleryIndex) -> None:
    queries = unit(9, seed=1)
    scores, rows = flat.search(queries, 5)
    cosines = queries @ store.vectors().T
    np.testing.assert_array_equal(rows, np.argsort(-cosines, axis=1, kind="stable")[:, :5])
    np.testing.assert_allclose(scores, np.sort(cosines, axis=1)[:, ::-1][:, :5], atol=1e-6)
    assert flat.ids == store.items.ids and flat.space == store.space and flat.parameters == {}
    assert flat.row_of["item-0007"] == 7


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("ivf", {"nlist": 8, "nprobe": 8}, {"nlist": 8, "nprobe": 8}),
        ("ivf", {}, {"nlist": 10, "nprobe": 8}),
        ("ivfpq", {"nlist": 4, "nprobe": 4, "pq_bytes": 8}, {"nlist": 4, "nprobe": 4, "pq_bytes": 8}),
        ("hnsw", {"ef_search": 100}, {"links": 32, "ef_construction": 200, "ef_search": 100}),
    ],
)
def test_approximate_types(
    kind: str,
    options: dict[str, int],
    expected: dict[str, int],
    store: FeatureStore,
    flat: GalleryIndex,
    tmp_path: Path,
) -> None:
    built = build_index(store, tmp_path / "x.index", type=kind, **options)
    opened = open_folder(tmp_path / "x.index")
    assert opened.parameters == built.parameters == expected and opened.type.value == kind
    least = {"ivfpq": 0.4, "ivf": 0.2, "hnsw": 0.95}[kind]
    assert recall(opened, flat, unit(30, seed=2)) >= least
    if kind == "ivf" and expected["nprobe"] == expected["nlist"]:
        assert recall(opened, flat, unit(30, seed=2)) == 1.0  # every list searched: exact


@pytest.mark.parametrize("count", [60, 200, 370, 1600])
def test_small_galleries_are_found_by_default(count: int, tmp_path: Path) -> None:
    """The default depth passes the probe that `check` asks of lists, recall@10 of 0.95, whatever the gallery's size."""
    vectors, queries = np.split(galleries.clustered(count=count + 200), [count])
    made = galleries.make_store(tmp_path / "g.store", vectors)
    exact = build_index(made, tmp_path / "flat.index")
    assert recall(build_index(made, tmp_path / "ivf.index", type="ivf"), exact, queries) >= LEAST[IndexType.IVF]


def test_large_galleries_search_an_eighth_of_the_lists() -> None:
    parameters = index_parameters(IndexType.IVF, {}, 1_000_000, 64)
    assert parameters == {"nlist": 4000, "nprobe": 500}
    assert index_parameters(IndexType.IVF, {"nlist": 3}, 1000, 64) == {"nlist": 3, "nprobe": 3}


def test_search_parameters_take_effect(store: FeatureStore, flat: GalleryIndex, tmp_path: Path) -> None:
    queries, reached = unit(40, seed=3), []
    for nprobe in (1, 4, 20):
        build_index(store, tmp_path / f"{nprobe}.index", type="ivf", nlist=20, nprobe=nprobe)
        reached.append(recall(open_folder(tmp_path / f"{nprobe}.index"), flat, queries))
    assert reached[0] < reached[1] < reached[2] == 1.0
    narrow = build_index(store, tmp_path / "narrow.index", type="hnsw", links=2, ef_construction=4, ef_search=1)
    wide = build_index(store, tmp_path / "wide.index", type="hnsw", links=2, ef_construction=4, ef_search=200)
    assert recall(narrow, flat, queries) < recall(wide, flat, queries)


def test_fewer_are_found_than_asked_for(store: FeatureStore, flat: GalleryIndex, tmp_path: Path) -> None:
    assert flat.search(unit(2), 1000)[1].shape == (2, 400)
    few = build_index(store, tmp_path / "few.index", type="ivf", nlist=20, nprobe=1)
    scores, rows = few.search(unit(3, seed=5), 200)
    assert (rows == -1).any() and np.isneginf(scores[rows == -1]).all()
    assert (rows[:, 0] >= 0).all() and (np.diff(rows < 0, axis=1) >= 0).all()  # what was not found stands last


def test_ties_stand_in_row_order(tmp_path: Path) -> None:
    vectors = np.repeat(unit(3), 5, axis=0)
    index = build_index(make_store(tmp_path / "s", vectors), tmp_path / "i")
    _, rows = index.search(unit(3)[1:2], 15)
    assert rows[0, :5].tolist() == [5, 6, 7, 8, 9]
    assert index.search(unit(3)[1:2], 3)[1].tolist() == [[5, 6, 7]]  # at the cut, too


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "annoy"}, "`type` annoy: there are flat, ivf, ivfpq, hnsw"),
        ({"nprobe": 3}, "`nprobe`: an index of type flat does not take it .it takes: `bits`"),
        ({"type": "ivf", "ef_search": 3}, "`ef_search`: .* type ivf .*`nlist`, `nprobe`"),
        ({"type": "hnsw", "pq_bytes": 4}, "`pq_bytes`: an index of type hnsw"),
        ({"type": "ivf", "nlist": 0}, "`nlist` 0: must be at least 1"),
        ({"type": "ivf", "nlist": 4, "nprobe": 5}, "nlist 4 and nprobe 5: needs nprobe <= nlist <= 400"),
        ({"type": "ivf", "nlist": 401}, "nlist 401"),
        ({"type": "ivfpq", "pq_bytes": 3}, "`pq_bytes` 3: must divide the dimension 16"),
    ],
)
def test_options_that_cannot_be_honoured(
    options: dict[str, object], message: str, store: FeatureStore, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match=message):
        build_index(store, tmp_path / "x.index", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_product_quantiser_needs_enough_vectors(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"256 centroids .* only 30 vectors: use flat, ivf or hnsw"):
        build_index(make_store(tmp_path / "s", unit(30)), tmp_path / "i", type="ivfpq")


def test_queries_of_another_dimension(flat: GalleryIndex) -> None:
    with pytest.raises(IncompatibleError, match=r"holds 16-d vectors, the queries have shape \(2, 8\)"):
        flat.search(unit(2, dim=8), 1)


def test_overwriting_replaces_an_index_and_nothing_else(store: FeatureStore, tmp_path: Path) -> None:
    build_index(store, tmp_path / "x.index")
    with pytest.raises(BadInputError, match="already there"):
        build_index(store, tmp_path / "x.index")
    assert build_index(store, tmp_path / "x.index", type="hnsw", overwrite=True).type.value == "hnsw"
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "mine.jpg").write_bytes(b"precious")
    with pytest.raises(BadInputError, match="`overwrite` replaces a gallery index only"):
        build_index(store, photos, overwrite=True)
    with pytest.raises(BadInputError, match="`overwrite` replaces a gallery index only"):
        build_index(store, store.path, overwrite=True)
    assert (photos / "mine.jpg").read_bytes() == b"precious"


def change(folder: Path, **values: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **values}))


@pytest.fixture
def copy(flat: GalleryIndex, tmp_path: Path) -> Path:
    return Path(shutil.copytree(flat.path, tmp_path / "copy.index"))


def test_tampered_files_are_refused(copy: Path) -> None:
    data = bytearray((copy / "index.faiss").read_bytes())
    data[-3] ^= 1
    (copy / "index.faiss").write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"index\.faiss: missing, or not the file that the manifest names"):
        open_folder(copy)
    (copy / "index.faiss").unlink()
    with pytest.raises(DamagedFileError, match=r"index\.faiss: missing"):
        open_folder(copy)


def test_swapped_ids_are_refused(copy: Path) -> None:
    ids = pq.read_table(copy / "ids.parquet").column("id").to_pylist()
    pq.write_table(pa.table({"id": ids[::-1]}), copy / "ids.parquet")
    with pytest.raises(DamagedFileError, match=r"ids\.parquet"):
        open_folder(copy)


def test_wrong_contents_with_right_digests(copy: Path) -> None:
    """A manifest can be edited with its digests; what it then contradicts is refused all the same."""
    pq.write_table(pa.table({"id": ["same"] * 400}), copy / "ids.parquet")
    digests = {name: sha256_file(copy / name) for name in ("index.faiss", "ids.parquet")}
    change(copy, sha256=digests)
    with pytest.raises(DamagedFileError, match="not what the manifest says"):
        open_folder(copy)
    (copy / "index.faiss").write_bytes(b"no index at all")
    change(copy, sha256={**digests, "index.faiss": sha256_file(copy / "index.faiss")})
    with pytest.raises(DamagedFileError):
        open_folder(copy)


@pytest.mark.parametrize("name", ["space", "sha256", "parameters", "type", "fingerprint", "count"])
def test_an_incomplete_manifest_is_refused(name: str, copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest[name]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFileError, match=name):
        open_folder(copy)


def test_a_contradictory_manifest_is_refused(copy: Path, tmp_path: Path) -> None:
    change(copy, schema_version=99)
    with pytest.raises(DamagedFileError, match="schema_version 99 is unknown to this edgecsd, which reads 1"):
        open_folder(copy)
    change(copy, schema_version=1, sha256={})
    with pytest.raises(DamagedFileError):
        open_folder(copy)
    change(copy, sha256={n: sha256_file(copy / n) for n in ("index.faiss", "ids.parquet")}, fingerprint="es1-0")
    with pytest.raises(DamagedFileError, match="fingerprint is not that of its embedding space"):
        open_folder(copy)
    with pytest.raises(BadInputError, match="no such gallery index"):
        open_folder(tmp_path / "nowhere")


def test_search_parameters_must_be_there(store: FeatureStore, tmp_path: Path) -> None:
    build_index(store, tmp_path / "x.index", type="hnsw")
    change(tmp_path / "x.index", parameters={})
    with pytest.raises(DamagedFileError, match="ef_search"):
        open_folder(tmp_path / "x.index")
