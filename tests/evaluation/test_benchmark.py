"""benchmark: figures by counting are those of the whole ranking, for one setting or three, with distractors on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecsd.errors import BadInputError
from edgecsd.evaluation.benchmark import Benchmark, mean_name, score_settings
from edgecsd.evaluation.ranking import rank
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.metrics.retrieval import Relevance, average_precision, precision_at, rank_biased_overlap, recall_at

SPACE = EmbeddingSpace(gallery_model="acme-v7", dim=8)


def coarse(rows: int, seed: int) -> np.ndarray:
    """Small whole numbers: many exact ties."""
    return np.random.default_rng(seed).integers(-1, 2, (rows, 8)).astype(np.float32)


def judgements(queries: int, gallery: int, seed: int) -> tuple[Relevance, ...]:
    random = np.random.default_rng(seed)
    result = []
    for _ in range(queries):
        chosen = random.permutation(gallery)
        ok, junk = int(random.integers(0, 8)), int(random.integers(0, 12))
        result.append(Relevance(frozenset(chosen[:ok].tolist()), frozenset(chosen[ok : ok + junk].tolist())))
    return tuple(result)


def test_every_figure_is_that_of_the_whole_ranking() -> None:
    gallery, own, queries = coarse(70, 1), coarse(25, 2), coarse(25, 3)
    relevance = judgements(25, 70, 4)
    assert any(not each.ok for each in relevance)
    own_ranking, ranking = rank(own, gallery), rank(queries, gallery)
    figures = Benchmark(gallery, relevance, own_ranking, "").score("x", queries)
    for query, each in enumerate(relevance):
        clean = [row for row in ranking[query].tolist() if row not in each.junk]
        own_clean = [row for row in own_ranking[query].tolist() if row not in each.junk]
        expected = {"AP": average_precision(ranking[query], each)}
        for k in (1, 5, 10):
            expected[f"P@{k}"] = precision_at(ranking[query], each, k)
            expected[f"recall@{k}"] = recall_at(ranking[query], each, k)
            expected[f"overlap@{k}"] = len(set(clean[:k]) & set(own_clean[:k])) / k
        expected["RBO"] = rank_biased_overlap(np.array([clean[:10]]), np.array([own_clean[:10]]))[0]
        found = {name: column[query] for name, column in figures.values.items()}
        assert found == pytest.approx(expected, nan_ok=True)
        assert figures.found[query].tolist() == clean[:10] and figures.relevant[query] == len(each.ok)
    assert figures.mean_average_precision == np.nanmean(figures.values["AP"])
    assert figures.rank_biased_overlap == pytest.approx(figures.values["RBO"].mean())
    assert figures.overlap_error[5] == pytest.approx(figures.values["overlap@5"].std() / 5)
    interval = figures.intervals["mAP"]
    assert interval.mean == pytest.approx(figures.mean_average_precision) and interval.low < interval.mean
    assert list(figures.intervals) == [mean_name(name) for name in figures.values]
    plain = figures.as_dict()
    assert plain["intervals"]["overlap@10"]["low"] == figures.intervals["overlap@10"].low and "values" not in plain


def test_settings_in_one_search_are_settings_one_by_one() -> None:
    gallery, queries = coarse(60, 5), coarse(12, 6)
    own = rank(coarse(12, 7), gallery)
    settings = [Benchmark(gallery, judgements(12, 60, seed), own, "", str(seed)) for seed in (1, 2, 3)]
    together = score_settings(settings, "x", queries)
    for each, alone in zip(together, [one.score("x", queries) for one in settings], strict=True):
        assert each == alone
        for name, column in alone.values.items():
            np.testing.assert_array_equal(each.values[name], column)
    assert [each.setting for each in together] == ["1", "2", "3"]


def distractor_store(path: Path, vectors: np.ndarray) -> FeatureStore:
    items = Items(tuple(f"{path.name}-{n}" for n in range(len(vectors))), ("",) * len(vectors))
    return write_store(path, SPACE, items, vectors, dtype="float32")


def test_distractors_are_more_gallery_that_is_never_relevant(tmp_path: Path) -> None:
    unit = np.repeat(np.eye(8, dtype=np.float32), 4, axis=0)
    stores = (distractor_store(tmp_path / "a", unit), distractor_store(tmp_path / "b", -unit))
    gallery, queries, own = coarse(40, 8), coarse(9, 9), coarse(9, 10)
    relevance = judgements(9, 40, 11)
    joined = np.concatenate([gallery, unit, -unit])
    apart = Benchmark(gallery, relevance, rank(own, joined), "", distractors=stores).score("x", queries)
    together = Benchmark(joined, relevance, rank(own, joined), "").score("x", queries)
    assert apart == together and apart.found.max() >= 40
    without = Benchmark(gallery, relevance, rank(own, gallery), "").score("x", queries)
    assert apart.mean_average_precision < without.mean_average_precision
    with pytest.raises(BadInputError, match="distractors have no vectors of another"):
        Benchmark(gallery, relevance, rank(own, joined), "", distractors=stores).score("x", queries, gallery)


def test_a_query_that_is_not_finite_counts_as_a_miss() -> None:
    gallery, queries = coarse(30, 12), coarse(4, 13)
    relevance = (Relevance(frozenset({0, 1, 2})),) * 4
    queries[2, 0] = np.nan
    figures = Benchmark(gallery, relevance, rank(coarse(4, 13), gallery), "").score("x", queries)
    assert all(column[2] == 0 for column in figures.values.values()) and set(figures.found[2]) == {-1}
    assert figures.values["overlap@10"][[0, 1, 3]].tolist() == [1, 1, 1]


def test_a_gallery_smaller_than_the_depth() -> None:
    gallery = coarse(6, 14)
    relevance = (Relevance(frozenset({0}), frozenset({1, 2})), Relevance(frozenset({3})))
    figures = Benchmark(gallery, relevance, rank(coarse(2, 15), gallery), "").score("x", coarse(2, 15))
    assert figures.overlap == {1: 1.0, 5: 1.0, 10: 1.0} and figures.rank_biased_overlap == pytest.approx(1.0)
    assert (figures.found >= 0).sum(axis=1).tolist() == [4, 6]


def test_what_does_not_fit_together_is_refused() -> None:
    gallery, relevance = coarse(30, 16), (Relevance(frozenset({1})),) * 2
    whole = Benchmark(gallery, relevance, rank(coarse(2, 17), gallery), "")
    with pytest.raises(BadInputError, match="3 query embeddings for 2 queries"):
        whole.score("x", coarse(3, 17))
    with pytest.raises(BadInputError, match="a gallery of 29 vectors where 30 are judged"):
        whole.score("x", coarse(2, 17), gallery[:29])
    short = Benchmark(gallery, relevance, rank(coarse(2, 17), gallery)[:, :8], "")
    assert short.score("x", coarse(2, 17), depths=(1, 8)).overlap[8] == 1.0
    with pytest.raises(BadInputError, match="depth 10: only 8 of the gallery model's own results are known"):
        short.score("x", coarse(2, 17))
