"""--tune: rounding as the exported file rounds, gradients through it, a distillation that resumes, kept if it helps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distillations import config, run
from PIL import Image

from edgecsd.backbones import to_input
from edgecsd.bias_correction import rounded_weights
from edgecsd.errors import BadInputError
from edgecsd.features import FeatureStore
from edgecsd.images import find_images
from edgecsd.precision_search import search, search_precision, tuning
from edgecsd.precision_search.rounding import RoundedLayers, plain_state, rounded_values
from edgecsd.precision_search.tuning import Tune, rounds_of, tune
from edgecsd.progress import SILENT
from edgecsd.quantization import STANDARD, EightBit
from edgecsd.query_models import QueryModel, load_query_model, read_config
from edgecsd.selection import Selection
from edgecsd.targets.artifact import read_metadata
from edgecsd.training import NetworkTraining

FEW = frozenset({0, 2})


@pytest.fixture(scope="module")
def made(photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning") / "run"
    run(photos, pixel_store.path, folder, config=config(epochs=0, head_steps=0, pooling="average"))
    return folder


@pytest.fixture(scope="module")
def calibration(made: Path, photos: Path) -> np.ndarray:
    contract, images = read_config(made).preprocess, find_images(photos)
    return np.stack([contract.pixels(images.read(position).image) for position in range(8)])


def tuned(made: Path, folder: Path, photos: Path, store: FeatureStore, calibration: np.ndarray, steps: int) -> Path:
    asked = Tune(steps, find_images(photos), store)
    held_out = frozenset(store.items.ids[:4])
    return tune(made, folder, asked, store, held_out, STANDARD, calibration, SILENT)


def test_rounded_values_are_those_of_an_8_bit_range_and_let_gradients_through() -> None:
    values = torch.tensor([-2.0, -0.5, 0.0, 0.3, 1.0, 9.0], requires_grad=True)
    rounded = rounded_values(values, (-1.0, 1.55))  # a step of 0.01
    assert rounded.tolist() == pytest.approx([-1.0, -0.5, 0.0, 0.3, 1.0, 1.55], abs=1e-6)
    rounded.sum().backward()
    assert values.grad is not None and values.grad.tolist() == [0, 1, 1, 1, 1, 0]


def with_rounded(made: Path, calibration: np.ndarray, how: EightBit) -> tuple[QueryModel, RoundedLayers]:
    model = load_query_model(made)
    rounded = RoundedLayers(model, how, calibration)
    rounded.measure()
    return model, rounded


def test_the_layers_of_the_recipe_are_rounded_and_no_others(made: Path, calibration: np.ndarray) -> None:
    model, rounded = with_rounded(made, calibration, EightBit(float_convolutions=FEW))
    plain = load_query_model(made)
    everything = with_rounded(made, calibration, STANDARD)[1].names
    assert len(everything) - len(rounded.names) == len(FEW) and not any(".se." in name for name in everything)
    assert any(".se." in name for name, _ in plain.backbone.named_modules()), "the network has gates"
    before, now = dict(plain.backbone.named_modules()), dict(model.backbone.named_modules())
    for name in everything:
        weight = before[name].weight
        wanted = rounded_weights(weight) if name in rounded.names else weight
        assert torch.equal(now[name].weight, wanted), name
    for name, value in plain.state_dict().items():
        assert torch.equal(plain_state(model)[name], value), name


def test_a_rounded_model_is_near_its_file(made: Path, photos: Path, calibration: np.ndarray, tmp_path: Path) -> None:
    """The emulation differs from torch in a direction like the file's: by chance 0.0, and this net amplifies noise."""
    from edgecsd.exporting import export
    from edgecsd.targets.artifact import load_runner

    images = find_images(photos)
    file = export(made, "onnx", "w8a8", out=tmp_path / "a.onnx", calibration=images, calibration_count=8).path
    model, _ = with_rounded(made, calibration, STANDARD)
    torch_vectors, file_vectors = load_query_model(made).embed(calibration), load_runner(file).embed(calibration)
    error, emulated = file_vectors - torch_vectors, model.embed(calibration) - torch_vectors
    alike = (error * emulated).sum() / np.linalg.norm(error) / np.linalg.norm(emulated)
    assert alike > 0.2 and np.linalg.norm(emulated) < 2 * np.linalg.norm(error)


def test_every_weight_is_trained(made: Path, calibration: np.ndarray) -> None:
    model, rounded = with_rounded(made, calibration, STANDARD)
    model(to_input(calibration, model.config.preprocess))[:, 0].sum().backward()
    for name, parameter in model.named_parameters():
        if "original" in name:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert sum("original" in name for name, _ in model.named_parameters()) == len(rounded.names)


def test_a_killed_tuning_ends_with_the_same_weights(
    made: Path, photos: Path, pixel_store: FeatureStore, calibration: np.ndarray, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def take(self: Selection, overlaps: np.ndarray) -> bool:  # the latest: 4 steps of a net of noise need not help
        self.best = overlaps
        return True

    monkeypatch.setattr(Selection, "takes", take)
    monkeypatch.setattr(tuning, "ROUND", 2)
    whole = tuned(made, tmp_path / "whole", photos, pixel_store, calibration, 4)
    step = NetworkTraining.train_step
    with monkeypatch.context() as patch:

        def die(self: NetworkTraining, *arguments: Any) -> float:
            if self.step == 3:
                raise KeyboardInterrupt
            return step(self, *arguments)

        patch.setattr(NetworkTraining, "train_step", die)
        with pytest.raises(KeyboardInterrupt):
            tuned(made, tmp_path / "killed", photos, pixel_store, calibration, 4)
    assert not (tmp_path / "killed" / "query_model.json").exists()
    resumed = tuned(made, tmp_path / "killed", photos, pixel_store, calibration, 4)
    digest = read_config(whole).weights_digest
    assert read_config(resumed).weights_digest == digest != read_config(made).weights_digest
    with monkeypatch.context() as patch:
        patch.setattr(NetworkTraining, "train_step", lambda *a: pytest.fail("it is whole"))
        tuned(made, whole, photos, pixel_store, calibration, 4)


def test_photos_that_are_searched_with_are_not_trained_on(photos: Path, pixel_store: FeatureStore) -> None:
    asked = Tune(1, find_images(photos), pixel_store)
    held_out = frozenset(pixel_store.items.ids[:4])
    data = tuning._training_set(asked, pixel_store, held_out, config())
    assert len(data.images) == 20 and not held_out & set(data.images.ids)


@pytest.mark.parametrize(("helps", "kept"), [(True, True), (False, False)])
def test_what_was_tuned_is_kept_only_if_less_is_lost(
    made: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    helps: bool, kept: bool,
) -> None:  # fmt: skip
    """The tuned file is a real one; what it is said to lose is set, for a net of noise may learn or not."""
    own = tmp_path / "run"
    shutil.copytree(made, own)
    more = tmp_path / "more"
    more.mkdir()
    random = np.random.default_rng(3)
    for number in range(12):
        Image.fromarray(random.integers(0, 255, (60, 80, 3), np.uint8)).save(more / f"noise-{number}.png")
    from doubles import PixelGallery

    from edgecsd.extract import extract

    features = extract(more, PixelGallery(), tmp_path / "more.features")
    real = search.measure

    def told(*arguments: Any) -> search.Trial:
        trial = real(*arguments)
        return search.replace(trial, loss=-0.5 if helps else 0.89) if trial.tuned else search.replace(trial, loss=0.3)

    monkeypatch.setattr(search, "measure", told)
    result = search_precision(
        own, "onnx", photos, pixel_store.path, calibration_count=8, max_loss=0.9, tune_steps=2, tune_images=more,
        tune_features=features.path,
    )  # fmt: skip
    assert [bool(trial.tuned) for trial in result.trials] == [False, True]
    assert bool(result.chosen.tuned) is kept
    lines = [json.loads(line) for line in (result.folder / search.TRIALS).read_text().splitlines()]
    assert [line["tuned"] for line in lines[1:]] == ["", result.trials[1].tuned]
    digest = read_metadata(result.export.path).weights_digest
    assert (digest != read_config(own).weights_digest) is kept
    assert digest == read_config(result.export.path.parent.parent).weights_digest


def test_errors(made: Path, photos: Path, pixel_store: FeatureStore, calibration: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="--tune 0: 1 step or more"):
        tuned(made, tmp_path / "a", photos, pixel_store, calibration, 0)
    bare = shutil.copytree(made, tmp_path / "bare")
    (bare / "run.json").unlink()
    with pytest.raises(BadInputError, match=r"run\.json, which tells its loss, is missing"):
        tuned(bare, tmp_path / "a", photos, pixel_store, calibration, 1)


def test_rounds() -> None:
    assert [rounds_of(*given) for given in ((300, 90), (300, 20), (7, 90), (51, 90))] == [
        (50, 6), (20, 15), (7, 1), (26, 2),
    ]  # fmt: skip
