"""A store's vectors are read through memory, not into it: what was read does not stay resident."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgecsd.checking.gather import without_copies
from edgecsd.features.exact import store_blocks
from edgecsd.features.space import EmbeddingSpace
from edgecsd.features.store import FeatureStore, Items, write_store

STATUS = Path("/proc/self/status")
COUNT, DIM = 60_000, 256  # 61 MB as float32


def mapped_mb() -> float:
    """What of files is resident in this process."""
    found = re.search(r"RssFile:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) / 1000


@pytest.mark.skipif(not STATUS.exists(), reason="Linux tells what of a process is resident")
def test_a_store_that_was_read_is_not_resident(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((COUNT, DIM), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = tuple(str(number) for number in range(COUNT))
    space = EmbeddingSpace(gallery_model="acme-v7", dim=DIM)
    store = write_store(tmp_path / "s", space, Items(ids, ("",) * COUNT), vectors, dtype="float32")
    before, most, kept = mapped_mb(), 0.0, []
    for rows, block in store_blocks(store, 4096):
        most = max(most, mapped_mb() - before)
        kept.append((rows, block))
    assert np.array_equal(np.concatenate([rows for rows, _ in kept]), np.arange(COUNT))
    assert np.array_equal(np.concatenate([block for _, block in kept]), vectors)  # still theirs after the pages went
    assert most < 20 and whole_mb(store) > 55, most


def whole_mb(store: FeatureStore) -> float:
    """What stays resident if a store is read as it is mapped."""
    before = mapped_mb()
    blocks = [block for _, block in store.blocks()]
    assert all(np.isfinite(block.sum()) for block in blocks)
    return mapped_mb() - before


def test_copies_are_of_other_ids_only() -> None:
    digests = {"a": "1", "b": "2", "c": "3", "d": "4"}
    gallery = {"a": "1", "x": "2", "c": "3", "y": "3", "z": "9"}
    assert without_copies(("a", "b", "c", "d"), digests, gallery) == ([0, 3], ["b", "c"])
