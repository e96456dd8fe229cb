"""The waterfall against slow formulas, the blame of one bad link, exact search against sorting, and who must pass."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from saved_evidence import HEALTHY, make_evidence, unit

from edgecsd.checking.search import EmbeddedQueries, IndexVectors, StoreVectors, exact_search, search_links
from edgecsd.features.exact import without_own
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.gate.evidence import Evidence
from edgecsd.gate.facts import LinkName
from edgecsd.gate.gates import Verdict
from edgecsd.gate.judging import judge
from edgecsd.gate.thresholds import DEFAULT_THRESHOLDS
from edgecsd.gate.waterfall import MAP, OVERLAP, RECALL_1, RECALL_K, relative_loss, waterfall
from edgecsd.index.engines.faiss.building import build_index

W8A8 = DEFAULT_THRESHOLDS["w8a8"]  # type: ignore[index]


def test_figures_in_slow_loops() -> None:
    evidence = make_evidence(queries=20)
    truth = evidence.links[0].rows
    for link, found in zip(evidence.links, waterfall(evidence), strict=True):
        overlap = [len(set(link.rows[q, :10]) & set(truth[q, :10])) / 10 for q in range(20)]
        first = [link.rows[q, 0] == truth[q, 0] for q in range(20)]
        within = [truth[q, 0] in link.rows[q, :10] for q in range(20)]
        assert found.figures[OVERLAP].mean == pytest.approx(np.mean(overlap))
        assert found.figures[RECALL_1].mean == np.mean(first) and found.figures[RECALL_K].mean == np.mean(within)
        assert MAP not in found.figures
        assert found.best == pytest.approx(link.scores[:, 0])
    assert waterfall(evidence)[0].figures[OVERLAP].mean == 1.0 and not waterfall(evidence)[0].change


def test_changes_and_the_worst_queries() -> None:
    links = waterfall(make_evidence())
    for before, after in itertools.pairwise(links):
        change = after.values[OVERLAP] - before.values[OVERLAP]
        assert after.change[OVERLAP].mean == pytest.approx(change.mean())
        assert after.change[OVERLAP].low <= change.mean() <= after.change[OVERLAP].high
        assert [change[query] for query in after.worst] == sorted(change)[: len(after.worst)]
    assert links[2].worst == ()  # the fp32 export is the torch model to the bit


@pytest.mark.parametrize("link", [LinkName.QUERY, LinkName.FP32, LinkName.FILE, LinkName.INDEX])
def test_one_bad_link_is_blamed(link: LinkName) -> None:
    judgement = judge(make_evidence({link: 3.0}), W8A8)
    failed = [gate for gate in judgement.gates if gate.verdict is Verdict.FAILED and gate.interval is not None]
    assert failed and {gate.link for gate in failed} <= {link, LinkName.FILE}
    overlap = [gate for gate in failed if gate.name.startswith("overlap@10")]
    assert {gate.link for gate in overlap} == {link} and all(gate.message for gate in overlap)


def test_healthy_links_pass() -> None:
    judgement = judge(make_evidence(HEALTHY), W8A8)
    assert judgement.passed and not [gate for gate in judgement.gates if gate.verdict is Verdict.FAILED]


def test_relative_loss_is_the_ratio_of_means() -> None:
    random = np.random.default_rng(5)
    before, after = random.uniform(0.2, 1, 50), random.uniform(0, 0.8, 50)
    assert relative_loss(before, after).mean() == pytest.approx(1 - after.mean() / before.mean())
    resampled = [random.integers(0, 50, 50) for _ in range(4000)]
    ratios = [1 - after[rows].mean() / before[rows].mean() for rows in resampled]
    assert relative_loss(before, after).std() / np.sqrt(50) == pytest.approx(np.std(ratios), rel=0.1)
    assert not relative_loss(np.zeros(3), np.zeros(3)).any()


def store_of(vectors: np.ndarray, path: Path) -> FeatureStore:
    space = EmbeddingSpace(gallery_model="test", dim=vectors.shape[1])
    ids = tuple(f"item-{row}" for row in range(len(vectors)))
    return write_store(path, space, Items(ids, ("",) * len(ids)), vectors, dtype="float32")


@pytest.mark.parametrize("kind", ["ivf", "hnsw", "store"])
def test_exact_search_is_sorting(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through several blocks, with duplicate vectors: ties by number."""
    monkeypatch.setattr("edgecsd.checking.search.MOST_ROWS", 64)
    random = np.random.default_rng(1)
    gallery = unit(random.normal(size=(300, 8)))
    gallery[200:220] = gallery[:20]
    queries = np.concatenate([gallery[:3], unit(random.normal(size=(5, 8)))])
    queries[4] = np.nan
    store = store_of(gallery, tmp_path / "store")
    index = build_index(store, tmp_path / "index", type="flat" if kind == "store" else kind)
    source = StoreVectors(store, index) if kind == "store" else IndexVectors(index)
    scores, rows = exact_search(queries, source, 30)
    assert (rows[4] == -1).all() and np.isneginf(scores[4]).all()
    for query in (0, 1, 2, 3, 5, 6, 7):
        exact = np.array([float(np.dot(queries[query].astype(np.float64), vector)) for vector in gallery])
        assert exact[rows[query]] == pytest.approx(np.sort(exact)[::-1][:30], abs=1e-6)
        assert scores[query] == pytest.approx(exact[rows[query]], abs=1e-6)
        assert len(set(rows[query].tolist())) == 30
    assert rows[0, :2].tolist() == [0, 200]


def test_a_store_with_other_rows_than_the_index(tmp_path: Path) -> None:
    """Items are known by id: what the index has keeps its row, what it lacks counts on from its end."""
    gallery = unit(np.random.default_rng(2).normal(size=(40, 8)))
    whole = store_of(gallery, tmp_path / "whole")
    ids = whole.items.ids[::-1][:30]
    part = write_store(tmp_path / "part", whole.space, Items(ids, ("",) * 30), gallery[::-1][:30], dtype="float32")
    index = build_index(part, tmp_path / "index")
    links, names = search_links(index, whole, [EmbeddedQueries(LinkName.GALLERY, "", gallery)], whole.items.ids, 5)
    assert len(names) == 40 and names[:30] == index.ids
    for query in range(40):
        order = sorted((n for n in range(40) if n != query), key=lambda n: -float(gallery[query] @ gallery[n]))
        assert [names[row] for row in links[0].rows[query, :5]] == [f"item-{n}" for n in order[:5]]
        kept = [f"item-{n}" for n in order if n >= 10][:5]
        assert [names[row] for row in links[1].rows[query, :5]] == kept


def test_the_own_photo_is_taken_out() -> None:
    rows = np.array([[3, 1, 2], [1, 2, -1], [2, 1, 3]])
    scores = np.array([[0.9, 0.8, 0.7], [0.9, 0.8, -np.inf], [0.5, 0.4, 0.3]], np.float32)
    kept_scores, kept = without_own(scores, rows, np.array([1, -1, 9]), 2)
    assert kept.tolist() == [[3, 2], [1, 2], [2, 1]]
    assert kept_scores.tolist() == np.array([[0.9, 0.7], [0.9, 0.8], [0.5, 0.4]], np.float32).tolist()


def test_hnsw_is_asked_as_the_app_asks(tmp_path: Path) -> None:
    """Versions of faiss that search HNSW deeper where more results are wanted would flatter the index."""
    gallery = unit(np.random.default_rng(4).normal(size=(500, 16)))
    store = store_of(gallery, tmp_path / "store")
    index = build_index(store, tmp_path / "index", type="hnsw", links=2, ef_construction=4, ef_search=6)
    queries = unit(np.random.default_rng(5).normal(size=(50, 16)))
    names = [f"query-{n}" for n in range(50)]
    links, _ = search_links(index, None, [EmbeddedQueries(LinkName.GALLERY, "", queries)], names, 5)
    assert (links[-1].rows[:, :5] == index.search(queries, 6)[1][:, :5]).all()
    assert links[-1].rows.shape == (50, 5)


def test_broken_numbers_are_told_apart() -> None:
    evidence: Evidence = make_evidence()
    nan = evidence.numerics.norm.copy()
    nan[3] = np.nan
    for numerics, name in (
        ({"norm": nan, "cosine": nan}, "embeddings that are zero, NaN or infinite"),
        ({"norm": np.zeros(120)}, "embeddings that are zero, NaN or infinite"),
        ({"stuck": 24}, "dimensions stuck at one value, share"),
        ({"norm": np.full(120, 2.0)}, "length of the embedding, largest error"),
    ):
        failed = {
            gate.name for gate in judge(make_evidence(numerics=numerics), W8A8).gates if gate.verdict is Verdict.FAILED
        }
        assert name in failed, failed
