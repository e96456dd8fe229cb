"""Whitened stores: a store and its transform cannot be parted, and the commands that write them."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import PixelGallery
from safetensors.numpy import save
from whitenings import found, vectors

import edgecsd.features.whitening
import edgecsd.gallery.whiten
from edgecsd import cli
from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.features.whitening import Whitening, learn
from edgecsd.files.whole import sha256_file
from edgecsd.gallery.extract import extract
from edgecsd.gallery.whiten import whiten
from edgecsd.photos.finding import find_images
from edgecsd.photos.views import ViewRecipe
from edgecsd.progress import Silent


def store(path: Path, rows: np.ndarray, *, views: int = 0, dtype: str = "float32", model: str = "acme-v7") -> Path:
    space = EmbeddingSpace(gallery_model=model, dim=rows.shape[1])
    count = len(rows) // (1 + views)
    items = Items(
        tuple(f"{n}.jpg" for n in range(count)),
        tuple(f"{n:064x}" for n in range(count)),
        tuple(f"label {n % 3}" for n in range(count)),
    )
    write_store(path, space, items, rows[:count], views=ViewRecipe(count=views), view_vectors=rows[count:], dtype=dtype)
    return path


# ------------------------------------------------------------------------------------------------------- stores


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_a_whitened_store_keeps_all_but_the_vectors(tmp_path: Path, dtype: str) -> None:
    source = FeatureStore.open(store(tmp_path / "s", vectors(300), views=2, dtype=dtype))
    made = whiten(source.path, tmp_path / "w", dim=4)
    transform = made.whitening
    assert transform is not None
    assert made.items == source.items and made.views == source.views and made.manifest["dtype"] == dtype
    assert made.space == source.space.model_copy(update={"dim": 4, "whitening": transform.digest})
    assert made.space.whitening == sha256_file(tmp_path / "w" / "whitening.safetensors")
    assert made.space.fingerprint != source.space.fingerprint
    own = learn(found(source.vectors()), dim=4)
    assert np.array_equal(transform.projection, own.projection)
    for before, after in zip(
        source.view_vectors().reshape(-1, 12), made.view_vectors().reshape(-1, 4), strict=True
    ):  # the same transform for views
        slow = np.array([sum(row * (before - transform.mean)) for row in transform.projection.astype(np.float64)])
        assert (
            np.abs(after - slow / np.linalg.norm(slow)).max() < {"float32": 1e-5, "float16": 1e-3, "int8": 5e-3}[dtype]
        )
    FeatureStore.open(tmp_path / "w", verify=True)


def test_a_whitened_store_of_another_type(tmp_path: Path) -> None:
    source = store(tmp_path / "s", vectors(300), views=2)
    full, small = (whiten(source, tmp_path / dtype, dim=4, dtype=dtype) for dtype in ("float32", "int8"))
    assert full.space == small.space and small.dtype == "int8"
    assert (full.view_vectors() * small.view_vectors()).sum(axis=2).min() > 0.9998
    with pytest.raises(BadInputError, match="not as float8"):
        whiten(source, tmp_path / "x", dtype="float8")


def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = store(tmp_path / "s", vectors(300), views=2)
    whole = whiten(source, tmp_path / "whole", dim=4)
    for module in (edgecsd.features.whitening, edgecsd.gallery.whiten):
        monkeypatch.setattr(module, "BLOCK_ROWS", 7)
    blocks = whiten(source, tmp_path / "blocks", dim=4)
    assert np.abs(whole.view_vectors() - blocks.view_vectors()).max() < 1e-5


def test_the_same_call_gives_the_same_fingerprint(tmp_path: Path) -> None:
    source = store(tmp_path / "s", vectors())
    calls: Iterable[dict[str, Any]] = [{"dim": 4}, {"dim": 5}, {"dim": 4, "shrinkage": 0.1}]
    names = [
        whiten(source, tmp_path / f"w{n}", **options, overwrite=True).space.fingerprint
        for n, options in enumerate([*calls, {"dim": 4}])
    ]
    assert names[3] == names[0] and len(set(names)) == 3


def test_what_was_learnt_is_applied_to_the_store_it_was_learnt_on(tmp_path: Path) -> None:
    source = store(tmp_path / "s", vectors())
    learnt = whiten(source, tmp_path / "w", dim=6, shrinkage=0.05)
    again = whiten(source, tmp_path / "again", learnt_on=tmp_path / "w")
    assert np.array_equal(learnt.vectors(), again.vectors())
    assert again.space == learnt.space
    other = whiten(store(tmp_path / "q", vectors(30, seed=3)), tmp_path / "wq", learnt_on=tmp_path / "again")
    assert other.space == learnt.space and other.count == 30


def test_another_space_and_double_whitening_are_refused(tmp_path: Path) -> None:
    source = store(tmp_path / "s", vectors())
    whiten(source, tmp_path / "w", dim=6)
    alien = store(tmp_path / "alien", vectors(), model="acme-v8")
    with pytest.raises(IncompatibleError, match="acme-v8 against acme-v7"):
        whiten(alien, tmp_path / "o", learnt_on=tmp_path / "w")
    with pytest.raises(IncompatibleError, match="dim: 6 against 12"):
        whiten(tmp_path / "w", tmp_path / "o", learnt_on=tmp_path / "w")
    with pytest.raises(BadInputError, match="is whitened already; give the store that it was made from"):
        whiten(tmp_path / "w", tmp_path / "o", dim=2)
    with pytest.raises(BadInputError, match=r"`learnt_on` .*s: its vectors are not whitened"):
        whiten(source, tmp_path / "o", learnt_on=source)
    for options in ({"dim": 3}, {"shrinkage": 0.0}):
        with pytest.raises(BadInputError, match="leave out `dim` and `shrinkage`"):
            whiten(source, tmp_path / "o", learnt_on=tmp_path / "w", **options)  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="already there; choose another `out` or add `overwrite`"):
        whiten(source, tmp_path / "w")
    for out, options in ((source, {}), (tmp_path / "w", {"learnt_on": tmp_path / "w"})):
        with pytest.raises(BadInputError, match="is read for this, and would be replaced"):
            whiten(source, out, overwrite=True, **options)  # type: ignore[arg-type]
    assert not (tmp_path / "o").exists()


def test_few_vectors_are_warned_about(tmp_path: Path) -> None:
    class Notes(Silent):
        lines: tuple[str, ...] = ()

        def message(self, text: str) -> None:
            self.lines += (text,)

    notes = Notes()
    whiten(store(tmp_path / "s", vectors(60)), tmp_path / "w", dim=6, reporter=notes)
    assert len(notes.lines) == 1 and notes.lines[0].startswith("6 of 12 dimensions hold 99.")
    whiten(tmp_path / "s", tmp_path / "w", dim=7, overwrite=True, reporter=notes)
    assert notes.lines[2].startswith("60 vectors are few for 7 dimensions")


def other_transform(folder: Path) -> None:
    rows = vectors(seed=9)
    (folder / "whitening.safetensors").write_bytes(learn(found(rows), dim=6).content)


def change_a_byte(folder: Path) -> None:
    data = bytearray((folder / "whitening.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "whitening.safetensors").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "whitening.safetensors").unlink(), "whitening of these vectors cannot be read: No such file"),
        (lambda f: (f / "whitening.safetensors").write_bytes(b""), "its SHA-256 is not the one that the embedding"),
        (change_a_byte, "its SHA-256 is not the one"),
        (other_transform, "its SHA-256 is not the one"),
    ],
)
def test_a_whitened_store_without_its_own_transform_is_damaged(tmp_path: Path, damage: Any, message: str) -> None:
    source = store(tmp_path / "s", vectors())
    whiten(source, tmp_path / "w", dim=6)
    damage(tmp_path / "w")
    with pytest.raises(DamagedFileError, match=message):
        FeatureStore.open(tmp_path / "w")
    with pytest.raises(DamagedFileError, match=message):
        whiten(source, tmp_path / "o", learnt_on=tmp_path / "w")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"words", "not a whitening transform"),
        (save({"mean": np.zeros(12, np.float32)}), "not a whitening transform: 'projection'"),
        (save({"mean": np.zeros(9, np.float32), "projection": np.zeros((6, 12), np.float32)}), "give no 6-d vectors"),
        (save({"mean": np.zeros(12, np.float32), "projection": np.zeros((5, 12), np.float32)}), "give no 6-d vectors"),
    ],
)
def test_a_file_that_is_no_transform_is_damaged_whatever_its_digest(
    tmp_path: Path, content: bytes, message: str
) -> None:
    whiten(store(tmp_path / "s", vectors()), tmp_path / "w", dim=6)
    (tmp_path / "w" / "whitening.safetensors").write_bytes(content)
    manifest = json.loads((tmp_path / "w" / "manifest.json").read_text())
    manifest["space"]["whitening"] = hashlib.sha256(content).hexdigest()
    manifest["fingerprint"] = EmbeddingSpace.model_validate(manifest["space"]).fingerprint
    (tmp_path / "w" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFileError, match=message):
        FeatureStore.open(tmp_path / "w")


def test_a_store_is_not_written_without_the_transform_that_its_space_names(tmp_path: Path) -> None:
    made = whiten(store(tmp_path / "s", vectors()), tmp_path / "w", dim=6)
    with pytest.raises(BadInputError, match="not the one that the space names"):
        write_store(tmp_path / "o", made.space, made.items, made.vectors())
    wrong = Whitening.of(np.zeros(12), np.ones((6, 12)))
    with pytest.raises(BadInputError, match="not the one that the space names"):
        write_store(tmp_path / "o", made.space, made.items, made.vectors(), whitening=wrong)


# ------------------------------------------------------------------------------------------- extract --whitening


@pytest.fixture(scope="module")
def whitened_photos(pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return whiten(pixel_store.path, tmp_path_factory.mktemp("whitened") / "w", dim=6)


def test_extracting_into_the_whitened_space_is_extracting_and_then_whitening(
    photos: Path, whitened_photos: FeatureStore, tmp_path: Path
) -> None:
    straight = extract(
        find_images(photos), PixelGallery(), tmp_path / "s", views=2, seed=3, whitening=whitened_photos.path
    )
    assert straight.space == whitened_photos.space and straight.items == whitened_photos.items
    assert np.abs(straight.view_vectors() - whitened_photos.view_vectors()).max() < 5e-3  # float16, amplified
    assert np.array_equal(straight.whitening.projection, whitened_photos.whitening.projection)  # type: ignore[union-attr]
    before = sha256_file(straight.path)
    extract(
        find_images(photos), PixelGallery(), tmp_path / "s", views=2, seed=3, whitening=whitened_photos.path
    )  # already whole
    assert sha256_file(straight.path) == before
    with pytest.raises(BadInputError, match="made from other images, models or settings"):
        extract(find_images(photos), PixelGallery(), tmp_path / "s", views=2, seed=3)


def test_a_whitening_of_another_model_or_none_is_refused(
    photos: Path, whitened_photos: FeatureStore, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    with pytest.raises(IncompatibleError, match=r"the gallery model and the whitening in .*pixels-8 against"):
        extract(find_images(photos), PixelGallery(seed=8), tmp_path / "s", whitening=whitened_photos.path)
    with pytest.raises(BadInputError, match="its vectors are not whitened; give what edgecsd whiten wrote"):
        extract(find_images(photos), PixelGallery(), tmp_path / "s", whitening=pixel_store.path)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------- command line


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["edgecsd", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_command_says_what_it_wrote_and_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = store(tmp_path / "s", vectors()), tmp_path / "w"
    assert command(monkeypatch, "whiten", source, "--dim", 6, "--out", out) == 0
    printed, progress = capsys.readouterr()
    fingerprint = FeatureStore.open(out).space.fingerprint
    assert printed.splitlines()[:2] == [f"300 vectors, 6-d; embedding space {fingerprint}", f"wrote {out}"]
    assert printed.splitlines()[2].startswith(f"next: edgecsd index {out} --out whitened.index, edgecsd whiten QUERIES")
    assert "6 of 12 dimensions hold" in progress
    assert command(monkeypatch, "whiten", source, "--learnt-on", out, "--out", tmp_path / "again", "--json") == 0
    document = json.loads(capsys.readouterr()[0])
    assert document["fingerprint"] == fingerprint and document["dim"] == 6
    assert document["whitening"] == sha256_file(out / "whitening.safetensors")


def test_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = store(tmp_path / "s", vectors()), tmp_path / "o"
    whiten(source, tmp_path / "w", dim=6)
    alien = store(tmp_path / "alien", vectors(), model="acme-v8")
    assert command(monkeypatch, "whiten", source, "--dim", 13, "--out", out) == 2
    assert command(monkeypatch, "whiten", source, "--shrinkage", 2, "--out", out) == 2
    assert command(monkeypatch, "whiten", tmp_path / "absent", "--out", out) == 2
    assert command(monkeypatch, "whiten", alien, "--learnt-on", tmp_path / "w", "--out", out) == 3
    assert "different embedding spaces" in capsys.readouterr()[1].splitlines()[-1]
    photos = tmp_path / "p"
    shutil.copytree(source, photos)
    model = ("--gallery-model", "doubles:make_function_double", "--out", out)
    assert command(monkeypatch, "extract", photos, *model, "--whitening", tmp_path / "w") == 2  # no photo there
    assert command(monkeypatch, "extract", photos, *model, "--scales", "1,two") == 2
    assert "--scales 1,two: numbers separated by commas" in capsys.readouterr()[1].splitlines()[-1]
    assert not out.exists()
