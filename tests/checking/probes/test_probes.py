"""Content probes: real indexes, broken one way at a time; every break is caught and named, healthy ones pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from galleries import COUNT, DIM, clustered, forge, make_store, unit

from edgecsd.checking.probes.result import ProbeResult
from edgecsd.checking.probes.run import run_probes
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.features.whitening import Whitening
from edgecsd.index.engines.faiss import index as faiss_index
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.engines.faiss.folder import open_folder
from edgecsd.index.kinds import IndexType


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """faiss's threads wait by spinning: beside other programs on two cores that takes 30 s instead of one."""
    before = faiss_index.faiss.omp_get_max_threads()
    faiss_index.faiss.omp_set_num_threads(1)
    yield
    faiss_index.faiss.omp_set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return make_store(tmp_path_factory.mktemp("probes") / "gallery.store", clustered())


def failed(result: ProbeResult) -> dict[str, str]:
    return {probe.name: probe.message for probe in result.failures}


EXACT_NAMES = [
    "metric",
    "count",
    "finite",
    "length",
    "duplicates",
    "constant dimensions",
    "items",
    "row order",
    "self-retrieval",
    "recall, gallery vectors",
    "recall, distant queries",
]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("flat", {}),
        ("hnsw", {}),
        ("ivf", {"nlist": 12, "nprobe": 8}),
        ("ivfpq", {"nlist": 4, "nprobe": 4, "pq_bytes": 16}),
    ],
)
def test_healthy_indexes_pass(kind: str, options: dict[str, int], store: FeatureStore, tmp_path: Path) -> None:
    index = build_index(store, tmp_path / "x.index", type=kind, **options)
    queries = unit(clustered(0) + 0.05 * np.random.default_rng(3).normal(size=(COUNT, DIM)))[:50]
    result = run_probes(index, store=store, queries=queries)
    assert failed(result) == {} and result.passed and result.as_dict()["passed"] is True
    names = [probe.name for probe in result.probes]
    expected = [*EXACT_NAMES, "recall, given queries"]
    assert names == ([n for n in expected if n != "duplicates"] if kind == "ivfpq" else expected)
    assert any(reason.startswith("re-embedding: ") for reason in result.skipped)
    before = index.search(queries, 10)[1]
    np.testing.assert_array_equal(before, open_folder(tmp_path / "x.index").search(queries, 10)[1])
    alone = run_probes(index)
    assert alone.passed and any("was not given" in reason for reason in alone.skipped)


def test_an_index_over_an_int8_store(tmp_path: Path) -> None:
    small = make_store(tmp_path / "int8.store", clustered(0), dtype="int8")
    index = build_index(small, tmp_path / "x.index")
    np.testing.assert_array_equal(index.read(np.arange(COUNT)), small.vectors())
    assert failed(run_probes(index, store=small)) == {}


def test_an_index_over_the_same_vectors_before_they_became_int8(store: FeatureStore, tmp_path: Path) -> None:
    small = make_store(tmp_path / "int8.store", clustered(0), dtype="int8")
    assert failed(run_probes(build_index(store, tmp_path / "x.index"), store=small)) == {}
    assert failed(run_probes(build_index(small, tmp_path / "y.index"), store=store)) == {}


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_an_index_by_distance(kind: str, store: FeatureStore, tmp_path: Path) -> None:
    faiss = faiss_index.faiss
    made = {
        "flat": lambda: faiss.IndexFlatL2(DIM),
        "ivf": lambda: faiss.index_factory(DIM, "IVF4,Flat", faiss.METRIC_L2),
        "hnsw": lambda: faiss.IndexHNSWFlat(DIM, 16, faiss.METRIC_L2),
    }[kind]()
    parameters = {"flat": {}, "ivf": {"nlist": 4, "nprobe": 4}, "hnsw": {"ef_search": 50}}[kind]
    index = forge(store, tmp_path / "x.index", kind=IndexType(kind), made=made, **parameters)
    found = failed(run_probes(index, store=store))
    assert "L2 distance" in found["metric"] and "build it by inner product" in found["metric"]
    assert {"metric", "self-retrieval"} <= set(found) and "row order" not in found
    assert "metric" in failed(run_probes(index))


def test_vectors_that_were_not_normalised(store: FeatureStore, tmp_path: Path) -> None:
    lengths = np.random.default_rng(1).uniform(3, 9, (COUNT, 1))
    found = failed(run_probes(forge(store, tmp_path / "raw.index", store.vectors() * lengths), store=store))
    assert "they were not normalised" in found["length"] and "item-0000" in found["length"]
    assert "self-retrieval" in found and "row order" not in found
    found = failed(run_probes(forge(store, tmp_path / "scaled.index", store.vectors() * 0.5)))
    assert "all were scaled by one factor" in found["length"]
    codes = forge(
        store, tmp_path / "c", store.vectors() * lengths, kind=IndexType.IVFPQ, nlist=4, nprobe=4, pq_bytes=16
    )
    assert "they were not normalised" in failed(run_probes(codes))["length"]
    twice = forge(store, tmp_path / "twice.index", unit(unit(store.vectors())))
    assert run_probes(twice, store=store).passed  # the same vectors: nothing can tell, and nothing is lost


def test_rows_that_are_no_vectors(store: FeatureStore, tmp_path: Path) -> None:
    vectors = store.vectors()
    vectors[[7, 70]] = 0
    vectors[400, 3] = np.nan
    found = failed(run_probes(forge(store, tmp_path / "x.index", vectors), sample=600, store=store))
    assert "3 of 600 vectors are zero, NaN or infinite: item-0007, item-0070, item-0400" in found["finite"]


def test_duplicates(store: FeatureStore, tmp_path: Path) -> None:
    vectors = store.vectors()
    vectors[300:330] = vectors[0]
    found = failed(run_probes(forge(store, tmp_path / "x.index", vectors)))
    assert set(found) == {"duplicates"} and "30 of 600 vectors are equal to another photo's: item-0300" in str(found)
    few = store.vectors()
    few[300:305] = few[0]
    assert run_probes(forge(store, tmp_path / "few.index", few)).passed
    ids = tuple(f"copy-{row}" if row >= 300 else item for row, item in enumerate(store.items.ids))
    digests = tuple(f"{row % 300:064x}" for row in range(COUNT))
    twice = np.concatenate([unit(store.vectors()[:300])] * 2)
    known = write_store(tmp_path / "s", store.space, Items(ids, digests), twice)
    index = build_index(known, tmp_path / "known.index")
    assert run_probes(index, store=known).passed  # the same photos twice have the same vectors: no fault of the index
    assert "300 of 600" in failed(run_probes(index))["duplicates"]


def test_constant_dimensions(store: FeatureStore, tmp_path: Path) -> None:
    vectors = store.vectors()
    vectors[:, ::4] = 0
    found = failed(run_probes(forge(store, tmp_path / "x.index", unit(vectors))))
    assert "8 of 32 dimensions are the same in all 600 vectors (the first: [0, 4, 8])" in found["constant dimensions"]
    dead = store.vectors()
    dead[:, 5] = 0
    assert run_probes(forge(store, tmp_path / "dead.index", unit(dead))).passed
    small = forge(store, tmp_path / "small.index", vectors[:50])
    assert any("50 vectors are too few" in reason for reason in run_probes(small).skipped)


@pytest.mark.parametrize("kind", [IndexType.FLAT, IndexType.IVFPQ])
@pytest.mark.parametrize("shift", [1, -1])
def test_ids_shifted_by_one(shift: int, kind: IndexType, store: FeatureStore, tmp_path: Path) -> None:
    parameters = {"nlist": 4, "nprobe": 4, "pq_bytes": 16} if kind is IndexType.IVFPQ else {}
    index = forge(store, tmp_path / "x.index", np.roll(store.vectors(), -shift, axis=0), kind=kind, **parameters)
    found = failed(run_probes(index, store=store))
    assert f"ids are shifted by 1: row r holds the vector of the item of row r{shift:+d}" in found["row order"]
    assert "self-retrieval" in found or kind is IndexType.IVFPQ


def test_a_shift_that_begins_in_the_middle(store: FeatureStore, tmp_path: Path) -> None:
    """One photo could not be read, and its id was kept."""
    vectors = np.concatenate([store.vectors()[:350], store.vectors()[351:], store.vectors()[:1]])
    message = failed(run_probes(forge(store, tmp_path / "x.index", vectors), store=store))["row order"]
    assert "ids are shifted by 1" in message
    assert 350 <= int(message.split("wrong from row ")[1].split(" ")[0]) < 400


@pytest.mark.parametrize("kind", [IndexType.FLAT, IndexType.IVFPQ])
def test_permuted_rows(kind: IndexType, store: FeatureStore, tmp_path: Path) -> None:
    order = np.random.default_rng(2).permutation(COUNT)
    parameters = {"nlist": 4, "nprobe": 4, "pq_bytes": 16} if kind is IndexType.IVFPQ else {}
    index = forge(store, tmp_path / "x.index", store.vectors()[order], kind=kind, **parameters)
    assert "rows and ids were permuted" in failed(run_probes(index, store=store))["row order"]


def test_a_truncated_index_and_an_older_one(store: FeatureStore, tmp_path: Path) -> None:
    found = failed(run_probes(forge(store, tmp_path / "x.index", store.vectors()[:500]), store=store))
    assert set(found) == {"items"}
    assert "the index is truncated: the store's last 100 items are missing, the first: item-0500" in found["items"]
    ids = ("gone", *store.items.ids[1:])
    found = failed(run_probes(forge(store, tmp_path / "old.index", ids=ids), store=store))
    assert "lacks 1 items" in found["items"] or "item-0000" in found["items"]
    assert "1 items of the index are not in the store, the first: gone" in found["items"]


def test_another_version_and_another_model(store: FeatureStore, tmp_path: Path) -> None:
    noise = np.random.default_rng(4).normal(size=(COUNT, DIM)) * 0.08
    found = failed(run_probes(forge(store, tmp_path / "near.index", unit(store.vectors() + noise)), store=store))
    assert "another version of the store" in found["row order"] and "build the index again" in found["row order"]
    found = failed(run_probes(forge(store, tmp_path / "far.index", clustered(9)), store=store))
    assert "of another gallery model" in found["row order"]


def test_whitening_on_one_side(tmp_path: Path) -> None:
    raw = clustered()
    turned = np.linalg.qr(np.random.default_rng(5).normal(size=(DIM, DIM)))[0] * np.linspace(0.5, 3, DIM)[:, None]
    transform = Whitening.of(raw.mean(axis=0), turned)
    whitened = make_store(tmp_path / "s", transform.apply(raw, "test"), transform=transform)
    assert run_probes(build_index(whitened, tmp_path / "right.index"), store=whitened).passed
    found = failed(run_probes(forge(whitened, tmp_path / "x.index", raw), store=whitened))
    assert "vectors that were never whitened" in found["row order"]
    twice = transform.apply(whitened.vectors(), "test")
    found = failed(run_probes(forge(whitened, tmp_path / "twice.index", twice), store=whitened))
    assert "whitened twice" in found["row order"]


def test_a_store_of_another_space(store: FeatureStore, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", clustered(), weights_digest="ab")
    result = run_probes(build_index(store, tmp_path / "x.index"), store=other)
    assert "weights_digest: ab against none" in failed(result)["space"]
    assert any(reason.startswith("row order, self-retrieval") for reason in result.skipped)


@pytest.mark.parametrize(
    ("kind", "options", "word"),
    [
        ("ivf", {"nlist": 60, "nprobe": 1}, "too shallow (`nprobe` 1 of 60 lists)"),
        ("ivfpq", {"nlist": 4, "nprobe": 4, "pq_bytes": 1}, "codes are too coarse: a larger `pq_bytes` than 1"),
        ("hnsw", {"links": 2, "ef_construction": 2, "ef_search": 1}, "`ef_search` 1"),
    ],
)
def test_a_search_that_misses_too_much(kind: str, options: dict[str, int], word: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", clustered(count=3000))
    index = build_index(store, tmp_path / "x.index", type=kind, **options)
    found = failed(run_probes(index, store=store))
    assert word in found["recall, distant queries"] and "row order" not in found


def test_what_is_refused(store: FeatureStore, tmp_path: Path) -> None:
    index = build_index(store, tmp_path / "x.index")
    with pytest.raises(BadInputError, match="sample 0: 1 or more"):
        run_probes(index, sample=0)
    with pytest.raises(IncompatibleError, match=r"query features of shape \(3, 8\), the index holds 32-d"):
        run_probes(index, queries=np.zeros((3, 8), np.float32))
    one = run_probes(forge(store, tmp_path / "one.index", store.vectors()[:1]))
    assert any(reason.startswith("recall: ") for reason in one.skipped)


def test_the_same_seed_gives_the_same_result(store: FeatureStore, tmp_path: Path) -> None:
    index = build_index(store, tmp_path / "x.index", type="ivf", nlist=20, nprobe=2)
    assert run_probes(index, store=store, seed=4) == run_probes(index, store=store, seed=4)
