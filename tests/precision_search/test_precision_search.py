"""search_precision: what fits is taken, what was tried is not tried again, and the log says what was seen."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from searches import CALIBRATION, few_trials, searched
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError, GateFailedError
from edgecsd.features.exact import unit
from edgecsd.features.store import FeatureStore, write_store
from edgecsd.files.places import holding
from edgecsd.models.query import load_query_model, save_query_model
from edgecsd.photos.finding import find_images
from edgecsd.precision_search import attempts, objectives, search, sensitivity
from edgecsd.precision_search.held_out import HeldOut
from edgecsd.precision_search.objectives import Objectives
from edgecsd.precision_search.search import search_precision
from edgecsd.precision_search.trials import ExportTrial, ExportTrialLog, measure
from edgecsd.quantisation.precisions import STANDARD, EightBit, Precision
from edgecsd.targets.artifact import read_metadata


def test_the_first_that_fits_is_taken(made: Path, photos: Path, pixel_store: FeatureStore) -> None:
    result = searched(made, photos, pixel_store, max_loss=0.9)
    assert [trial.precision for trial in result.trials] == [Precision.W8A8] and result.chosen.how == STANDARD
    assert read_metadata(result.export.path).precision is Precision.W8A8
    assert result.held_out == 16 and not list(result.folder.glob("*.onnx")), "the trials' files are gone"
    assert not result.layers and not (result.folder / search.LAYERS).exists()


@pytest.mark.slow
def test_a_limit_that_8_bit_misses(made: Path, photos: Path, pixel_store: FeatureStore) -> None:
    """An untrained network of noise loses much in 8 bit: the search goes on, and is resumed without an export."""
    if searched(made, photos, pixel_store, max_loss=0.9).chosen.loss <= 1e-6:
        pytest.fail("the network is too easy for this test")
    result = searched(made, photos, pixel_store, max_loss=1e-6)
    assert result.chosen.fits(1e-6) and not any(trial.fits(1e-6) for trial in result.trials[:-1])
    tried = [trial.how for trial in result.trials if trial.precision is Precision.W8A8]
    assert tried[:3] == [STANDARD, EightBit(99.9), EightBit(100.0)] and not tried[3].bias_correction
    assert tried[4].equalisation and not tried[4].float_convolutions
    growing = [trial.how for trial in result.trials if trial.how.float_convolutions]
    weight_only = [how.float_convolutions for how in growing if not how.float_weights]
    assert weight_only and all(a < b for a, b in itertools.pairwise(weight_only))
    if len(growing) > len(weight_only):
        assert [how.float_weights for how in growing] == [False] * len(weight_only) + [True]
    assert result.layers and [layer.loss for layer in result.layers] == sorted(
        (layer.loss for layer in result.layers), reverse=True
    )
    recipe = read_metadata(result.export.path).recipe
    assert result.chosen.how.changes in recipe


def test_what_no_file_can_be_small_enough_for_is_not_tried() -> None:
    """1, 2 and 4 bytes a weight; w8a8 recipes are alike in size; fp32 is no smaller than fp16."""

    def trial(precision: Precision, size: int) -> ExportTrial:
        return ExportTrial(precision, STANDARD, size, 0, 0, 0, 1, "f")

    def least(*tried: ExportTrial) -> list[int]:
        return [objectives.least_bytes(precision, 1000, tried) for precision in objectives.BYTES]

    assert least() == [1000, 1000, 2000, 4000]
    assert least(trial(Precision.W8A8, 5000), trial(Precision.FP16, 4500)) == [4900, 1000, 2000, 4500]


def test_of_those_that_fit_the_smallest_is_taken(
    made: Path, photos: Path, pixel_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where fp32 was tried as what limits are told by, and its file is the smaller one."""
    sizes = {Precision.FP32: 500_000, Precision.W8A8: 600_000}
    monkeypatch.setattr(
        attempts.Attempts, "_made", lambda _, *key: ExportTrial(*key[:2], sizes[key[0]], 0, 0, 0, 1, "f")
    )
    monkeypatch.setattr(search, "TRIALS", "other-trials.jsonl")
    result = searched(made, photos, pixel_store, max_size_share=2.0)
    assert [t.precision for t in result.trials] == [Precision.FP32, Precision.W8A8]
    assert result.chosen.precision is Precision.FP32


def test_core_ml_of_a_network_that_overflows_is_fp32(
    made: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    """Its 8-bit files compute in fp16 too: the search passes over them."""
    model = load_query_model(made)
    norms = [module for module in model.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        norms[-1].weight.fill_(1e7)
    save_query_model(model, tmp_path)
    result = search_precision(tmp_path, "coreml", find_images(photos), pixel_store.path, calibration_count=CALIBRATION)
    assert [trial.precision for trial in result.trials] == [Precision.FP32]


def test_a_place_that_cannot_be_written_is_said_before_the_first_trial(
    made: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts.Attempts, "attempt", lambda *_: pytest.fail("it was tried"))
    there = tmp_path / "a.onnx"
    there.write_text("a file")
    for out, said in (
        (there, "already there; choose another `out` or add `overwrite`"),
        (tmp_path / "a.tflite", r"a onnx artifact ends in \.onnx"),
        (there / "b.onnx", r"a\.onnx is a file, not a folder"),
        (Path("/proc/a.onnx"), "cannot be written"),
    ):
        with pytest.raises(BadInputError, match=said):
            search_precision(made, "onnx", find_images(photos), pixel_store.path, out=out)
    command = ["precision", str(made), "--target", "onnx", "--calibration", str(photos)]
    ready = [*command, "--gallery", str(pixel_store.path), "--index", str(tmp_path / "none")]
    refused = CliRunner().invoke(app, ready)
    assert isinstance(refused.exception, BadInputError) and "none: no such" in str(refused.exception)


def test_one_search_at_a_time_holds_its_folder_and_its_out(
    made: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    out = tmp_path / "a.onnx"

    def search_to_out() -> search.SearchResult:
        limits = Objectives(0.9)
        return search_precision(
            made, "onnx", find_images(photos), pixel_store.path, calibration_count=8, objectives=limits, out=out
        )

    with holding(made / "exports" / "auto-onnx"), pytest.raises(BadInputError, match=r"auto-onnx: .*; wait for it$"):
        search_to_out()
    with holding(out), pytest.raises(BadInputError, match=r"a\.onnx: .* wait for it, or choose another `out`"):
        search_to_out()
    assert search_to_out().export.path == out
    assert not [*tmp_path.glob(".*"), *(made / "exports").glob(".*")]


def test_trials_are_not_made_twice(
    made: Path, photos: Path, pixel_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = searched(made, photos, pixel_store, max_loss=0.8)
    exports: list[Any] = []
    real = attempts.export
    monkeypatch.setattr(attempts, "export", lambda *a, **k: (exports.append(k["out"]), real(*a, **k))[1])
    again = searched(made, photos, pixel_store, max_loss=0.7)
    assert again.chosen == first.chosen and exports == [again.export.path], "only what was chosen is written again"


def test_other_photos_or_vectors_under_the_same_names_are_another_search(
    made: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, folder = (Path(shutil.copytree(each, tmp_path / each.name)) for each in (photos, pixel_store.path))
    tried: list[tuple[Any, ...]] = []

    def trial(_: attempts.Attempts, *key: Any) -> ExportTrial:
        tried.append(key)
        return ExportTrial(*key[:2], 1, 0, 0, 0, 1, "f")

    monkeypatch.setattr(attempts.Attempts, "_made", trial)
    monkeypatch.setattr(search, "TRIALS", "trials-of-copies.jsonl")

    def times() -> int:
        tried.clear()
        searched(made, own, FeatureStore.open(folder), max_loss=0.5)
        return len(tried)

    assert (times(), times()) == (1, 0)
    images = find_images(own)
    last = int(np.random.default_rng(0).permutation(len(images))[-1])  # the first ones calibrate
    Image.new("RGB", (90, 70), (10, 200, 30)).save(images.path(last))
    assert (times(), times()) == (1, 0), "a photo that is searched with was replaced"
    items, vectors = pixel_store.items, pixel_store.vectors()
    write_store(folder, pixel_store.space, items, unit(vectors[:, ::-1]), dtype="float32")
    assert (times(), times()) == (1, 0), "the gallery was made anew"


def test_half_a_line_is_no_trial(held_out: HeldOut, tmp_path: Path) -> None:
    log = ExportTrialLog(tmp_path / "trials.jsonl", {"a": 1})
    how = EightBit(99.9, frozenset({3, 1}), False, True, True)
    trial = replace(measure(held_out, held_out.torch, Precision.W8A8, how, 7, "f"), cpu_ratio=0.5)
    log.add(trial)
    with open(log.file, "a") as handle:
        handle.write('{"precision": "fp16", "ho')
    assert ExportTrialLog(log.file, {"a": 1}).known == {(Precision.W8A8, how, ""): trial}
    assert not ExportTrialLog(log.file, {"a": 2}).known, "another search"


def test_a_log_of_an_earlier_schema_is_begun_anew(held_out: HeldOut, tmp_path: Path) -> None:
    """Schema 1: no version in the header, and lines without what was added since."""
    file = tmp_path / "trials.jsonl"
    line = measure(held_out, held_out.torch, Precision.W8A8, STANDARD, 7, "f").as_dict()
    for name in ("equalisation", "float_weights"):
        del line["how"][name]
    del line["cpu_ratio"], line["cpu_low"], line["cpu_high"]
    file.write_text(json.dumps({"settings": {"a": 1}}) + "\n" + json.dumps(line) + "\n")
    assert not ExportTrialLog(file, {"a": 1}).known
    assert json.loads(file.read_text()) == {"schema_version": 4, "settings": {"a": 1}}


def test_errors(
    made: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limits, said in (
        ({"max_loss": 1}, r"`max_loss` 1: from 0 to 1"),
        ({"max_bytes": 0}, r"`max_size` 0: above 0"),
        ({"max_bytes": 5, "max_size_share": 0.5}, "either a size or a share"),
        ({"max_cpu_ratio": -1.0}, "`max_cpu_ratio` -1: above 0"),
    ):
        with pytest.raises(BadInputError, match=said):
            Objectives(**limits)
    with pytest.raises(BadInputError, match="`max_cpu_ratio`: target coreml runs on Apple's systems only"):
        search_precision(
            made, "coreml", find_images(photos), pixel_store.path, objectives=Objectives(max_cpu_ratio=0.5)
        )
    with pytest.raises(BadInputError, match="`held_out` 5: 16 photos or more are needed"):
        search_precision(made, "onnx", find_images(photos), pixel_store.path, held_out=5, overwrite=True)
    few = find_images(photos).subset(range(20))
    with pytest.raises(BadInputError, match="of 20 photos 64 give the ranges, which leaves 0 to search with; 16 or"):
        search_precision(made, "onnx", few, pixel_store.path, overwrite=True)
    alien = shutil.copytree(photos, tmp_path / "alien" / "under another id").parent
    with pytest.raises(BadInputError, match="beside the photos that give the ranges, 0 of 16 have features in"):
        search_precision(made, "onnx", find_images(alien), pixel_store.path, calibration_count=8, overwrite=True)
    with pytest.raises(BadInputError, match="of 24 photos 16 give the ranges, which leaves 8"):
        search_precision(made, "onnx", find_images(photos), pixel_store.path, calibration_count=16, overwrite=True)
    few_trials(monkeypatch)
    monkeypatch.setattr(attempts.Attempts, "_made", lambda _, *key: ExportTrial(*key[:2], 1, 0.5, 0.4, 0.6, 0.1, "f"))
    bad = Path(shutil.copytree(made, tmp_path / "bad", ignore=shutil.ignore_patterns("exports")))
    with pytest.raises(GateFailedError, match=r"nothing .* target onnx loses at most 1.00% .* loses 50.00%, limit"):
        searched(bad, photos, pixel_store, max_loss=0.01)


def test_layers_are_not_measured_twice(
    made: Path, photos: Path, pixel_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = searched(made, photos, pixel_store, max_loss=1e-6)
    assert first.layers
    monkeypatch.setattr(sensitivity, "_with_one_rounded", lambda *a: pytest.fail("it is known"))
    assert searched(made, photos, pixel_store, max_loss=1e-6).layers == first.layers
