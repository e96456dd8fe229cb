"""What mistakes cost where an approximate index finds fewer than it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from galleries import DIM, clustered, make_store, unit

from edgecsd.golden.costs import measure_costs
from edgecsd.index.engines.faiss.building import build_index
from edgecsd.index.kinds import IndexType
from edgecsd.photos.contract import Preprocess
from edgecsd.photos.decoding import decode_image
from edgecsd.photos.finding import find_images
from edgecsd.progress import SILENT

CONTRACT = Preprocess(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def embed(tensors: np.ndarray) -> np.ndarray:
    projection = np.random.default_rng(0).normal(size=(32 * 32 * 3, DIM))
    return unit((tensors.reshape(len(tensors), -1) - 128.0) @ projection)


def test_an_index_that_finds_too_few_gives_costs_of_what_it_finds(photos: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", clustered())
    index = build_index(store, tmp_path / "index", type=IndexType.IVF, nlist=60, nprobe=1)
    images, k = find_images(photos), 40
    right = [CONTRACT.pixels(decode_image((photos / item).read_bytes(), item)) for item in images.ids]
    _, found = index.search(embed(np.stack(right)), k)
    _, wrong = index.search(embed(np.stack(right)[..., ::-1]), k)
    assert len(set((found < 0).sum(axis=1))) > 2  # of each photo another number is missing

    costs = measure_costs(images, CONTRACT, embed, index, k, len(images), SILENT)
    kept = [len(set(a) & set(b) - {-1}) / len(set(b) - {-1}) for a, b in zip(wrong, found, strict=True)]
    swapped = next(cost for cost in costs.mistakes if cost.name.startswith("channels swapped"))
    assert swapped.overlap_lost == pytest.approx(100 * (1 - np.mean(kept)))
    assert swapped.recall_lost == pytest.approx(100 * np.mean(wrong[:, 0] != found[:, 0]))
    for cost in costs.mistakes:
        assert cost.overlap_lost <= 100 * cost.changed + 1e-9  # what a mistake leaves alone loses nothing
