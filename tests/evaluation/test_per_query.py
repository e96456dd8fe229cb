"""per_query: what is written is read again, by us and by any Parquet reader; damaged and foreign files are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.evaluation.per_query import (
    METADATA_KEY,
    EvaluationProtocol,
    PerQuery,
    PerQueryHeader,
    QueryScores,
    StoreIdentity,
    read_per_query,
    write_per_query,
)
from edgecsd.features.store import FeatureStore

PROTOCOL = EvaluationProtocol(
    relevance="labels", ignored="nothing", crop="none", scales="1", distractors="none", intervals="95 %"
)


def scores(model: str, setting: str, seed: int) -> QueryScores:
    random = np.random.default_rng(seed)
    average_precision = random.random(3)
    average_precision[1] = np.nan
    return QueryScores(
        model,
        setting,
        ("a.jpg", "b/ö.jpg", "c.jpg"),
        np.array([4, 0, 2]),
        {"AP": average_precision, "P@5": random.random(3), "RBO": random.random(3)},
        (("x", "y"), (), ("z",)),
    )


def results(store: FeatureStore) -> PerQuery:
    identity = StoreIdentity.of(store)
    header = PerQueryHeader(
        protocol=PROTOCOL,
        gallery=identity,
        queries=identity,
        distractors=(identity,),
        ground_truth="0" * 64,
        models={"gallery": "", "query": "f" * 64},
        thresholds={"level": 0.95},
    )
    return PerQuery(
        header,
        tuple(
            scores(m, s, n) for n, (m, s) in enumerate((m, s) for m in ("gallery", "query") for s in ("easy", "hard"))
        ),
    )


def test_written_and_read_again(pixel_store: FeatureStore, tmp_path: Path) -> None:
    whole = results(pixel_store)
    write_per_query(tmp_path / "new" / "r.parquet", whole)
    again = read_per_query(tmp_path / "new" / "r.parquet")
    assert again.header == whole.header and len(again.scores) == 4
    for ours, theirs in zip(whole.scores, again.scores, strict=True):
        assert (ours.model, ours.setting, ours.queries, ours.found) == (
            theirs.model,
            theirs.setting,
            theirs.queries,
            theirs.found,
        )
        np.testing.assert_array_equal(ours.relevant, theirs.relevant)
        for name, column in ours.values.items():
            np.testing.assert_array_equal(theirs.values[name], column)
    assert list(again.of_model("query")) == ["easy", "hard"] and again.of_model("other") == {}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["r.parquet"]


def test_the_file_as_others_see_it(pixel_store: FeatureStore, tmp_path: Path) -> None:
    write_per_query(tmp_path / "r.parquet", results(pixel_store))
    table = pq.read_table(tmp_path / "r.parquet")
    assert table.num_rows == 12
    assert table.column_names == ["query", "model", "setting", "relevant", "AP", "P@5", "RBO", "found"]
    row = table.slice(1, 1).to_pylist()[0]
    assert row["query"] == "b/ö.jpg" and row["AP"] is None and row["relevant"] == 0 and row["found"] == []
    header = json.loads(table.schema.metadata[METADATA_KEY])
    assert header["gallery"]["fingerprint"] == pixel_store.space.fingerprint and header["thresholds"]["level"] == 0.95
    assert header["protocol"]["average_precision"].startswith("trapezoidal")


def test_the_digest_of_a_store_follows_its_content(pixel_store: FeatureStore) -> None:
    manifest = json.loads(json.dumps(pixel_store.manifest))
    same = FeatureStore(Path("elsewhere"), pixel_store.space, pixel_store.count, pixel_store.views, manifest)
    assert StoreIdentity.of(same).digest == StoreIdentity.of(pixel_store).digest
    manifest["shards"][0]["sha256"] = "0" * 64
    assert StoreIdentity.of(same).digest != StoreIdentity.of(pixel_store).digest


def test_what_is_not_ours_or_not_whole(pixel_store: FeatureStore, tmp_path: Path) -> None:
    whole, path = results(pixel_store), tmp_path / "r.parquet"
    with pytest.raises(BadInputError, match=r"Parquet file; call it r\.parquet"):
        write_per_query(tmp_path / "r.csv", whole)
    with pytest.raises(BadInputError, match="no such file"):
        read_per_query(path)
    write_per_query(path, whole)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({}), tmp_path / "bare.parquet")
    with pytest.raises(DamagedFileError, match="not per-query results of edgecsd evaluate"):
        read_per_query(tmp_path / "bare.parquet")
    for name, changed, message in (
        ("schema_version", 9, "holds 'per-query results' of schema_version 9; this edgecsd reads"),
        ("kind", "soup", "holds 'soup'"),
        ("models", 3, "its metadata are damaged: models"),
    ):
        header = json.loads(table.schema.metadata[METADATA_KEY]) | {name: changed}
        metadata = {METADATA_KEY: json.dumps(header).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "changed.parquet")
        with pytest.raises(DamagedFileError, match=message):
            read_per_query(tmp_path / "changed.parquet")
    pq.write_table(table.filter(pa.compute.equal(table["model"], "query")), tmp_path / "part.parquet")
    with pytest.raises(DamagedFileError, match="rows are not of the models that its metadata name"):
        read_per_query(tmp_path / "part.parquet")
    pq.write_table(table.drop_columns(["found"]), tmp_path / "less.parquet")
    with pytest.raises(DamagedFileError, match="not readable as per-query results"):
        read_per_query(tmp_path / "less.parquet")
    (tmp_path / "cut.parquet").write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DamagedFileError, match="not readable as per-query results"):
        read_per_query(tmp_path / "cut.parquet")
