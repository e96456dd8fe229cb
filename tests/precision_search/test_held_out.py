"""The photos that a search is judged by: which they are, and what is lost on them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import PixelGallery
from PIL import Image

from edgecsd.features.exact import exact_neighbours, store_blocks, unit
from edgecsd.features.store import FeatureStore, Items, write_store
from edgecsd.gallery.extract import extract
from edgecsd.metrics.bootstrap import queries_needed
from edgecsd.models.query import load_query_model
from edgecsd.photos.finding import find_images
from edgecsd.precision_search import attempts, search
from edgecsd.precision_search.held_out import HeldOut
from edgecsd.precision_search.objectives import Objectives
from edgecsd.precision_search.search import search_precision
from edgecsd.precision_search.trials import measure
from edgecsd.quantisation.calibration import calibration_split
from edgecsd.quantisation.precisions import STANDARD, Precision


def test_nothing_is_lost_by_the_torch_model_itself(held_out: HeldOut, pixel_store: FeatureStore) -> None:
    same = measure(held_out, held_out.torch, Precision.FP32, STANDARD, 1, "f")
    assert (same.loss, same.low, same.high) == (0, 0, 0) and same.held_out_cosine == pytest.approx(1, abs=1e-6)
    rows = exact_neighbours(held_out.torch, store_blocks(pixel_store), 24)[1]
    wanted = exact_neighbours(pixel_store.vectors()[:16], store_blocks(pixel_store), 24)[1]
    by_hand = []
    for query in range(16):
        first, second = ([r for r in found[query] if r != query][:10] for found in (rows, wanted))
        by_hand.append(len(set(first) & set(second)) / 10)
    assert held_out.overlap(held_out.torch) == pytest.approx(by_hand)


def test_copies_of_a_photo_in_the_gallery_are_left_out_with_it(
    held_out: HeldOut, photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    """Under another name, or a crop of it: else the photo would find itself, as no other that it is like."""
    items, vectors = pixel_store.items, unit(pixel_store.vectors())
    digests = [*items.digests, items.digests[3], items.digests[3] + "[1,2,30,40]"]
    twice = write_store(
        tmp_path / "twice",
        pixel_store.space,
        Items([*items.ids, "copy.jpg", "crop.jpg"], digests),
        np.concatenate([vectors, vectors[[3, 3]]]),
        dtype="float32",
    )
    judge = HeldOut(held_out.pixels, vectors[:16], np.arange(16), twice)
    plain = HeldOut(held_out.pixels, vectors[:16], np.arange(16), pixel_store)
    assert judge._wanted[3].tolist() == plain._wanted[3].tolist() and not {3, 24, 25} & {*judge._wanted[3].tolist()}
    assert {24, 25} & {*np.delete(judge._wanted, 3, axis=0).ravel().tolist()}, "others find them"


def test_photos_that_calibrate_are_not_searched_with(made: Path, photos: Path, tmp_path: Path) -> None:
    """The calibration goes further where photos cannot be read, and the search begins behind it."""
    own = Path(shutil.copytree(photos, tmp_path / "photos"))
    random = np.random.default_rng(1)
    for number in range(8):
        Image.fromarray(random.integers(0, 255, (60, 80, 3), np.uint8)).save(own / f"noise-{number}.png")
    store = extract(find_images(own), PixelGallery(), tmp_path / "own.features")
    images, model = find_images(own), load_query_model(made)
    order = [int(position) for position in np.random.default_rng(0).permutation(len(images))]
    for position in order[:3]:
        images.path(position).write_bytes(b"broken")
    shutil.copy(images.path(order[5]), images.path(order[-1]))  # one that calibrates, under another id too
    seen: list[np.ndarray] = []
    real = search.Attempts

    def remember(*arguments: Any, **options: Any) -> attempts.Attempts:
        seen.append(arguments[2].pixels)
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "Attempts", remember)
        search_precision(
            made, "onnx", find_images(own), store.path, calibration_count=8, objectives=Objectives(0.95), overwrite=True
        )
    ranges = calibration_split(images, model.config.preprocess, 8)[0]
    assert len(seen[0]) == 32 - 3 - 8 - 1
    assert not {each.tobytes() for each in ranges} & {each.tobytes() for each in seen[0]}


def test_what_is_lost_is_a_share_of_what_torch_finds(held_out: HeldOut) -> None:
    noise = np.random.default_rng(0).normal(size=held_out.torch.shape).astype(np.float32)
    worse = held_out.torch + noise / np.linalg.norm(noise, axis=1, keepdims=True)
    worse /= np.linalg.norm(worse, axis=1, keepdims=True)
    trial = measure(held_out, worse, Precision.W8A8, STANDARD, 1, "f")
    assert trial.loss == pytest.approx(1 - held_out.overlap(worse).mean() / held_out.torch_overlap)
    assert trial.low < trial.loss < trial.high and not trial.fits(0.01) and trial.fits(1)
    assert trial.needed(0) is None, "it is decided"
    near, losses = trial.low + 0.01, held_out.lost(worse)
    assert trial.needed(near) == queries_needed(losses, np.full(len(losses), near))
