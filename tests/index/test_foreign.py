"""faiss files that somebody else saved: every kind gives its vectors and ids, and none ends the process."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from edgecsd.errors import BadInputError
from edgecsd.features.exact import unit
from edgecsd.index.engines.faiss.foreign import _read, main, read_faiss_file

DIM, COUNT = 16, 1200  # more than 1,000: below it faiss reads in one thread
VECTORS = unit(np.random.default_rng(0).normal(size=(COUNT, DIM)).astype(np.float32))
IDS = np.random.default_rng(1).permutation(10**9)[:COUNT].astype(np.int64)


def saved(folder: Path, recipe: str, ids: np.ndarray | None = None, removed: int = 0) -> Path:
    index = faiss.index_factory(DIM, recipe, faiss.METRIC_INNER_PRODUCT)
    index.train(VECTORS)
    if ids is None:
        index.add(VECTORS)
    else:
        index.add_with_ids(VECTORS, ids)
        if removed:
            index.remove_ids(ids[:removed])
    faiss.write_index(index, str(folder / "x.faiss"))
    return folder / "x.faiss"


@pytest.mark.parametrize("recipe", ["Flat", "HNSW8", "IVF4,Flat", "L2norm,Flat", "SQfp16"])
def test_vectors_come_back_in_their_order(recipe: str, tmp_path: Path) -> None:
    vectors, ids = _read(saved(tmp_path, recipe))
    assert ids is None
    np.testing.assert_allclose(vectors, VECTORS, atol=1e-3 if recipe == "SQfp16" else 1e-6)


@pytest.mark.parametrize("removed", [0, 100])
@pytest.mark.parametrize("recipe", ["IDMap,Flat", "IDMap2,Flat", "IVF4,Flat", "RR16,IVF4,Flat"])
def test_ids_of_its_own_come_with_their_vectors(recipe: str, removed: int, tmp_path: Path) -> None:
    vectors, ids = _read(saved(tmp_path, recipe, IDS, removed))
    assert ids is not None and sorted(ids) == sorted(IDS[removed:])
    row_of = {each: row for row, each in enumerate(IDS.tolist())}
    np.testing.assert_allclose(vectors, VECTORS[[row_of[each] for each in ids.tolist()]], atol=1e-5)


@pytest.mark.parametrize("recipe", ["IDMap,HNSW8", "IDMap,IVF4,Flat"])
def test_a_map_over_another_index(recipe: str, tmp_path: Path) -> None:
    vectors, ids = read_faiss_file(saved(tmp_path, recipe, IDS))
    assert ids is not None and np.array_equal(ids, IDS)
    np.testing.assert_array_equal(vectors, VECTORS)


def test_what_ends_faiss_does_not_end_us(tmp_path: Path) -> None:
    """Inverted lists of PQ in blocks: faiss reads them out of bounds."""
    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(DIM, "IVF4,PQ4x4fs", faiss.METRIC_INNER_PRODUCT)
    index.train(VECTORS)
    index.add(VECTORS)
    faiss.write_index(index, str(tmp_path / "x.faiss"))
    try:
        vectors, _ = read_faiss_file(tmp_path / "x.faiss")
    except BadInputError as error:
        assert "faiss ended (SIG" in str(error) and str(error).endswith("export them as .npy")
    else:
        assert vectors.shape == VECTORS.shape  # a faiss that mends it


def test_what_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.faiss"
    file.write_bytes(b"nonsense")
    with pytest.raises(BadInputError, match=r"x\.faiss: faiss cannot read vectors from it"):
        read_faiss_file(file)
    binary = faiss.IndexBinaryFlat(64)
    binary.add(np.zeros((3, 8), np.uint8))
    faiss.write_index_binary(binary, str(file))
    assert main(file, tmp_path) == 2 and "is a binary index of faiss" in capsys.readouterr().err
    lost = saved(tmp_path, "IDMap,IVF4,Flat", IDS, removed=100)
    assert main(lost, tmp_path) == 2 and "faiss has lost which id is whose" in capsys.readouterr().err
    twice = saved(tmp_path, "IDMap,Flat", np.repeat(IDS[:600], 2))
    assert main(twice, tmp_path) == 2 and "600 of its 1200 ids stand in it twice" in capsys.readouterr().err
