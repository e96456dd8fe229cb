"""The benchmark of kinds that were or were not trained on: its split, its refusal and its results."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import warm

from edgecsd.photos.finding import find_images

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "quality" / "kinds.py"


@pytest.fixture
def listed(photos: Path, tmp_path: Path) -> Path:
    """The 24 photos with four labels in turns, as a list."""
    (tmp_path / "photos").symlink_to(photos)
    file = tmp_path / "labels.csv"
    with open(file, "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["path", "label"])
        writer.writerows([f"photos/{item}", "abcd"[number % 4]] for number, item in enumerate(find_images(photos).ids))
    return file


def test_no_kind_is_on_both_sides(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    from kinds import split_by_kind

    images = find_images(listed)
    kinds, parts = split_by_kind(images, 3)
    assert sorted(kinds["trained on"] + kinds["searched"]) == ["a", "b", "c", "d"]
    assert {name: len(part) for name, part in parts.items()} == {"train": 12, "query": 2, "gallery": 10}
    assert sorted(item for part in parts.values() for item in part.ids) == sorted(images.ids)
    for name, side in (("train", "trained on"), ("query", "searched"), ("gallery", "searched")):
        assert set(parts[name].labels or ()) <= set(kinds[side])
    assert split_by_kind(images, 4)[0] != kinds or split_by_kind(images, 5)[0] != kinds


def test_the_gallery_is_trained_on_where_that_is_asked(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    from kinds import split_by_kind

    images = find_images(listed)
    (others_kinds, others), (kinds, parts) = split_by_kind(images, 3), split_by_kind(images, 3, "gallery")
    assert parts["train"].ids == parts["gallery"].ids == others["gallery"].ids
    assert parts["query"].ids == others["query"].ids
    assert kinds["trained on"] == kinds["searched"] == others_kinds["searched"]


def test_a_lists_own_splits_are_taken(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    from kinds import split_of_the_list

    (tmp_path / "photos").symlink_to(photos)
    splits = ("train", "train", "query", "gallery")
    with open(tmp_path / "labels.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["path", "label", "split"])
        for number, item in enumerate(find_images(photos).ids):
            writer.writerow([f"photos/{item}", "abcc"[number % 4], splits[number % 4]])
    kinds, parts = split_of_the_list(tmp_path / "labels.csv")
    assert kinds == {"trained on": ["a", "b"], "searched": ["c"]}
    assert {name: len(part) for name, part in parts.items()} == {"train": 12, "query": 6, "gallery": 6}


def test_the_small_model_alone_has_the_distilled_ones_pooling(
    listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    from kinds import split_by_kind, untrained

    from edgecsd.evaluation.evaluate import evaluate
    from edgecsd.gallery.extract import extract
    from edgecsd.models.query import load_query_model

    _, parts = split_by_kind(find_images(listed), 3)
    for name in ("gallery", "query"):
        extract(parts[name], "timm:tf_efficientnet_lite0", tmp_path / f"own-{name}")
    run = untrained("tf_efficientnet_lite0", tmp_path)
    model = load_query_model(run)
    assert model.config.pooling == "gem" and not model.head_parameters()
    result = evaluate(
        tmp_path / "own-gallery",
        tmp_path / "own-query",
        images=parts["query"],
        run=run,
        gallery_images=parts["gallery"],
    )
    assert [row.name for row in result.rows][-1] == "query model, symmetric"


def test_the_program_says_what_is_asked_for(tmp_path: Path, photos: Path) -> None:
    """Photos without labels end it in words."""
    done = warm.program(PROGRAM, [photos, "--work", tmp_path, "--out", tmp_path / "r.json"])
    assert done.returncode != 0 and "the photos have no labels" in done.stderr


@pytest.mark.parametrize(
    ("name", "trained_on"),
    [("clothes", "others"), ("clothes-gallery", "gallery"), ("caltech101-lite0", "list"), ("caltech101-lite1", "list")],
)
def test_the_results_in_the_repository_are_of_this_program(
    name: str, trained_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    from kinds import ALONE, ALONE_GEM, GALLERY, RUNS

    result = json.loads((PROGRAM.parents[1] / "results" / f"{name}.json").read_text())
    rows = [row for row in result["rows"] if not row.endswith(", adapted")]  # some files are from before these rows
    assert result["trained_on"] == trained_on and rows[: len(RUNS) + 3] == [ALONE, ALONE_GEM, GALLERY, *RUNS]
    both = set(result["labels"]["trained on"]) & set(result["labels"]["searched"])
    assert both == (set(result["labels"]["searched"]) if trained_on == "gallery" else set())
    alone = result["rows"][ALONE]["mAP"]
    newer = ("distilled, adapted",) if name in ("clothes", "caltech101-lite0") else ()
    for own in ("distilled", *newer):
        difference = result["rows"][own]["mAP"] - alone
        assert result[f"{own} minus"][ALONE]["AP"]["mean"] == pytest.approx(difference)
