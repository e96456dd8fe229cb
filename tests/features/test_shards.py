"""Vectors as they lie in a store's files: bytes for numbers, and what comes back of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecsd.errors import BadInputError
from edgecsd.features import shards
from edgecsd.features.shards import (
    Int8Rows,
    from_int8,
    let_go,
    read_into,
    read_shard,
    require_dtype,
    to_int8,
    wider,
    write_shards,
)


def unit(count: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_int8_by_the_formula() -> None:
    vectors = unit(20, 33)
    whole = to_int8(vectors)
    for vector, row in zip(vectors.tolist(), whole.tolist(), strict=True):
        largest = max(abs(number) for number in vector)
        assert row == [round(127 * number / largest) for number in vector]
        assert max(abs(number) for number in row) == 127
    for row, found in zip(whole.tolist(), from_int8(whole).tolist(), strict=True):
        length = sum(number * number for number in row) ** 0.5
        assert found == pytest.approx([number / length for number in row], rel=1e-6)


def test_what_comes_back_is_of_unit_length_and_near() -> None:
    vectors = unit(200, 512)
    found = from_int8(to_int8(vectors))
    assert found.dtype == np.float32
    assert np.abs(np.linalg.norm(found.astype(np.float64), axis=1) - 1).max() < 1e-6
    assert (found * vectors).sum(axis=1).min() > 0.9999


def test_writing_what_was_read_changes_nothing() -> None:
    whole = to_int8(unit(500, 96))
    assert np.array_equal(to_int8(from_int8(whole)), whole)


def test_zeros_and_nothing() -> None:
    zeros = np.zeros((2, 4), np.float32)
    assert not to_int8(zeros).any() and not from_int8(to_int8(zeros)).any()
    nothing = np.empty((0, 4), np.float32)
    assert to_int8(nothing).shape == from_int8(to_int8(nothing)).shape == (0, 4)


def test_a_row_is_the_same_to_the_bit_however_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough for float32 to round sums of squares: 2,000 numbers of up to 127 squared."""
    vectors = np.sign(unit(9, 2000)) * (1 - 0.3 * np.abs(unit(9, 2000, seed=1)))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    (written,) = write_shards(tmp_path, "features", vectors, "int8")
    shard = read_shard(tmp_path / str(written["file"]))
    assert isinstance(shard, Int8Rows) and isinstance(shard.rows, np.memmap)
    assert shard.shape == (9, 2000) and len(shard) == 9
    whole = from_int8(to_int8(vectors))
    for chosen in (slice(0, 9), slice(3, 4), slice(2, 8, 3), np.array([8, 0, 0, 5])):
        assert np.array_equal(shard[chosen], whole[chosen])
    monkeypatch.setattr(shards, "READ_VALUES", 4000)
    out = np.empty((6, 2000), np.float32)
    read_into(out, shard, 2)
    assert np.array_equal(out, whole[2:8])
    let_go(shard)
    assert np.array_equal(shard[:], whole)


def test_a_byte_a_number(tmp_path: Path) -> None:
    sizes = {}
    for dtype in shards.DTYPES:
        (tmp_path / dtype).mkdir()
        (written,) = write_shards(tmp_path / dtype, "features", unit(1000, 64), dtype)
        sizes[dtype] = (tmp_path / dtype / str(written["file"])).stat().st_size
    header = sizes["int8"] - 64_000
    assert 0 < header < 200 and sizes["float16"] == 128_000 + header and sizes["float32"] == 256_000 + header


def test_types() -> None:
    assert wider(["int8", "float16", "int8"]) == "float16" and wider(["float16", "float32"]) == "float32"
    assert wider(["int8"]) == "int8"
    for dtype in shards.DTYPES:
        require_dtype(dtype)
    with pytest.raises(BadInputError, match="float32, float16 or int8, not as float64"):
        require_dtype("float64")
