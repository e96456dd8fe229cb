"""matrix: figures against brute force, who may talk to whom with real files, and the roll-out in words."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from doubles import PixelGallery

from edgecsd import cli
from edgecsd.checking.matrix.matrix import matrix
from edgecsd.checking.matrix.measure import Judged, measure, search, update_between
from edgecsd.checking.matrix.result import MatrixResult, Pairing
from edgecsd.checking.matrix.rollout import rollout
from edgecsd.errors import BadInputError
from edgecsd.exporting.export import export
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.gallery.extract import extract
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.engines.faiss.folder import open_folder
from edgecsd.models.query import create_query_model, save_query_model
from edgecsd.photos.finding import find_images

# Figures, on vectors: no file is run here.

LABELS = ("cat", "dog", "fish", "bird")


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """60 gallery items of four kinds; 40 queries, the first ten of them gallery items themselves."""
    random = np.random.default_rng(0)
    centres, kinds = random.normal(size=(4, 16)), random.integers(0, 4, 90)
    vectors = unit(centres[kinds] + 0.9 * random.normal(size=(90, 16)))
    ids = tuple(f"item-{n}" for n in range(60))
    space = EmbeddingSpace(gallery_model="acme-v7", dim=16)
    folder = tmp_path_factory.mktemp("judged")
    store = write_store(folder / "s", space, Items(ids, ("",) * 60), vectors[:60], dtype="float32")
    index = build_index(store, folder / "gallery.index", type="ivf", nlist=4, nprobe=2)
    asked = [*range(10), *range(60, 90)]
    names = tuple(f"item-{n}" for n in asked)
    labels = {f"item-{n}": LABELS[kinds[n]] for n in range(90)}
    return Judged(index, names, vectors[asked], labels, tuple(labels[name] for name in names))


def noisy(judged: Judged, amount: float, seed: int = 1) -> np.ndarray:
    return unit(judged.truth + amount * np.random.default_rng(seed).normal(size=judged.truth.shape))


def test_figures_against_brute_force(judged: Judged) -> None:
    vectors = noisy(judged, 0.3)
    found = measure("gallery.index", "v2.onnx", vectors, judged, 5)
    assert judged.labels is not None and judged.query_labels is not None
    overlaps, precisions, first = [], [], []
    for query, name in enumerate(judged.ids):
        ranked = []
        for vector in (vectors[query], judged.truth[query]):
            rows = judged.index.search(vector[None], 60)[1][0].tolist()
            ranked.append([judged.index.ids[r] for r in rows if r >= 0 and judged.index.ids[r] != name])
        overlaps.append(len(set(ranked[0][:5]) & set(ranked[1][:5])) / 5)
        own = judged.labels[name]
        relevant = sum(judged.labels[item] == own for item in judged.index.ids if item != name)
        hits, total = 0, 0.0
        for place, item in enumerate(ranked[0]):
            if judged.labels[item] == own:
                total += ((hits / place if place else 1) + (hits + 1) / (place + 1)) / 2
                hits += 1
        precisions.append(total / relevant)
        first.append(judged.labels[ranked[0][0]] == own)
    assert found.overlap is not None and found.average_precision is not None and found.right is not None
    assert found.overlap.mean == pytest.approx(np.mean(overlaps)) and 0 < found.overlap.mean < 1
    assert found.average_precision.mean == pytest.approx(np.mean(precisions))
    assert found.right.mean == pytest.approx(np.mean(first)) and 0 < found.right.mean < 1
    assert found.overlap.low < found.overlap.mean < found.overlap.high
    np.testing.assert_allclose(found.values["average_precision"], precisions)


def test_without_labels_right_is_the_gallery_models_own_first(judged: Judged) -> None:
    bare = Judged(judged.index, judged.ids, judged.truth, None, None)
    same = measure("i", "a", judged.truth, bare, 5)
    assert same.right is not None and same.overlap is not None and same.average_precision is None
    assert (same.right.mean, same.overlap.mean) == (1.0, 1.0)
    vectors = noisy(judged, 0.3)
    own, found = search(bare, judged.truth, 1)[:, 0], search(bare, vectors, 1)[:, 0]
    np.testing.assert_array_equal(measure("i", "a", vectors, bare, 5).values["right"], own == found)


def test_a_query_that_is_not_finite_finds_nothing(judged: Judged) -> None:
    vectors = noisy(judged, 0.0)
    vectors[3] = np.nan
    found = measure("i", "a", vectors, judged, 5)
    assert found.values["overlap"][3] == found.values["right"][3] == found.values["average_precision"][3] == 0


def test_negative_flips_and_the_criterion(judged: Judged) -> None:
    better, worse = (measure("i", name, noisy(judged, amount), judged, 5) for name, amount in (("a", 0.1), ("b", 1.5)))
    update = update_between(better, worse, judged.ids)
    before, after = better.values["right"], worse.values["right"]
    lost = [name for name, was, now in zip(judged.ids, before, after, strict=True) if was and not now]
    assert update.flips == len(lost) > 0 and update.flipped == tuple(lost[:10])
    assert update.negative_flips.mean == pytest.approx(len(lost) / 40)
    assert update.positive_flips.mean == pytest.approx(float(((before == 0) & (after == 1)).mean()))
    assert update.figure == "average_precision" and update.difference.mean < 0
    assert update.criterion == "violated" and update_between(worse, better, judged.ids).criterion == "met"
    again = update_between(better, better, judged.ids)
    assert (again.criterion, again.flips, again.needed) == ("not shown", 0, None)
    assert again.as_dict()["criterion"] == "not shown"


def test_a_query_without_relevant_items_is_no_flip(judged: Judged) -> None:
    assert judged.labels is not None and judged.query_labels is not None
    strange = Judged(judged.index, judged.ids, judged.truth, judged.labels, ("wolf", *judged.query_labels[1:]))
    old, new = (measure("i", name, noisy(judged, amount), strange, 5) for name, amount in (("a", 0.1), ("b", 1.5)))
    assert np.isnan(old.values["right"][0]) and np.isnan(old.values["average_precision"][0])
    update = update_between(old, new, judged.ids)
    assert judged.ids[0] not in update.flipped and update.difference.queries == 39


# The roll-out in words.


def table(*able: str) -> list[Pairing]:
    """Pairings of artifacts a, b and indexes 1, 2, of which those named ("a1") may talk."""
    return [Pairing(artifact, index, artifact + index in able) for artifact in "ab" for index in "12"]


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        (("a1", "a2", "b1", "b2"), ["1: every", "2: every", "1 -> 2: may be exchanged at any time; a, b"]),
        (("a1", "b2"), ["1: only a", "2: only b", "1 -> 2: serve both, .* release b while .* no app with a is"]),
        (("a1", "b1", "b2"), ["1: every", "2: only b .* not answer apps with a", "1 -> 2: first release b, .* a is"]),
        (("a1", "b1"), ["1: every", "2: no artifact may be searched in it; distil"]),
        (("a1",), ["1: only a", "2: no artifact", "b may be searched in none of these indexes: don't release"]),
    ],
)
def test_the_order_of_a_roll_out(able: tuple[str, ...], expected: list[str]) -> None:
    lines = rollout("ab", "12", table(*able), ())
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.search(pattern, line), line


def test_updates_in_words(judged: Judged) -> None:
    better, worse = (measure("i", name, noisy(judged, amount), judged, 5) for name, amount in (("a", 0.1), ("b", 1.5)))
    for old, new, words in (
        (better, worse, "don't release it against this index"),
        (worse, better, "may replace the older app"),
        (better, better, "neither better nor worse is shown: "),
    ):
        (line,) = rollout((), (), (), [update_between(old, new, judged.ids)])
        assert words in line and "average precision" in line and "queries that were right before are wrong now" in line


# Real files.


@pytest.fixture(scope="module")
def folder(photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two app versions of one space and one of another; an index of each space, one with nobody to talk to."""
    made = tmp_path_factory.mktemp("matrix")
    other = extract(find_images(photos), PixelGallery(seed=8), made / "other.store")
    lonely = extract(find_images(photos), PixelGallery(seed=9), made / "lonely.store")
    for name, space, seed in (("v1", pixel_store.space, 1), ("v2", pixel_store.space, 2), ("v3", other.space, 3)):
        torch.manual_seed(seed)
        save_query_model(create_query_model("test_efficientnet", space, size=48, pretrained=False), made / name)
        export(made / name, "onnx", "fp32", out=made / f"{name}.onnx")
    build_index(pixel_store, made / "old.index")
    build_index(other, made / "new.index", type="hnsw")
    build_index(lonely, made / "lonely.index")
    return made


@pytest.fixture(scope="module")
def result(folder: Path, photos: Path, pixel_store: FeatureStore) -> MatrixResult:
    return matrix(
        [folder / f"{name}.onnx" for name in ("v1", "v2", "v3")],
        [folder / "old.index", folder / "new.index"],
        find_images(photos),
        references=[pixel_store.path, folder / "other.store"],
        k=5,
    )


def test_who_may_talk_to_whom(result: MatrixResult) -> None:
    able = {(p.artifact, p.index) for p in result.pairings if p.compatible}
    assert able == {("v1.onnx", "old.index"), ("v2.onnx", "old.index"), ("v3.onnx", "new.index")}
    refused = {(p.artifact, p.index): p.reason for p in result.pairings if not p.compatible}
    assert "gallery_model: double:pixels-7 against double:pixels-8" in refused["v1.onnx", "new.index"]
    assert "What to do" in refused["v3.onnx", "old.index"] and len(refused) == 3
    assert result.passed and result.unsearchable == () and (result.queries, result.left_out) == (24, 0)
    assert [(update.old, update.new, update.index) for update in result.updates] == [
        ("v1.onnx", "v2.onnx", "old.index")
    ]
    assert any(line.startswith("old.index -> new.index: serve both") for line in result.rollout)
    document = json.loads(json.dumps(result.as_dict()))
    assert document["schema_version"] == 1 and len(document["pairings"]) == 6 and document["updates"][0]["needed"] != 0


def test_the_figures_are_those_of_the_index(result: MatrixResult, folder: Path, photos: Path) -> None:
    from edgecsd.models.embedding import embed_images
    from edgecsd.targets.artifact import ArtifactEmbedder

    images, index = find_images(photos), open_folder(folder / "new.index")
    vectors = embed_images(images, ArtifactEmbedder(folder / "v3.onnx")).vectors[:, 0]
    truth = FeatureStore.open(folder / "other.store").vectors()
    expected = measure("new.index", "v3.onnx", vectors, Judged(index, images.ids, truth, None, None), 5)
    (found,) = result.talks(artifact="v3.onnx")
    assert found == expected


def test_labels_and_fewer_photos(folder: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    rows = [f"{item},{'abc'[number % 3]}" for number, item in enumerate(find_images(photos).ids)]
    (tmp_path / "labels.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    arguments = ([folder / "v1.onnx"], [folder / "old.index"], find_images(photos))
    found = matrix(*arguments, references=[pixel_store.path], labels=tmp_path / "labels.csv", limit=6, k=5)
    assert found.queries == 6 and found.pairings[0].average_precision is not None and "label" in found.relevance
    with pytest.raises(BadInputError, match=r"has no labels; a CSV list needs a column 'label'"):
        matrix(*arguments, references=[pixel_store.path], labels=pixel_store.path)
    strange = Items(pixel_store.items.ids, pixel_store.items.digests, ("",) * 24)
    store = write_store(tmp_path / "s", pixel_store.space, strange, unit(pixel_store.vectors()))
    with pytest.raises(BadInputError, match="no query photo has a label that an item of"):
        matrix(*arguments, references=[pixel_store.path], labels=store.path)


def test_what_is_refused(folder: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    one, old = folder / "v1.onnx", folder / "old.index"
    with pytest.raises(BadInputError, match="`artifact`: the same one is given twice"):
        matrix([one, one], [old], find_images(photos))
    with pytest.raises(BadInputError, match="`index`: one or more are needed"):
        matrix([one], [], find_images(photos))
    with pytest.raises(BadInputError, match="give its features of the images with `reference` STORE"):
        matrix([one], [old], find_images(photos))
    changed = Items(pixel_store.items.ids, ("0" * 64,) * 24)
    store = write_store(tmp_path / "s", pixel_store.space, changed, unit(pixel_store.vectors()))
    with pytest.raises(BadInputError, match=r"is not the photo that its reference features are of \(24 such photos\)"):
        matrix([one], [old], find_images(photos), references=[store.path])


def test_the_command(
    folder: Path,
    photos: Path,
    pixel_store: FeatureStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: object) -> int:
        base = ["edgecsd", "matrix", "--images", photos, "--reference", pixel_store.path, "--limit", 6, "--k", 5]
        monkeypatch.setattr(sys, "argv", [str(each) for each in (*base, *arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0)

    both = ("--artifact", folder / "v1.onnx", "--artifact", folder / "v2.onnx", "--index", folder / "old.index")
    assert run(*both) == 0
    text = capsys.readouterr().out
    assert "v2.onnx   old.index       yes" in text and text.splitlines()[-1].startswith("PASS")
    assert run(*both, "--index", folder / "lonely.index", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is False and document["unsearchable"] == ["lonely.index"]
    assert run(*both, "--index", folder / "lonely.index") == 1
    text = capsys.readouterr().out
    assert text.splitlines()[-1] == "FAIL: no artifact may be searched in lonely.index"
    assert "refused: v1.onnx and lonely.index live in different embedding spaces" in text
