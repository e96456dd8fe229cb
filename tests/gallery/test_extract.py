"""extract: what is in the store, what happens to bad photos, and what becomes of a store that is there already."""

from __future__ import annotations

import shutil
from pathlib import Path

import doubles
import numpy as np
import pytest
from doubles import FunctionDouble, PixelGallery

import edgecsd.gallery.extract
from edgecsd.errors import BadInputError, IncompatibleError
from edgecsd.features.shards import to_int8
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import sha256_file
from edgecsd.gallery.extract import extract
from edgecsd.photos.decoding import read_image
from edgecsd.photos.finding import find_images
from edgecsd.photos.images import ImageSet
from edgecsd.photos.views import view_recipe
from edgecsd.progress import Silent


class Notes(Silent):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def test_rows_are_the_photos_in_order(photos: Path, pixel_store: FeatureStore) -> None:
    found, model = find_images(photos), PixelGallery()
    assert pixel_store.items.ids == found.ids
    for row, vector in enumerate(pixel_store.vectors()):
        image, digest = read_image(found.path(row))
        exact = model.embed(model.preprocess.pixels(image)[None])[0]
        assert pixel_store.items.digests[row] == digest
        assert np.array_equal(vector, exact.astype(np.float16).astype(np.float32))
    assert not (pixel_store.path / "unreadable.txt").exists()


def test_cached_views_are_those_that_training_makes_again(photos: Path, pixel_store: FeatureStore) -> None:
    """The very pixels: one level of difference in one view would change its embedding."""
    found, model, recipe = find_images(photos), PixelGallery(), pixel_store.views
    assert recipe == view_recipe(2, seed=3)
    cached = pixel_store.view_vectors()
    for row in reversed(range(len(found))):
        image, _ = read_image(found.path(row))
        for view in (2, 1, 0):
            again = model.embed(model.preprocess.pixels(recipe.view(image, found.ids[row], view))[None])[0]
            assert np.array_equal(cached[row, view], again.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(("batch_size", "workers", "part_items"), [(1, 1, 128), (7, 3, 5), (64, 8, 1)])
def test_batches_workers_and_parts_change_no_byte(
    photos: Path,
    pixel_store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    workers: int,
    part_items: int,
) -> None:
    monkeypatch.setattr(edgecsd.gallery.extract, "PART_ITEMS", part_items)
    out = tmp_path / "s"
    extract(find_images(photos), PixelGallery(), out, views=2, seed=3, batch_size=batch_size, workers=workers)
    for name in ("features-00000-of-00001.npy", "views-00000-of-00001.npy", "items.parquet"):
        assert sha256_file(out / name) == sha256_file(pixel_store.path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_list_brings_labels_and_splits(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "p")
    ids = find_images(photos).ids
    rows = [f"{item},label {n % 3},{'train' if n % 2 else 'test'}" for n, item in enumerate(ids)]
    (tmp_path / "p" / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    store = extract(find_images(tmp_path / "p" / "list.csv", split="train"), PixelGallery(), tmp_path / "s")
    assert store.items.ids == ids[1::2]
    assert store.items.labels == tuple(f"label {n % 3}" for n in range(1, 24, 2))


@pytest.fixture
def mixed(photos: Path, tmp_path: Path) -> Path:
    """The 24 photos and 4 files that are none."""
    folder = tmp_path / "mixed"
    shutil.copytree(photos, folder)
    (folder / "a-text.jpg").write_text("words")
    (folder / "b-empty.png").touch()
    (folder / "first" / "c-cut.jpg").write_bytes((photos / "photo-00.jpg").read_bytes()[:1000])
    (folder / "d-loop.jpg").symlink_to("d-loop.jpg")
    return folder


def test_unreadable_photos_are_listed_and_skipped(mixed: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    notes = Notes()
    store = extract(find_images(mixed), PixelGallery(), tmp_path / "s", views=2, seed=3, reporter=notes)
    assert store.items == pixel_store.items
    assert np.array_equal(store.view_vectors(), pixel_store.view_vectors())
    lines = [line.split("\t") for line in (store.path / "unreadable.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == ["a-text.jpg", "b-empty.png", "d-loop.jpg", "first/c-cut.jpg"]
    assert "the file is empty" in lines[1][1]
    assert store.manifest["unreadable"] == 4
    assert any("4 of 28 images could not be read" in line for line in notes.lines)


def test_strict_ends_at_the_first_unreadable_photo(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"a-text\.jpg: cannot be decoded.*`strict`"):
        extract(find_images(mixed), PixelGallery(), tmp_path / "s", strict=True)
    assert not (tmp_path / "s").exists()


def test_no_readable_photo_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "p" / name).write_text("words")
    with pytest.raises(BadInputError, match=r"none of the 2 images can be read; the first: .*a\.jpg"):
        extract(find_images(tmp_path / "p"), PixelGallery(), tmp_path / "s")
    with pytest.raises(BadInputError, match="none of the 0 images"):
        extract(ImageSet(tmp_path, ()), PixelGallery(), tmp_path / "s")
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "float32, float16 or int8, not as int4"),
        ({"views": -1}, "`views` -1"),
        ({"views": 65}, "`views` 65"),
        ({"batch_size": 0}, "batch size 0"),
        ({"workers": -2}, "workers -2"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    photos: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        extract(find_images(photos), PixelGallery(), tmp_path / "s", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()


# -------------------------------------------------------------------------------------- what is there already


class Forbidden(PixelGallery):
    def embed(self, pixels: np.ndarray) -> np.ndarray:
        raise AssertionError("nothing was to be embedded")


def test_a_whole_store_of_the_same_call_is_kept(photos: Path, pixel_store: FeatureStore) -> None:
    notes, before = Notes(), sha256_file(pixel_store.path)
    extract(find_images(photos), Forbidden(), pixel_store.path, views=2, seed=3, reporter=notes)
    assert sha256_file(pixel_store.path) == before
    assert notes.lines == [f"{pixel_store.path} is already whole: nothing to do"]


def test_an_int8_store_is_the_float32_store_in_bytes(photos: Path, tmp_path: Path) -> None:
    full = extract(find_images(photos), PixelGallery(), tmp_path / "full", views=2, dtype="float32")
    made = extract(find_images(photos), PixelGallery(), tmp_path / "int8", views=2, dtype="int8")
    assert made.items == full.items and made.space == full.space and made.dtype == "int8"
    assert np.array_equal(to_int8(made.vectors()), to_int8(full.vectors()))
    assert (made.view_vectors() * full.view_vectors()).sum(axis=2).min() > 0.999
    notes = Notes()
    extract(find_images(photos), Forbidden(), tmp_path / "int8", views=2, dtype="int8", reporter=notes)
    assert notes.lines == [f"{tmp_path / 'int8'} is already whole: nothing to do"]
    with pytest.raises(BadInputError, match="made from other images, models or settings"):
        extract(find_images(photos), Forbidden(), tmp_path / "int8", views=2)


@pytest.mark.parametrize(
    "options", [{"views": 1}, {"views": 2, "seed": 4}, {"views": 2, "seed": 3, "dtype": "float32"}]
)
def test_a_store_of_another_call_is_not_replaced_unasked(
    photos: Path, pixel_store: FeatureStore, options: dict[str, object]
) -> None:
    with pytest.raises(BadInputError, match="made from other images, models or settings"):
        extract(find_images(photos), Forbidden(), pixel_store.path, **options)  # type: ignore[arg-type]


def test_another_model_other_photos_and_other_labels_are_another_call(photos: Path, tmp_path: Path) -> None:
    found = find_images(photos).subset(range(4))
    labelled = ImageSet(found.root, found.ids, ("a", "b", "a", "b"))
    extract(labelled, PixelGallery(), tmp_path / "s")
    for images, model in [
        (labelled, PixelGallery(seed=8)),
        (labelled.subset([0, 1, 2]), PixelGallery()),
        (ImageSet(found.root, found.ids, ("a", "a", "a", "b")), PixelGallery()),
        (found, PixelGallery()),
    ]:
        with pytest.raises(BadInputError, match="already there"):
            extract(images, model, tmp_path / "s")


def test_overwrite_replaces_a_store_and_nothing_else(photos: Path, tmp_path: Path) -> None:
    extract(find_images(photos), PixelGallery(), tmp_path / "s")
    store = extract(find_images(photos), PixelGallery(seed=8), tmp_path / "s", overwrite=True)
    assert store.space == PixelGallery(seed=8).space
    precious = tmp_path / "album"
    shutil.copytree(photos, precious)
    with pytest.raises(BadInputError, match="`overwrite` replaces a feature store only"):
        extract(find_images(photos), PixelGallery(), precious, overwrite=True)
    assert len(find_images(precious)) == 24
    with pytest.raises(BadInputError, match="not a feature store"):
        extract(find_images(photos), PixelGallery(), precious)


class Changing(FunctionDouble):
    """Keeps its identity, and gives other vectors from one version to the next."""

    def __init__(self, seed: int) -> None:
        self._model = PixelGallery(seed=seed)

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        return self._model.embed(pixels)


def test_a_model_that_changed_under_its_name_continues_no_store(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, out, spec = find_images(photos), tmp_path / "store", "doubles:make_function_double"

    def load(seed: int) -> None:
        monkeypatch.setattr(doubles, "make_function_double", lambda: Changing(seed))

    load(1)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(edgecsd.gallery.extract, "_write", interrupt)
        extract(found, spec, out)
    load(2)
    refused = rf"what is made so far \(.*partial\) and the gallery model .* maker: {spec} against {spec}: .* cosine"
    with pytest.raises(IncompatibleError, match=refused):
        extract(found, spec, out)
    load(1)
    whole = extract(found, spec, out)
    assert whole.space.maker is not None and whole.space.maker.library == spec
    load(2)
    with pytest.raises(IncompatibleError, match=f"maker: {spec}"):
        extract(found, spec, out)
    load(1)
    assert extract(found, spec, out).digest == whole.digest


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
