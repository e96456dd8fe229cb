"""Codes for vectors: what comes back, what it costs in retrieval, and that the service searches with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from galleries import DIM, clustered, make_store, unit
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError
from edgecsd.features.store import FeatureStore
from edgecsd.index.query_vectors import QueryVectors
from edgecsd.serve.wire import Code, Codebook, decode, encode, learn
from edgecsd.serve.wire_costs import measure_codes

BYTES = {Code.FLOAT32: 4 * DIM, Code.FLOAT16: 2 * DIM, Code.INT8: DIM, Code.PQ: 8}
LEAST = {Code.FLOAT32: 1 - 1e-6, Code.FLOAT16: 0.99999, Code.INT8: 0.9995, Code.PQ: 0.6}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return make_store(tmp_path_factory.mktemp("wire") / "gallery.store", clustered())


@pytest.fixture(scope="module")
def codebook(store: FeatureStore) -> Codebook:
    return learn(store, 8)


def queries_of(store: FeatureStore, count: int = 60) -> QueryVectors:
    right = store.vectors()[:count]
    noise = 0.5 * np.random.default_rng(3).normal(size=right.shape) / DIM**0.5
    return QueryVectors(unit(right + noise), right, np.arange(count))


@pytest.mark.parametrize("code", list(Code))
def test_what_comes_back(code: Code, codebook: Codebook) -> None:
    vectors = clustered(seed=7, count=40)
    coded = encode(vectors, code, codebook)
    assert coded.dtype == np.uint8 and coded.shape == (40, BYTES[code])
    found = decode(coded, code, codebook)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert (found * vectors).sum(axis=1).min() > LEAST[code]


def test_int8_by_hand() -> None:
    coded = encode(np.array([[0.6, -0.8, 0.0, 0.004]], np.float32), Code.INT8)
    assert coded.view(np.int8).tolist() == [[95, -127, 0, 1]]
    assert encode(np.zeros((1, 4), np.float32), Code.INT8).tolist() == [[0, 0, 0, 0]]
    assert decode(np.zeros((1, 4), np.uint8), Code.INT8).tolist() == [[0, 0, 0, 0]]


def test_pq_takes_the_nearest_centroid_of_each_run(codebook: Codebook) -> None:
    vectors = clustered(seed=8, count=5)
    for vector, code in zip(vectors, encode(vectors, Code.PQ, codebook), strict=True):
        for part in range(8):
            distances = [((vector[4 * part : 4 * part + 4] - c) ** 2).sum() for c in codebook.centroids[part]]
            assert code[part] == int(np.argmin(distances))


def test_a_codebook_is_kept_with_its_space(codebook: Codebook, store: FeatureStore, tmp_path: Path) -> None:
    codebook.save(tmp_path / "pq.safetensors")
    again = Codebook.open(tmp_path / "pq.safetensors", store.space)
    np.testing.assert_array_equal(again.centroids, codebook.centroids)
    other = make_store(tmp_path / "other.store", clustered(seed=2, count=300), scales=(1.0, 0.5))
    with pytest.raises(IncompatibleError, match="made for embedding space"):
        Codebook.open(tmp_path / "pq.safetensors", other.space)
    content = (tmp_path / "pq.safetensors").read_bytes()
    for broken in (content[:100], b"", content.replace(b"wire codebook", b"fire codebook")):
        (tmp_path / "broken").write_bytes(broken)
        with pytest.raises(DamagedFileError, match="not a codebook"):
            Codebook.open(tmp_path / "broken", store.space)
    with pytest.raises(BadInputError, match="no such file"):
        Codebook.open(tmp_path / "nothing", store.space)


def test_sizes_that_cannot_be(store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="`pq_bytes` 5: must divide the dimension 32: 1, 2, 4, 8, 16, 32"):
        learn(store, 5)
    with pytest.raises(BadInputError, match="the gallery has only 100 vectors"):
        learn(make_store(tmp_path / "small.store", clustered(count=100)), 8)


def test_costs_are_those_of_the_coded_searches(store: FeatureStore) -> None:
    queries, k = queries_of(store), 5
    result = measure_codes(store, queries, k=k, pq_bytes=(8, 4))
    assert [(cost.name, cost.wire) for cost in result.costs] == [
        (name, wire) for wire in (True, False) for name in ("float32", "float16", "int8", "pq, 8 bytes", "pq, 4 bytes")
    ]

    def first(vectors: np.ndarray, gallery: np.ndarray) -> list[set[int]]:
        scores = vectors @ gallery.T
        scores[np.arange(len(vectors)), queries.own] = -2
        return [set(row.tolist()) for row in np.argsort(-scores, axis=1)[:, :k]]

    gallery, codebook = store.vectors(), result.codebooks[8]
    right, plain = first(queries.gallery_model, gallery), first(queries.query_model, gallery)
    for wire in (True, False):
        cost = next(c for c in result.costs if c.wire is wire and c.name == "pq, 8 bytes")
        there, back = (queries.query_model, gallery) if wire else (gallery, queries.query_model)
        coded = decode(encode(there, Code.PQ, codebook), Code.PQ, codebook)
        found = first(coded, back) if wire else first(back, coded)
        assert cost.bytes == 8
        assert cost.same == pytest.approx(np.mean([len(a & b) / k for a, b in zip(found, plain, strict=True)]))
        overlap = np.mean([len(a & b) / k for a, b in zip(found, right, strict=True)])
        before = np.mean([len(a & b) / k for a, b in zip(plain, right, strict=True)])
        assert cost.overlap.mean == pytest.approx(overlap) and cost.lost.mean == pytest.approx(before - overlap)
        assert cost.lost.low <= cost.lost.mean <= cost.lost.high
    whole = next(c for c in result.costs if c.wire and c.name == "float32")
    assert whole.same == 1 and whole.lost.mean == 0 and whole.bytes == 4 * DIM


def test_the_command(store: FeatureStore, tmp_path: Path) -> None:
    queries = queries_of(store)
    asked = make_store(tmp_path / "queries.store", unit(queries.gallery_model))
    np.save(tmp_path / "given.npy", queries.query_model)
    arguments = [
        "wire",
        str(store.path),
        "--queries",
        str(asked.path),
        "--embeddings",
        str(tmp_path / "given.npy"),
        "--pq-bytes",
        "8,4",
        "--out",
        str(tmp_path / "codes"),
    ]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert len(document["codes"]) == 10 and set(document["codebooks"]) == {"8", "4"}
    assert Codebook.open(tmp_path / "codes" / "pq-4.safetensors", store.space).bytes == 4
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, BadInputError) and "already there" in str(again.exception)
    nobody = CliRunner().invoke(app, [*arguments[:4], *arguments[6:8]])
    assert isinstance(nobody.exception, BadInputError) and "(0 are given)" in str(nobody.exception)
    assert "index" not in str(nobody.exception), "nothing is tuned here"
    unused = CliRunner().invoke(app, [*arguments[:-4], *arguments[-2:]])
    assert isinstance(unused.exception, BadInputError) and "say with --pq-bytes which" in str(unused.exception)
    wrong = CliRunner().invoke(app, [*arguments[:-4], "--pq-bytes", "8,8"])
    assert isinstance(wrong.exception, BadInputError) and "--pq-bytes 8,8" in str(wrong.exception)
