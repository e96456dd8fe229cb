"""comparison: verdicts on known differences, refusals of what does not compare, and the command's exit codes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgecsd import cli
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.evaluation.compare import compare, compare_scores
from edgecsd.evaluation.evaluate import OWN_ROW, evaluate
from edgecsd.evaluation.per_query import PerQuery, QueryScores, read_per_query, write_per_query
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.metrics.bootstrap import paired_difference
from edgecsd.models.query import create_query_model, save_query_model

QUERIES = 40


def scores(name: str, average_precision: np.ndarray, setting: str = "all") -> QueryScores:
    ids = tuple(f"q{n}" for n in range(len(average_precision)))
    relevant = np.ones(len(ids), np.int64)
    return QueryScores(name, setting, ids, relevant, {"AP": average_precision, "P@5": relevant * 0.5}, ((),) * len(ids))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Gallery and queries around four centres, with labels."""
    folder, random = tmp_path_factory.mktemp("stores"), np.random.default_rng(0)
    centres, space = random.normal(size=(4, 16)), EmbeddingSpace(gallery_model="acme", dim=16)
    for name, count in (("g", 80), ("q", QUERIES)):
        labels = random.integers(0, 4, count)
        vectors = centres[labels] + random.normal(scale=0.9, size=(count, 16))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        items = Items(tuple(f"{name}{n}" for n in range(count)), ("",) * count, tuple(map(str, labels)))
        write_store(folder / name, space, items, vectors.astype(np.float32), dtype="float32")
    return folder / "g", folder / "q"


@pytest.fixture
def base(stores: tuple[Path, Path]) -> PerQuery:
    return evaluate(*stores).per_query


def with_model(base: PerQuery, name: str, change: float = 0.0, seed: int = 1) -> PerQuery:
    """The results with a further model, whose AP is the gallery model's, noisy and lower by `change` on average."""
    own = base.scores[0]
    noise = np.random.default_rng(seed).normal(-change, 0.1, QUERIES)
    values = {**own.values, "AP": own.values["AP"] + noise}
    header = base.header.model_copy(update={"models": {**base.header.models, name: "0" * 64}})
    return replace(base, header=header, scores=(own, replace(own, model=name, values=values)))


def written(path: Path, results: PerQuery) -> Path:
    write_per_query(path, results)
    return path


def changed(results: PerQuery, **changes: Any) -> PerQuery:
    return replace(results, header=results.header.model_copy(update=changes))


def test_verdicts() -> None:
    random = np.random.default_rng(2)
    better = random.random(60)
    rows = compare_scores(
        {"easy": scores("a", better, "easy"), "hard": scores("a", better, "hard")},
        {
            "easy": scores("b", better - random.normal(0.1, 0.1, 60), "easy"),
            "hard": scores("b", better + random.normal(0.002, 0.1, 60), "hard"),
        },
    )
    assert [(row.setting, row.figure) for row in rows] == [
        ("easy", "mAP"),
        ("easy", "mP@5"),
        ("hard", "mAP"),
        ("hard", "mP@5"),
    ]
    clear, same, unclear, _ = rows
    assert clear.shown and clear.verdict == "A better"
    assert clear.difference.mean == pytest.approx(clear.mean_a - clear.mean_b)
    assert not same.shown and same.verdict == "no difference" and same.difference.p_value == 1
    assert not unclear.shown and unclear.needed is not None and unclear.needed > 60
    assert unclear.verdict == f"no difference shown: {unclear.needed} queries would be needed"
    (turned,) = compare_scores({"x": scores("a", better - 0.1)}, {"x": scores("b", better)})[:1]
    assert turned.verdict == "B better" and turned.mean_b == pytest.approx(better.mean())


def test_two_files_need_no_model(base: PerQuery, tmp_path: Path) -> None:
    a = written(tmp_path / "a.parquet", with_model(base, "query model, asymmetric", 0.02, seed=3))
    b = written(tmp_path / "b.parquet", with_model(base, "x.tflite, asymmetric", 0.2, seed=4))
    result = compare(a, b)
    assert result.a == f"{a} (query model, asymmetric)" and result.b == f"{b} (x.tflite, asymmetric)"
    assert result.queries == QUERIES and result.gallery == 80 and len(result.rows) == 11
    values = [read_per_query(path).scores[1].values["AP"] for path in (a, b)]
    assert result.rows[0].difference == paired_difference(*values) and result.rows[0].verdict == "A better"
    assert all(row.verdict == "no difference" for row in result.rows[1:])
    own = compare(a, a, models=(OWN_ROW, "query model, asymmetric"))
    assert own.rows[0].mean_a == pytest.approx(np.nanmean(base.scores[0].values["AP"]))
    assert compare(a, b, models=(OWN_ROW,)).rows[0].verdict == "no difference"
    json.dumps(result.as_dict())


def test_which_model_is_compared(base: PerQuery, tmp_path: Path) -> None:
    none = written(tmp_path / "none.parquet", base)
    one = written(tmp_path / "one.parquet", with_model(base, "query model, asymmetric"))
    with pytest.raises(BadInputError, match=r"none\.parquet: choose with `model` which .*: gallery model, symmetric"):
        compare(none, one)
    with pytest.raises(BadInputError, match="has no model 'query model'; it has: gallery model, symmetric; query"):
        compare(one, one, models=("query model",))
    with pytest.raises(BadInputError, match="3 names; give one for both"):
        compare(one, one, models=("a", "b", "c"))


def test_other_galleries_are_exit_code_3(base: PerQuery, tmp_path: Path) -> None:
    whole = with_model(base, "m")
    a, header = written(tmp_path / "a.parquet", whole), whole.header
    cases = [
        ({"gallery": header.gallery.model_copy(update={"fingerprint": "es1-0"})}, "different embedding spaces"),
        ({"gallery": header.gallery.model_copy(update={"digest": "0"})}, "different galleries"),
        ({"distractors": (header.gallery,)}, r"different distractors \(none; .*80 items\)"),
    ]
    for changes, message in cases:
        b = written(tmp_path / "b.parquet", changed(whole, **changes))
        with pytest.raises(IncompatibleError, match=message):
            compare(a, b)


def test_other_queries_and_protocols_are_exit_code_2(base: PerQuery, tmp_path: Path) -> None:
    whole = with_model(base, "m")
    a, header = written(tmp_path / "a.parquet", whole), whole.header
    cases = [
        ({"queries": header.queries.model_copy(update={"digest": "0"})}, "other queries"),
        ({"ground_truth": "0" * 64}, "other judgements"),
        (
            {"protocol": header.protocol.model_copy(update={"crop": "all"})},
            "other protocols: crop: 'none' against 'all'",
        ),
    ]
    for changes, message in cases:
        b = written(tmp_path / "b.parquet", changed(whole, **changes))
        with pytest.raises(BadInputError, match=message):
            compare(a, b)
    fewer = tuple(replace(score, values={"AP": score.values["AP"]}) for score in whole.scores)
    with pytest.raises(BadInputError, match="they hold other figures"):
        compare(a, written(tmp_path / "b.parquet", replace(whole, scores=fewer)))
    with pytest.raises(BadInputError, match=r"`gallery`, `labels`: has no meaning where two per-query files"):
        compare(a, a, gallery=tmp_path, labels=True)
    with pytest.raises(BadInputError, match="evaluated first, which needs `queries`, `images` too"):
        compare(a, tmp_path / "run", gallery=tmp_path)


@pytest.fixture(scope="module")
def runs(pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two query models as they start, which know nothing."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        model = create_query_model("test_byobnet", pixel_store.space, size=48, pretrained=False)
        (folder / name).mkdir()
        save_query_model(model.eval(), folder / name)
    return folder / "a", folder / "b"


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["edgecsd", "evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return int(stop.value.code or 0), printed.out, printed.err


def test_the_command_on_runs_and_files(
    runs: tuple[Path, Path],
    pixel_store: FeatureStore,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        return command(monkeypatch, capsys, *arguments)

    searched = ("--gallery", pixel_store.path, "--queries", pixel_store.path, "--images", photos)
    for name, folder in zip("ab", runs, strict=True):
        code, text, _ = run(*searched, "--run", folder, "--per-query", tmp_path / f"{name}.parquet")
        assert code == 0 and f"wrote {tmp_path / name}.parquet" in text and "next: edgecsd evaluate --compare" in text
    lines = text.splitlines()
    assert max(map(len, lines[:12])) < 100 and lines[0].split() == ["gallery", "model", "query", "model"]
    assert lines[3].split()[:4] == ["mAP", "1.000", "[1.000,", "1.000]"]
    assert "95% BCa bootstrap" in text and "exact" in text
    code, as_json, _ = run("--compare", *runs, *searched, "--json")
    document = json.loads(as_json)
    assert code == 0 and document["a"].endswith("a (query model, asymmetric)") and document["queries"] == 24
    code, again, _ = run("--compare", tmp_path / "a.parquet", tmp_path / "b.parquet", "--json")
    assert code == 0 and json.loads(again)["rows"] == document["rows"]  # runs evaluated now, files written before
    code, text, _ = run("--compare", tmp_path / "a.parquet", runs[1], *searched)
    assert code == 0 and text.splitlines()[2].split() == ["A", "B", "A", "-", "B", "p", "queries", "verdict"]
    assert "queries would be needed" in text or "better" in text


def test_the_commands_refusals(
    base: PerQuery,
    stores: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    a = written(tmp_path / "a.parquet", with_model(base, "m"))
    other = base.header.queries.model_copy(update={"digest": "0"})
    queries = written(tmp_path / "queries.parquet", changed(with_model(base, "m"), queries=other))
    gallery = written(tmp_path / "gallery.parquet", changed(with_model(base, "m"), gallery=other))
    cases = [
        (2, ("--compare", a, queries), "other queries"),
        (3, ("--compare", a, gallery), "different galleries"),
        (2, ("--compare", a, a, "--run", tmp_path), "--run: has no meaning with --compare"),
        (2, ("--compare", a, tmp_path / "none.parquet"), "no such file"),
        (2, ("--gallery", stores[0]), "Missing option '--queries'"),
        (2, ("--queries", stores[1]), "Missing option '--gallery'"),
        (2, ("--gallery", stores[0], "--queries", stores[1], "--model", "m"), "--model: has no meaning"),
        (2, ("--gallery", stores[0], "--queries", stores[1], "--per-query", "x.csv"), "call it x.parquet"),
        (2, ("--gallery", stores[0], "--queries", stores[1], "--ground-truth", tmp_path / "n.json"), "n.json"),
    ]
    for code, arguments, message in cases:
        found, out, err = command(monkeypatch, capsys, *arguments)
        assert (found, out) == (code, "") and message in err.splitlines()[-1], (arguments, err)
