"""Indexes built in parts, on disk, of fewer bits; what survives a kill; merging."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from galleries import DIM, clustered, make_store

from edgecsd.errors import BadInputError, DamagedFileError, IncompatibleError
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.files.whole import sha256_file
from edgecsd.index.engines.faiss import building, storing
from edgecsd.index.engines.faiss import index as engine
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.engines.faiss.folder import open_folder
from edgecsd.index.engines.faiss.merging import merge_indexes
from edgecsd.index.gallery_index import GalleryIndex

COUNT = 900
IVF = {"type": "ivf", "nlist": 12, "nprobe": 12}
CODES = {"type": "ivfpq", "nlist": 6, "nprobe": 6, "pq_bytes": 8}
KINDS: dict[str, dict[str, Any]] = {
    "flat": {},
    "flat 16": {"bits": 16},
    "flat 8": {"bits": 8},
    "ivf": IVF,
    "ivf 8": {**IVF, "bits": 8},
    "ivfpq": CODES,
    "opq": {**CODES, "opq": 1},
    "refined": {**CODES, "refine": 8},
    "opq, refined": {**CODES, "opq": 1, "refine": 16, "refine_factor": 8},
    "hnsw": {"type": "hnsw"},
    "hnsw 8": {"type": "hnsw", "bits": 8},
}
LEAST = {
    "flat 8": 0.97,
    "ivf 8": 0.97,
    "hnsw": 0.99,
    "hnsw 8": 0.95,
    "ivfpq": 0.3,
    "opq": 0.3,
    "refined": 0.75,
    "opq, refined": 0.9,
}
LISTED = [name for name in KINDS if name.split()[0].strip(",") in ("ivf", "ivfpq", "opq", "refined")]


@pytest.fixture(scope="module", autouse=True)
def small_parts() -> Iterator[None]:
    """Parts of 200 rows, and one thread: faiss's others wait by spinning."""
    threads, rows = engine.faiss.omp_get_max_threads(), building.PART_ROWS
    engine.faiss.omp_set_num_threads(1)
    building.PART_ROWS = 200
    yield
    engine.faiss.omp_set_num_threads(threads)
    building.PART_ROWS = rows


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return make_store(tmp_path_factory.mktemp("building") / "gallery.store", clustered(count=COUNT))


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return clustered(seed=5, count=60)


def recall(index: GalleryIndex, store: FeatureStore, queries: np.ndarray, k: int = 10) -> float:
    wanted = np.argsort(-(queries @ store.vectors().T), axis=1)[:, :k]
    found = index.search(queries, k)[1]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]))


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_finds_and_gives_back_its_vectors(
    name: str, store: FeatureStore, queries: np.ndarray, tmp_path: Path
) -> None:
    index = build_index(store, tmp_path / "x.index", **KINDS[name])
    assert recall(index, store, queries) >= LEAST.get(name, 0.999)
    assert index.exact == (name in ("flat", "ivf", "hnsw"))
    held = index.read(np.arange(COUNT))
    cosines = (held * store.vectors()).sum(1) / np.linalg.norm(held, axis=1)
    assert cosines.min() > (0.999 if "pq" not in name or "refined" in name else 0.5)
    assert list(tmp_path.iterdir()) == [tmp_path / "x.index"]


@pytest.mark.parametrize("name", LISTED)
def test_lists_on_disk_give_the_same(
    name: str, store: FeatureStore, queries: np.ndarray, tmp_path: Path, capfd: Any
) -> None:
    inside = build_index(store, tmp_path / "inside.index", **KINDS[name])
    build_index(store, tmp_path / "made" / "disk.index", **KINDS[name], on_disk=1)
    shutil.move(tmp_path / "made", tmp_path / "moved")  # the folder may go anywhere
    disk = open_folder(tmp_path / "moved" / "disk.index")
    assert disk.parameters["on_disk"] == 1 and (disk.engine.main.ntotal, len(disk.ids)) == (COUNT, COUNT)
    for one, other in zip(inside.search(queries, 10), disk.search(queries, 10), strict=True):
        np.testing.assert_array_equal(one, other)
    rows = np.array([3, 899, 450])
    np.testing.assert_array_equal(inside.read(rows), disk.read(rows))
    assert type(storing.lists_of(disk.engine)).__name__ == "OnDiskInvertedLists"
    assert (storing.MAIN, storing.LISTS)[1] in {file.name for file in Path(str(disk.path)).iterdir()}
    assert capfd.readouterr() == ("", "")


def test_a_changed_list_is_found_when_asked_for(store: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "x.index"
    build_index(store, path, **IVF, on_disk=1)
    open_folder(path, verify=True)
    lists = bytearray((path / storing.LISTS).read_bytes())
    lists[100] ^= 1
    (path / storing.LISTS).write_bytes(lists)
    open_folder(path)  # by its size alone
    with pytest.raises(DamagedFileError, match=r"lists\.ivfdata: missing, or not the file"):
        open_folder(path, verify=True)
    (path / storing.LISTS).write_bytes(lists[:-8])
    with pytest.raises(DamagedFileError, match=r"lists\.ivfdata: missing, or not the file"):
        open_folder(path)


@pytest.mark.parametrize("name", ["ivf", "opq, refined"])
@pytest.mark.parametrize("moment", [0, 2, 4])
def test_a_killed_build_goes_on(
    name: str, moment: int, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build_index(store, tmp_path / "whole.index", **KINDS[name])
    written, trainings = 0, []
    real_write, real_train = building.write_lists, building.train

    def write(*arguments: Any) -> None:
        nonlocal written
        if written == moment:
            raise KeyboardInterrupt
        written += 1
        real_write(*arguments)

    monkeypatch.setattr(building, "write_lists", write)
    out = tmp_path / "x.index"
    with pytest.raises(KeyboardInterrupt):
        build_index(store, out, **KINDS[name])
    assert not out.exists()
    begun = len(list((tmp_path / "x.index.partial").glob("lists-*.faiss")))
    assert begun == moment
    monkeypatch.setattr(building, "write_lists", lambda *a: (trainings.append("part"), real_write(*a))[1])
    monkeypatch.setattr(building, "train", lambda *a: (trainings.append("train"), real_train(*a))[1])
    resumed = build_index(store, out, **KINDS[name])
    assert trainings == ["part"] * (5 - moment)  # nothing twice
    files = [{file.name: sha256_file(file) for file in Path(str(index.path)).iterdir()} for index in (whole, resumed)]
    assert files[0] == files[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.index", "x.index"]


def test_a_killed_graph_goes_on(
    store: FeatureStore, queries: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "KEEP_SECONDS", 0.0)
    real, blocks = building.row_blocks, []

    def two(store: FeatureStore) -> Iterator[tuple[int, np.ndarray]]:
        for number, each in enumerate(real(store)):
            if number == 2:
                raise KeyboardInterrupt
            yield each

    monkeypatch.setattr(building, "row_blocks", two)
    with pytest.raises(KeyboardInterrupt):
        build_index(store, tmp_path / "x.index", type="hnsw")
    monkeypatch.setattr(building, "row_blocks", real)
    real_read = building.read_main
    monkeypatch.setattr(building, "read_main", lambda file: blocks.append(real_read(file).ntotal) or real_read(file))
    index = build_index(store, tmp_path / "x.index", type="hnsw")
    assert blocks == [400] and index.held == COUNT
    assert recall(index, store, queries) >= 0.99


def test_another_build_in_the_same_place_begins_anew(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        building, "write_faiss", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space left"):
        build_index(store, tmp_path / "x.index", **IVF)
    monkeypatch.undo()
    index = build_index(store, tmp_path / "x.index", **{**IVF, "nlist": 20})
    assert index.parameters["nlist"] == 20 and index.held == COUNT


def test_no_room_for_the_lists(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr(storing.shutil, "disk_usage", lambda _: full)
    with pytest.raises(OSError, match=r"No space left on device for 0\.00 GB of lists"):
        build_index(store, tmp_path / "x.index", **IVF, on_disk=1)
    monkeypatch.undo()
    assert build_index(store, tmp_path / "x.index", **IVF, on_disk=1).held == COUNT


@pytest.fixture(scope="module")
def halves(store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureStore, FeatureStore]:
    folder, vectors = tmp_path_factory.mktemp("halves"), store.vectors().astype(np.float16)
    first, second = (slice(0, 500), slice(500, COUNT))
    made = [
        write_store(
            folder / f"{n}.store", store.space, Items(store.items.ids[part], store.items.digests[part]), vectors[part]
        )
        for n, part in enumerate((first, second))
    ]
    return made[0], made[1]


@pytest.mark.parametrize("name", [name for name in KINDS if "hnsw" not in name])
@pytest.mark.parametrize("on_disk", [False, True])
def test_merged_indexes_are_one(
    name: str,
    on_disk: bool,
    store: FeatureStore,
    halves: tuple[FeatureStore, FeatureStore],
    queries: np.ndarray,
    tmp_path: Path,
) -> None:
    if on_disk and name not in LISTED:
        with pytest.raises(BadInputError, match="on_disk"):
            build_index(store, tmp_path / "x", **KINDS[name], on_disk=1)
        return
    first = build_index(halves[0], tmp_path / "0.index", **KINDS[name], **({"on_disk": 1} if on_disk else {}))
    build_index(halves[1], tmp_path / "1.index", like=tmp_path / "0.index")
    merged = merge_indexes([tmp_path / "0.index", tmp_path / "1.index"], tmp_path / "all.index", on_disk=on_disk)
    assert merged.ids == store.items.ids and merged.digests == dict(
        zip(store.items.ids, store.items.digests, strict=True)
    )
    whole = build_index(store, tmp_path / "whole.index", like=tmp_path / "0.index")
    for one, other in zip(whole.search(queries, 10), merged.search(queries, 10), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_array_equal(first.read(np.arange(5)), open_folder(tmp_path / "0.index").read(np.arange(5)))


def test_what_cannot_be_merged(halves: tuple[FeatureStore, FeatureStore], tmp_path: Path) -> None:
    one, other = (tmp_path / "0.index", tmp_path / "1.index")
    build_index(halves[0], one, **IVF)

    def refused(message: str, error: type[Exception] = BadInputError, **options: Any) -> None:
        build_index(options.pop("store", halves[1]), other, overwrite=True, **options)
        with pytest.raises(error, match=message):
            merge_indexes([one, other], tmp_path / "x.index")
        assert not (tmp_path / "x.index").exists()

    refused("trained apart from .*`like`", **IVF)
    refused("built with .*'nlist': 10.*`like`", **{**IVF, "nlist": 10, "nprobe": 1})
    refused("item 'item-0000' stands in .* and in", store=halves[0], like=one)
    stranger = make_store(tmp_path / "other.store", clustered(count=300), weights_digest="f" * 64)
    refused("another embedding space .*weights_digest", IncompatibleError, store=stranger, **IVF)
    with pytest.raises(IncompatibleError, match=r"`like` .*another embedding space"):
        build_index(stranger, other, like=one, overwrite=True)
    with pytest.raises(BadInputError, match="two indexes or more"):
        merge_indexes([one], tmp_path / "x.index")
    with pytest.raises(BadInputError, match="`nlist`: with `like` it is that of"):
        build_index(halves[1], tmp_path / "y.index", like=one, nlist=3)
    build_index(halves[0], tmp_path / "h.index", type="hnsw")
    with pytest.raises(BadInputError, match=r"graphs .type hnsw. cannot be joined"):
        merge_indexes([tmp_path / "h.index", tmp_path / "h.index"], tmp_path / "x.index")


def test_codes_must_make_sense(store: FeatureStore, tmp_path: Path) -> None:
    for options, message in (
        ({"bits": 4}, "`bits` 4: 8, 16, 32 bits a number"),
        ({**CODES, "refine": 5}, "`refine` 5: 8, 16, 32"),
        ({**CODES, "refine_factor": 5}, "`refine_factor`: only an index built with `refine`"),
        ({"on_disk": 1}, "`on_disk`: an index of type flat"),
    ):
        with pytest.raises(BadInputError, match=message):
            build_index(store, tmp_path / "x.index", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_says_what_earlier_readers_would_get_wrong(store: FeatureStore, tmp_path: Path) -> None:
    for options, version in (
        ({}, 1),
        (IVF, 1),
        ({**IVF, "bits": 8}, 2),
        ({**IVF, "on_disk": 1}, 2),
        ({**CODES, "opq": 1}, 2),
    ):
        build_index(store, tmp_path / "x.index", overwrite=True, **options)
        assert json.loads((tmp_path / "x.index" / "manifest.json").read_text())["schema_version"] == version


def test_training_sees_a_sample(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = building.sample_of(store, 250)
    vectors = {row.tobytes() for row in store.vectors()}
    assert sample.shape == (250, DIM) and len({row.tobytes() for row in sample} & vectors) == 250
    np.testing.assert_array_equal(building.sample_of(store, 250), sample)
    assert building.sample_of(store, 5000).shape == (COUNT, DIM)
