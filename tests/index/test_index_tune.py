"""index tune: what it chooses reaches the recall for the query model's vectors, held-out ones too; and goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from galleries import make_store, unit
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError, GateFailedError
from edgecsd.features.store import FeatureStore
from edgecsd.index import trials as index_trials
from edgecsd.index import tuning as index_tune
from edgecsd.index.engines.faiss import index as engine
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.engines.faiss.folder import open_folder
from edgecsd.index.gallery_index import GalleryIndex
from edgecsd.index.query_vectors import QueryVectors, load_query_vectors
from edgecsd.index.trials import Recall, between
from edgecsd.index.tuning import Prefer, candidates, tune_index

COUNT, QUERIES, DIM = 3000, 200, 32


def vectors_of(seed: int, count: int, noise: float = 0.9) -> np.ndarray:
    centres = np.random.default_rng(3).normal(size=(60, DIM))
    random = np.random.default_rng(seed)
    return unit(centres[random.integers(0, 60, count)] + noise * random.normal(size=(count, DIM)))


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    threads, timed = engine.faiss.omp_get_max_threads(), index_trials.TIMED_QUERIES
    engine.faiss.omp_set_num_threads(1)
    index_trials.TIMED_QUERIES = 20
    yield
    engine.faiss.omp_set_num_threads(threads)
    index_trials.TIMED_QUERIES = timed


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return make_store(tmp_path_factory.mktemp("tune") / "gallery.store", vectors_of(0, COUNT))


@pytest.fixture(scope="module")
def queries() -> QueryVectors:
    """The query model sees the same photos with an error of its own, towards one side."""
    right = vectors_of(1, QUERIES)
    shifted = right + 0.15 * np.random.default_rng(4).normal(size=right.shape) + 0.1
    return QueryVectors(unit(shifted), right, np.full(QUERIES, -1, np.int64))


def recall(index: GalleryIndex, store: FeatureStore, vectors: np.ndarray, k: int = 10) -> float:
    wanted = np.argsort(-(vectors @ store.vectors().T), axis=1)[:, :k]
    found = index.search(vectors, k)[1]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]))


def test_the_chosen_index_reaches_the_recall_on_held_out_queries(
    store: FeatureStore, queries: QueryVectors, tmp_path: Path
) -> None:
    result = tune_index(store, queries, tmp_path / "tuned", recall=0.9, types=["ivf"], mix=True)
    assert result.chosen is not None and result.reached
    index = open_folder(tmp_path / "tuned" / "gallery.index")
    assert index.parameters["nprobe"] == result.chosen.search["nprobe"] < index.parameters["nlist"]
    tuned, held_out = queries.halves()
    assert not set(tuned) & set(held_out) and len(tuned) + len(held_out) == QUERIES
    assert result.query_model is not None and result.gallery_model is not None
    assert result.query_model.mean == pytest.approx(recall(index, store, queries.query_model[held_out]), abs=1e-6)
    assert result.gallery_model.mean == pytest.approx(recall(index, store, queries.gallery_model[held_out]), abs=1e-6)
    assert result.chosen.query_model.mean == pytest.approx(recall(index, store, queries.query_model[tuned]), abs=1e-6)
    assert result.query_model.mean >= 0.9 - 2 * result.query_model.error
    naive = result.naive
    assert naive is not None and naive.gallery_model.mean > naive.query_model.mean  # it promises more than it keeps
    assert {path.name for path in (tmp_path / "tuned").iterdir()} == {"trials.jsonl", "tune.json", "gallery.index"}
    written = json.loads((tmp_path / "tuned" / "tune.json").read_text())
    assert written["chosen"]["candidate"] == result.chosen.candidate and written["reached"] is True


def test_the_soonest_and_the_smallest(store: FeatureStore, queries: QueryVectors, tmp_path: Path) -> None:
    results = {
        prefer: tune_index(store, queries, tmp_path / "tuned", recall=0.8, types=["flat", "ivf"], prefer=prefer)
        for prefer in Prefer
    }
    trials = results[Prefer.SIZE].trials
    assert trials == results[Prefer.LATENCY].trials  # measured once
    good = [trial for trial in trials if trial.query_model.reaches(0.8)]
    soonest, smallest = results[Prefer.LATENCY].chosen, results[Prefer.SIZE].chosen
    assert soonest is not None and smallest is not None
    assert soonest.p50_ms == min(trial.p50_ms for trial in good)
    assert smallest.bytes == min(trial.bytes for trial in good)
    assert "bits 8" in smallest.candidate
    flat = next(trial for trial in trials if trial.candidate == "flat")
    assert flat.query_model.mean == flat.gallery_model.mean == 1


def test_a_killed_tuning_goes_on(
    store: FeatureStore, queries: QueryVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, measured = index_tune.measure, []

    def interrupted(*given: Any) -> Any:
        if len(measured) == 3:
            measured.append("killed")
            raise KeyboardInterrupt
        measured.append(given[1].name)
        return real(*given)

    monkeypatch.setattr(index_tune, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune_index(store, queries, tmp_path / "tuned", recall=0.9, types=["ivf"])
    with open(tmp_path / "tuned" / "trials.jsonl", "a") as file:
        file.write('{"candidate": "iv')  # a line that the kill cut short
    built = []
    monkeypatch.setattr(index_tune, "build_index", lambda *a, **o: built.append(o["type"]) or build_index(*a, **o))
    result = tune_index(store, queries, tmp_path / "tuned", recall=0.9, types=["ivf"])
    assert len(result.trials) == len(measured) - 1 and len({trial.name for trial in result.trials}) == len(
        result.trials
    )
    assert built == ["ivf"]  # the other kind: the first one's index was whole
    with pytest.raises(BadInputError, match="holds trials of another gallery"):
        tune_index(store, queries, tmp_path / "tuned", recall=0.8, types=["ivf"])


def test_lists_on_disk_are_an_index_of_their_own(store: FeatureStore, queries: QueryVectors, tmp_path: Path) -> None:
    held = tune_index(store, queries, tmp_path / "tuned", recall=0.8, types=["ivf"])
    disk = tune_index(store, queries, tmp_path / "tuned", recall=0.8, types=["ivf"], on_disk=True)
    assert not {trial.name for trial in held.trials} & {trial.name for trial in disk.trials}
    assert all("on disk 1" in trial.candidate for trial in disk.trials)
    assert open_folder(tmp_path / "tuned" / "gallery.index").parameters["on_disk"] == 1


def test_nothing_reaches_the_recall(store: FeatureStore, queries: QueryVectors, tmp_path: Path) -> None:
    make_store(tmp_path / "queries", queries.gallery_model)
    np.save(tmp_path / "given.npy", queries.query_model)
    arguments = [
        "index",
        "tune",
        str(store.path),
        "--queries",
        str(tmp_path / "queries"),
        "--embeddings",
        str(tmp_path / "given.npy"),
        "--types",
        "ivf",
        "--out",
        str(tmp_path / "tuned"),
    ]
    done = CliRunner().invoke(app, [*arguments, "--recall", "0.999", "--max-ms", "0.0001"])
    assert isinstance(done.exception, GateFailedError)
    assert "nothing that was tried reaches recall@10 0.999 within 0.0001 ms" in str(done.exception)
    assert (tmp_path / "tuned" / "recall.png").stat().st_size > 1000
    assert not (tmp_path / "tuned" / "gallery.index").exists()
    again = CliRunner().invoke(app, [*arguments, "--recall", "0.9", "--overwrite", "--json"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["chosen"]["search"]["nprobe"] >= 1
    assert (tmp_path / "tuned" / "gallery.index" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recall": 1.0}, "`recall` 1.0: above 0 and below 1"),
        ({"k": COUNT}, "the gallery offers 1 to 2999"),
        ({"types": ["lsh"]}, "`types` lsh: there are flat, ivf, ivfpq, hnsw"),
    ],
)
def test_what_cannot_be_tuned(
    changes: dict[str, Any], message: str, store: FeatureStore, queries: QueryVectors, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match=message):
        tune_index(store, queries, tmp_path / "tuned", **changes)
    assert not (tmp_path / "tuned").exists()


def test_query_vectors_must_be_the_query_stores(store: FeatureStore, tmp_path: Path) -> None:
    asked = make_store(tmp_path / "queries", vectors_of(5, 30))
    with pytest.raises(BadInputError, match="one of `run`, `artifact` and `embeddings`"):
        load_query_vectors(store, asked)
    np.save(tmp_path / "short.npy", vectors_of(5, 29))
    with pytest.raises(BadInputError, match=r"holds \(29, 32\); floats \(30, 32\)"):
        load_query_vectors(store, asked, embeddings=tmp_path / "short.npy")
    np.save(tmp_path / "long.npy", 2 * vectors_of(5, 30))
    with pytest.raises(BadInputError, match=r"has length 2\.000, not 1"):
        load_query_vectors(store, asked, embeddings=tmp_path / "long.npy")
    np.save(tmp_path / "right.npy", vectors_of(6, 30))
    loaded = load_query_vectors(store, asked, embeddings=tmp_path / "right.npy")
    assert loaded.own.tolist() == list(range(30))  # items of these names stand in the gallery


def test_small_galleries_have_fewer_candidates() -> None:
    every = [*index_tune.IndexType]
    assert [c.name for c in candidates(every, 500)] == ["flat", "flat, bits 8", "ivf", "ivf, bits 8"]
    assert "hnsw" in [c.name for c in candidates(every, 1000)]
    assert "ivfpq, refine 8, queries mixed in" in [c.name for c in candidates(every, 5000, mix=True)]
    with pytest.raises(BadInputError, match="too small for them"):
        candidates([index_tune.IndexType.HNSW], 500)


def test_recall_needs_more_than_its_mean() -> None:
    sure, unsure = Recall(0.96, 0.001), Recall(0.96, 0.02)
    assert sure.reaches(0.95) and not unsure.reaches(0.95)
    assert unsure.may_reach(0.98) and not sure.may_reach(0.98)
    assert between({"nprobe": 4}, {"nprobe": 8}) == {"nprobe": 6} and between({"nprobe": 4}, {"nprobe": 5}) is None
