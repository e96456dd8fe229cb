"""Concatenated stores: cosines are the weighted mean of the parts', items are matched and never guessed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import PixelGallery

from edgecsd import cli
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.features import shards
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.gallery.concatenate import concatenate
from edgecsd.gallery.extract import extract
from edgecsd.gallery.whiten import whiten
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.finding import find_images
from edgecsd.photos.views import ViewRecipe
from edgecsd.progress import Silent

IDS = tuple("abcdefgh")


def store(
    path: Path,
    dim: int = 4,
    *,
    ids: tuple[str, ...] = IDS,
    digests: tuple[str, ...] | None = None,
    views: int = 0,
    seed: int | None = None,
    labels: tuple[str, ...] | None = None,
    dtype: str = "float32",
    model: str | None = None,
) -> Path:
    """The vectors of an item depend on `dim` and its id alone, not on its row."""
    rows = [np.random.default_rng([dim, ord(item)]).normal(size=(1 + views, dim)) for item in ids]
    unit = np.stack([row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows])
    space = EmbeddingSpace(gallery_model=model or f"acme-{dim}", preprocess=Preprocess(size=16 * dim), dim=dim)
    write_store(
        path,
        space,
        Items(ids, digests or ("",) * len(ids), labels),
        unit[:, 0],
        views=ViewRecipe(count=views, seed=views if seed is None else seed),
        view_vectors=unit[:, 1:].reshape(-1, dim),
        dtype=dtype,
    )
    return path


def cosines(store: FeatureStore) -> np.ndarray:
    return store.vectors().astype(np.float64) @ store.vectors().astype(np.float64).T


@pytest.mark.parametrize("weights", [None, (1, 0.5, 0.25), (4, 2, 1), (1, 100, 3)])
def test_cosines_are_the_weighted_mean_of_the_cosines(tmp_path: Path, weights: tuple[float, ...] | None) -> None:
    parts = [store(tmp_path / f"{dim}", dim) for dim in (4, 6, 3)]
    joint = concatenate(parts, tmp_path / "joint", weights=weights)
    shares = np.array(weights or (1, 1, 1), np.float64)
    wanted = sum(w * cosines(FeatureStore.open(p)) for w, p in zip(shares / shares.sum(), parts, strict=True))
    assert np.abs(cosines(joint) - wanted).max() < 1e-6
    assert np.abs(np.linalg.norm(joint.vectors(), axis=1) - 1).max() < 1e-6


def test_the_joint_space_names_its_parts_and_their_weights(tmp_path: Path) -> None:
    parts = [store(tmp_path / f"{dim}", dim) for dim in (4, 6)]
    joint = concatenate(parts, tmp_path / "joint", weights=(1, 0.5)).space
    assert joint.gallery_model == "acme-4 + acme-6" and joint.dim == 10
    assert joint.preprocess == Preprocess(size=64)  # of the first part, the query models' geometry
    assert [(p.fingerprint, p.weight) for p in joint.parts] == [
        (FeatureStore.open(parts[0]).space.fingerprint, 0.666666667),
        (FeatureStore.open(parts[1]).space.fingerprint, 0.333333333),
    ]
    assert joint == concatenate(parts, tmp_path / "same", weights=(2, 1)).space
    others = [
        concatenate(parts, tmp_path / "equal").space,
        concatenate(parts[::-1], tmp_path / "turned", weights=(1, 0.5)).space,
        concatenate([parts[0], store(tmp_path / "6b", 6, model="acme-6 ")], tmp_path / "b", weights=(1, 0.5)).space,
        joint.model_copy(update={"parts": ()}),
    ]
    assert len({space.fingerprint for space in [joint, *others]}) == 5


def test_items_are_matched_by_id_and_keep_the_first_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_ROWS", 3)  # shards end within items and within their views
    first = store(tmp_path / "4", 4, views=2, labels=tuple("xyxyxyxy"), digests=("", "2", *"345678"))
    second = store(tmp_path / "6", 6, ids=IDS[::-1], views=2, digests=(*"876543", "", "1"), dtype="float16")
    joint = concatenate([first, second], tmp_path / "joint")
    assert joint.items == Items(IDS, tuple("12345678"), tuple("xyxyxyxy"))
    assert joint.views == ViewRecipe(count=2, seed=2) and joint.manifest["dtype"] == "float32"
    mine, theirs = (FeatureStore.open(path) for path in (first, second))
    for row, item in enumerate(IDS):
        for view in range(3):
            halves = [each.view_vectors()[each.row_of[item], view] for each in (mine, theirs)]
            halves[1] = halves[1] / np.linalg.norm(halves[1])
            wanted = np.concatenate(halves) / np.sqrt(2)
            assert np.abs(joint.view_vectors()[row, view] - wanted).max() < 1e-6


@pytest.mark.parametrize(
    ("types", "asked", "made"),
    [(("int8", "int8"), None, "int8"), (("int8", "float16"), None, "float16"), (("float32",) * 2, "int8", "int8")],
)
def test_types_of_stores(
    types: tuple[str, str], asked: str | None, made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_ROWS", 3)
    dims = (40, 60)
    exact = concatenate([store(tmp_path / f"{dim}", dim, views=1) for dim in dims], tmp_path / "exact")
    parts = [store(tmp_path / f"{dim}-x", dim, views=1, dtype=t) for dim, t in zip(dims, types, strict=True)]
    joint = concatenate(parts, tmp_path / "joint", dtype=asked)
    assert joint.dtype == made and joint.space == exact.space
    assert (joint.view_vectors() * exact.view_vectors()).sum(axis=2).min() > 0.9998
    with pytest.raises(BadInputError, match="not as int4"):
        concatenate(parts, tmp_path / "x", dtype="int4")


def test_labels_come_from_the_first_store_that_has_them(tmp_path: Path) -> None:
    parts = [store(tmp_path / "4", 4), store(tmp_path / "6", 6, ids=IDS[::-1], labels=tuple("hgfedcba"))]
    assert concatenate(parts, tmp_path / "joint").items.labels == tuple("abcdefgh")
    assert concatenate([parts[0], store(tmp_path / "3", 3)], tmp_path / "none").items.labels is None


def test_missing_and_changed_items_are_named_or_left_out(tmp_path: Path) -> None:
    class Notes(Silent):
        lines: tuple[str, ...] = ()

        def message(self, text: str) -> None:
            self.lines += (text,)

    first = store(tmp_path / "4", 4, digests=tuple("12345678"), labels=tuple("xyxyxyxy"))
    second = store(tmp_path / "6", 6, ids=("z", "h", "b", "c"), digests=("9", "8", "2", "0"))
    with pytest.raises(BadInputError) as caught:
        concatenate([first, second], tmp_path / "o")
    assert str(caught.value) == (
        f"{first} lacks 1 item (z); {second} lacks 5 items (a, d, e, f, g); "
        f"of different files under the same id: 1 item (c); `common` keeps the items that every store has"
    )
    assert not (tmp_path / "o").exists()
    notes = Notes()
    joint = concatenate([first, second], tmp_path / "o", common=True, reporter=notes)
    assert joint.items == Items(("b", "h"), ("2", "8"), ("y", "y"))
    assert np.abs(joint.vectors()[1, :4] * np.sqrt(2) - FeatureStore.open(first).vectors()[7]).max() < 1e-3
    assert notes.lines[0].startswith("2 of 9 items are in every store: ")
    many = store(tmp_path / "3", 3, ids=tuple("ijklmno"))
    with pytest.raises(BadInputError, match=r"no item in common: .*lacks 7 items \(i, j, k, l, m and 2 more\)"):
        concatenate([first, many], tmp_path / "none", common=True)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    first, second = store(tmp_path / "4", 4), store(tmp_path / "6", 6)
    with pytest.raises(IncompatibleError, match="hold different views"):
        concatenate([first, store(tmp_path / "v", 6, views=2)], tmp_path / "o")
    left, right = store(tmp_path / "v4", 4, views=2, seed=1), store(tmp_path / "v6", 6, views=2, seed=2)
    with pytest.raises(IncompatibleError, match="hold different views"):
        concatenate([left, right], tmp_path / "o")
    concatenate([first, store(tmp_path / "s6", 6, seed=9)], tmp_path / "no views: a seed is nothing")
    cases: list[tuple[list[Path], dict[str, Any], str]] = [
        ([first], {}, "1 store given; two or more"),
        ([first, first], {}, "live in the same embedding space"),
        ([first, second], {"weights": (1,)}, "`weights`: 1 numbers for 2 stores"),
        ([first, second], {"weights": (1, 0)}, "`weights` 1,0: numbers above 0"),
        ([first, second], {"weights": (1, float("nan"))}, "numbers above 0"),
        ([first, second], {"weights": (1, 1e-12)}, r"`weights`: weight = 0\.0: Input should be greater than 0"),
        ([first, tmp_path / "absent"], {}, "no such feature store"),
    ]
    for stores, options, message in cases:
        with pytest.raises(BadInputError, match=message):
            concatenate(stores, tmp_path / "o", **options)
    assert not (tmp_path / "o").exists()
    concatenate([first, second], tmp_path / "o")
    with pytest.raises(BadInputError, match="already there"):
        concatenate([first, second], tmp_path / "o")
    with pytest.raises(BadInputError, match="is read for this, and would be replaced"):
        concatenate([first, second], tmp_path / "x" / ".." / second.name, overwrite=True)
    assert concatenate([second, first], tmp_path / "o", overwrite=True).space.gallery_model == "acme-6 + acme-4"


def test_a_query_model_is_distilled_against_a_joint_whitened_store(
    photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    import distillations  # torch and lightning, which the other tests here do without

    extract(find_images(photos), PixelGallery(dim=12, size=64, seed=8), tmp_path / "other", views=2, seed=3)
    joint = concatenate([pixel_store.path, tmp_path / "other"], tmp_path / "joint")
    white = whiten(joint.path, tmp_path / "white", dim=10, shrinkage=0.2)
    assert white.space.parts == joint.space.parts and white.views == pixel_store.views
    distillations.run(photos, white.path, tmp_path / "run", config=distillations.config(epochs=0))
    written = json.loads((tmp_path / "run" / "query_model.json").read_text())
    assert EmbeddingSpace.model_validate(written["space"]) == white.space
    assert white.space.preprocess == PixelGallery().preprocess  # of the first part, whose geometry is taken over
    assert (written["preprocess"]["resize"], written["preprocess"]["crop_pct"]) == ("squash", 1.0)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["edgecsd", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, out = store(tmp_path / "4", 4), store(tmp_path / "6", 6), tmp_path / "joint"
    assert command(monkeypatch, "concatenate", first, second, "--weights", "1,3", "--out", out) == 0
    lines = capsys.readouterr()[0].splitlines()
    assert lines[0].startswith("8 items, 10-d, weights 0.25, 0.75; embedding space es1-")
    assert lines[1:] == [
        f"wrote {out}",
        f"next: edgecsd index {out} --out gallery.index, or edgecsd whiten {out} --out {out}.whitened",
    ]
    assert command(monkeypatch, "concatenate", first, second, "--out", out, "--overwrite", "--json") == 0
    document = json.loads(capsys.readouterr()[0])
    assert document["count"] == 8 and [part["weight"] for part in document["parts"]] == [0.5, 0.5]
    few = store(tmp_path / "few", 3, ids=("a", "b"))
    assert command(monkeypatch, "concatenate", first, few, "--out", tmp_path / "o") == 2
    assert command(monkeypatch, "concatenate", first, few, "--common", "--out", tmp_path / "o") == 0
    assert command(monkeypatch, "concatenate", first, second, "--weights", "1;2", "--out", out, "--overwrite") == 2
    views = store(tmp_path / "v", 6, views=1)
    assert command(monkeypatch, "concatenate", first, views, "--out", tmp_path / "p") == 3
