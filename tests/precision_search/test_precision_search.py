"""export --precision auto: what fits is taken, what was tried is not tried again, and the log says what was seen."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distillations import config, run
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError, GateFailedError
from edgecsd.features import FeatureStore
from edgecsd.gallery_vectors import exact_neighbours, store_blocks
from edgecsd.images import find_images
from edgecsd.precision_search import search, search_precision
from edgecsd.precision_search.trials import HeldOut, TrialLog, measure
from edgecsd.quantization import STANDARD, EightBit, Precision
from edgecsd.query_models import load_query_model
from edgecsd.targets.artifact import read_metadata

CALIBRATION = 8  # of 24 photos; the other 16 are searched with


@pytest.fixture(scope="module")
def made(photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("auto") / "run"
    run(photos, pixel_store.path, folder, config=config(epochs=0, head_steps=0, pooling="average"))
    return folder


@pytest.fixture
def held_out(made: Path, photos: Path, pixel_store: FeatureStore) -> HeldOut:
    images, model = find_images(photos), load_query_model(made)
    pixels = np.stack([model.config.preprocess.pixels(images.read(p).image) for p in range(16)])
    rows = np.array([pixel_store.row_of[item] for item in images.ids[:16]])
    judge = HeldOut(pixels, pixel_store.vectors()[rows], rows, pixel_store)
    judge.start_from(model)
    return judge


def searched(made: Path, photos: Path, store: FeatureStore, **options: Any) -> search.SearchResult:
    return search_precision(
        made, "onnx", photos, store.path, calibration_count=CALIBRATION, overwrite=True, **options
    )  # fmt: skip


def test_nothing_is_lost_by_the_torch_model_itself(held_out: HeldOut, pixel_store: FeatureStore) -> None:
    same = measure(held_out, held_out.torch, Precision.FP32, STANDARD, 1, "f", 0.01)
    assert (same.loss, same.low, same.high) == (0, 0, 0) and same.held_out_cosine == pytest.approx(1, abs=1e-6)
    rows = exact_neighbours(held_out.torch, store_blocks(pixel_store), 24)[1]
    wanted = exact_neighbours(pixel_store.vectors()[:16], store_blocks(pixel_store), 24)[1]
    by_hand = []
    for query in range(16):
        first, second = ([r for r in found[query] if r != query][:10] for found in (rows, wanted))
        by_hand.append(len(set(first) & set(second)) / 10)
    assert held_out.overlap(held_out.torch) == pytest.approx(by_hand)


def test_what_is_lost_is_a_share_of_what_torch_finds(held_out: HeldOut) -> None:
    noise = np.random.default_rng(0).normal(size=held_out.torch.shape).astype(np.float32)
    worse = held_out.torch + noise / np.linalg.norm(noise, axis=1, keepdims=True)
    worse /= np.linalg.norm(worse, axis=1, keepdims=True)
    trial = measure(held_out, worse, Precision.W8A8, STANDARD, 1, "f", 0.01)
    assert trial.loss == pytest.approx(1 - held_out.overlap(worse).mean() / held_out.torch_overlap)
    assert trial.low < trial.loss < trial.high and not trial.fits(0.01) and trial.fits(1)


def test_the_first_that_fits_is_taken(made: Path, photos: Path, pixel_store: FeatureStore) -> None:
    result = searched(made, photos, pixel_store, max_loss=0.9)
    assert [trial.precision for trial in result.trials] == [Precision.W8A8] and result.chosen.how == STANDARD
    assert read_metadata(result.export.path).precision is Precision.W8A8
    assert result.held_out == 16 and not list(result.folder.glob("*.onnx")), "the trials' files are gone"


def test_a_limit_that_8_bit_misses(made: Path, photos: Path, pixel_store: FeatureStore) -> None:
    """An untrained network of noise loses much in 8 bit: the search goes on, and is resumed without an export."""
    if searched(made, photos, pixel_store, max_loss=0.9).chosen.loss <= 1e-6:
        pytest.fail("the network is too easy for this test")
    result = searched(made, photos, pixel_store, max_loss=1e-6)
    assert result.chosen.fits(1e-6) and not any(trial.fits(1e-6) for trial in result.trials[:-1])
    tried = [trial.how for trial in result.trials if trial.precision is Precision.W8A8]
    assert tried[:3] == [STANDARD, EightBit(99.9), EightBit(100.0)] and not tried[3].bias_correction
    growing = [trial.how.float_convolutions for trial in result.trials if trial.how.float_convolutions]
    assert growing and all(a < b for a, b in itertools.pairwise(growing))
    assert result.layers and [layer.loss for layer in result.layers] == sorted(
        (layer.loss for layer in result.layers), reverse=True
    )
    recipe = read_metadata(result.export.path).recipe
    assert result.chosen.how.changes in recipe


def test_trials_are_not_made_twice(
    made: Path, photos: Path, pixel_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = searched(made, photos, pixel_store, max_loss=0.8)
    exports: list[Any] = []
    real = search.export
    monkeypatch.setattr(search, "export", lambda *a, **k: (exports.append(k["out"]), real(*a, **k))[1])
    again = searched(made, photos, pixel_store, max_loss=0.8)
    assert again.chosen == first.chosen and exports == [again.export.path], "only what was chosen is written again"
    monkeypatch.undo()
    assert searched(made, photos, pixel_store, max_loss=0.7).trials[0].loss == first.trials[0].loss


def test_half_a_line_is_no_trial(held_out: HeldOut, tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "trials.jsonl", {"a": 1})
    how = EightBit(99.9, frozenset({3, 1}), False)
    trial = measure(held_out, held_out.torch, Precision.W8A8, how, 7, "f", 0.01)
    log.add(trial)
    with open(log.file, "a") as handle:
        handle.write('{"precision": "fp16", "ho')
    assert TrialLog(log.file, {"a": 1}).known == {(Precision.W8A8, how, ""): trial}
    assert not TrialLog(log.file, {"a": 2}).known, "another search"


def test_errors(made: Path, photos: Path, pixel_store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInputError, match=r"--max-loss 1: from 0 to 1"):
        searched(made, photos, pixel_store, max_loss=1)
    with pytest.raises(BadInputError, match="beside 16 photos for the ranges, 8 have features"):
        search_precision(made, "onnx", photos, pixel_store.path, calibration_count=16)
    nothing = search.Trial(Precision.FP32, STANDARD, 1, 0.5, 0.4, 0.6, 0.1, "f")
    monkeypatch.setattr(search, "measure", lambda *a: nothing)
    with pytest.raises(GateFailedError, match=r"no precision of target onnx loses at most 1.00%.*50.00%"):
        searched(made, photos, pixel_store, max_loss=0.0100001)


def test_the_command(made: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    base = ["export", str(made), "--target", "onnx", "--precision"]
    ready = [*base, "auto", "--calibration", str(photos), "--gallery", str(pixel_store.path)]
    options = ["--calibration-count", "8", "--max-loss", "90%", "--out", str(tmp_path / "auto.onnx"), "--json"]
    done = CliRunner().invoke(app, [*ready, *options])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["chosen"]["precision"] == "w8a8" and document["max_loss"] == 0.9
    assert all(Path(figure).stat().st_size > 1000 for figure in document["figures"]) and document["figures"]
    for wrong, said in (
        ([*base, "auto"], "give --calibration PHOTOS and --gallery STORE"),
        ([*ready, "--max-loss", "much"], "a share from 0 to 1"),
        ([*ready, "--ort-format"], "not with --precision auto"),
        ([*base, "fp16", "--max-loss", "1%"], "--max-loss goes with --precision auto"),
    ):
        refused = CliRunner().invoke(app, wrong)
        assert isinstance(refused.exception, BadInputError) and said in str(refused.exception)
