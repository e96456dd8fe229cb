"""A feature store that was changed, cut or moved: what does not match its manifest is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_stores import SPACE, unit, write_ten

from edgecsd.errors import BadInputError, DamagedFileError
from edgecsd.features.store import FeatureStore


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_ten(tmp_path / "s")


def edit_manifest(store: Path, **changes: Any) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def change_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_a_changed_byte_is_found_by_verify_only(store: Path) -> None:
    change_a_byte(store / "features-00000-of-00001.npy")
    FeatureStore.open(store)
    with pytest.raises(
        DamagedFileError, match=r"features-00000-of-00001\.npy: its SHA-256 is [0-9a-f]{64}, the manifest says"
    ):
        FeatureStore.open(store, verify=True)


def test_a_changed_byte_of_a_view_is_found(store: Path) -> None:
    change_a_byte(store / "views-00000-of-00001.npy")
    with pytest.raises(DamagedFileError, match="views-00000"):
        FeatureStore.open(store, verify=True)


def test_swapped_ids_are_found(store: Path) -> None:
    table = pq.read_table(store / "items.parquet")
    pq.write_table(table.take([1, 0, *range(2, 10)]), store / "items.parquet")
    FeatureStore.open(store)
    with pytest.raises(DamagedFileError, match=r"items\.parquet: its SHA-256"):
        FeatureStore.open(store, verify=True)


def write_items(store: Path, **columns: list[str | None]) -> None:
    pq.write_table(pa.table({name: pa.array(c, pa.string()) for name, c in columns.items()}), store / "items.parquet")


IDS = [f"{n}" for n in range(10)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: (s / "manifest.json").unlink(), "not a feature store: it has no manifest"),
        (lambda s: (s / "manifest.json").write_text("{"), "not readable as JSON"),
        (lambda s: edit_manifest(s, kind="gallery index"), "not the manifest of a feature store"),
        (lambda s: edit_manifest(s, schema_version=99), "schema_version 99 is unknown"),
        (lambda s: edit_manifest(s, fingerprint="es1-0"), "fingerprint is not that of its embedding space"),
        (lambda s: edit_manifest(s, space={**SPACE.model_dump(mode="json"), "gallery_model": "x"}), "fingerprint"),
        (lambda s: edit_manifest(s, space={}), "gallery_model"),
        (lambda s: edit_manifest(s, space=None), "manifest.json"),
        (lambda s: edit_manifest(s, count=11), "hold 10 vectors, the manifest says 11"),
        (lambda s: edit_manifest(s, count="many"), "manifest.json"),
        (lambda s: edit_manifest(s, dtype="float32"), "holds float16 .* the manifest says float32"),
        (lambda s: edit_manifest(s, dtype="int8"), "holds float16 .* the manifest says int8"),
        (lambda s: edit_manifest(s, dtype="float64"), "dtype float64; float32, float16 or int8 is expected"),
        (lambda s: edit_manifest(s, views={"count": 1}), "hold 20 vectors, the manifest says 10"),
        (lambda s: edit_manifest(s, shards=[]), "hold 0 vectors, the manifest says 10"),
        (lambda s: edit_manifest(s, shards=None), "manifest.json"),
        (lambda s: edit_manifest(s, shards=["x"]), "manifest.json"),
        (lambda s: edit_manifest(s, shards=[{}]), "manifest.json: it has no 'file'"),
        (
            lambda s: edit_manifest(s, shards=[{"file": "../../x.npy", "rows": 10, "sha256": ""}]),
            r"s/x\.npy: cannot be",
        ),
        (lambda s: (s / "features-00000-of-00001.npy").unlink(), "features-00000-of-00001.npy: cannot be read"),
        (lambda s: (s / "features-00000-of-00001.npy").write_bytes(b""), "cannot be read"),
        (lambda s: (s / "features-00000-of-00001.npy").write_bytes(b"PK\x03\x04"), "cannot be read"),
        (lambda s: np.save(s / "features-00000-of-00001.npy", unit(9).astype(np.float16)), r"holds float16 \(9, 4\)"),
        (lambda s: np.save(s / "features-00000-of-00001.npy", unit(10, 5).astype(np.float16)), r"\(10, 5\)"),
        (lambda s: np.save(s / "features-00000-of-00001.npy", unit(10)), "holds float32"),
        (lambda s: np.save(s / "features-00000-of-00001.npy", unit(10).astype(">f2")), "holds >f2"),
        (lambda s: np.save(s / "features-00000-of-00001.npy", np.array([{}])), "cannot be read"),
        (
            lambda s: np.save(s / "features-00000-of-00001.npy", np.asfortranarray(unit(10), np.float16)),
            "not in C order",
        ),
        (lambda s: (s / "items.parquet").unlink(), r"items\.parquet"),
        (lambda s: (s / "items.parquet").write_bytes(b"PAR1"), r"items\.parquet"),
        (lambda s: write_items(s, id=IDS[:9], digest=IDS[:9]), "has 9 rows, the manifest says 10"),
        (lambda s: write_items(s, id=["0", *IDS[:9]], digest=IDS), "the same id more than once"),
        (lambda s: write_items(s, id=[None, *IDS[:9]], digest=IDS), "column 'id' has a row without a string"),
        (lambda s: write_items(s, name=IDS, digest=IDS), r"items\.parquet"),
    ],
)
def test_a_store_that_does_not_match_its_manifest_is_refused(
    store: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(store)
    with pytest.raises(BadInputError, match=message) as caught:
        FeatureStore.open(store)
    assert str(store) in str(caught.value)


@pytest.mark.parametrize("read", [FeatureStore.vectors, lambda store: list(store.blocks())])
def test_a_shard_that_is_deleted_after_opening_is_named(store: Path, read: Callable[[FeatureStore], Any]) -> None:
    opened = FeatureStore.open(store, verify=True)
    (store / "features-00000-of-00001.npy").unlink()
    with pytest.raises(DamagedFileError, match=r"s/features-00000-of-00001\.npy: cannot be read: .*No such file"):
        read(opened)


@pytest.mark.parametrize(
    "field", ["space", "views", "count", "shards", "view_shards", "fingerprint", "dtype", "items_sha256"]
)
def test_a_manifest_without_a_field_names_it(store: Path, field: str) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    del manifest[field]
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFileError, match=f"it has no '{field}'"):
        FeatureStore.open(store)


def test_no_folder_and_a_file_are_named(tmp_path: Path, store: Path) -> None:
    with pytest.raises(BadInputError, match="no such feature store"):
        FeatureStore.open(tmp_path / "absent")
    with pytest.raises(BadInputError, match="no such feature store"):
        FeatureStore.open(store / "manifest.json")


def test_a_copied_store_is_the_same_store(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "elsewhere")
    moved = FeatureStore.open(tmp_path / "elsewhere", verify=True)
    assert np.array_equal(moved.vectors(), FeatureStore.open(store).vectors())
