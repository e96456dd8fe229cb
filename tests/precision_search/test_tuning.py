"""--tune: a distillation that resumes, of photos that are not searched with, kept if it helps."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distillations import config
from PIL import Image
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError
from edgecsd.features.exact import unit
from edgecsd.features.store import FeatureStore, write_store
from edgecsd.files.whole import sha256_file
from edgecsd.models.query_config import read_config
from edgecsd.photos.finding import find_images
from edgecsd.precision_search import attempts, search, tuning
from edgecsd.precision_search.objectives import Objectives
from edgecsd.precision_search.search import search_precision
from edgecsd.precision_search.trials import ExportTrial
from edgecsd.precision_search.tuning import Tune, rounds_of, tune
from edgecsd.progress import SILENT
from edgecsd.quantisation.precisions import STANDARD, Precision
from edgecsd.targets.artifact import read_metadata
from edgecsd.training.keeping import Selection
from edgecsd.training.network_stage import NetworkTraining


def tuned(made: Path, folder: Path, photos: Path, store: FeatureStore, calibration: np.ndarray, steps: int) -> Path:
    asked = Tune(steps, find_images(photos), store)
    held_out = frozenset(store.items.ids[:4])
    return tune(made, folder, asked, store, held_out, STANDARD, calibration, SILENT)


def test_a_killed_tuning_ends_with_the_same_weights(
    made: Path,
    photos: Path,
    pixel_store: FeatureStore,
    calibration: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


def test_what_was_tuned_with_other_vectors_or_ranges_is_begun_anew(
    made: Path, photos: Path, pixel_store: FeatureStore, calibration: np.ndarray, tmp_path: Path
) -> None:
    def trained(ranges: np.ndarray, store: FeatureStore, gallery: FeatureStore) -> bool:
        folder = Path(shutil.copytree(whole, tmp_path / "again", dirs_exist_ok=True))
        before = (folder / "query_model.json").stat().st_mtime_ns
        asked = Tune(1, find_images(photos), store)
        tune(made, folder, asked, gallery, frozenset(pixel_store.items.ids[:4]), STANDARD, ranges, SILENT)
        return (folder / "query_model.json").stat().st_mtime_ns != before

    whole = tuned(made, tmp_path / "whole", photos, pixel_store, calibration, 1)
    other = write_store(
        tmp_path / "other",
        pixel_store.space,
        pixel_store.items,
        unit(pixel_store.vectors()[:, ::-1]),
        views=pixel_store.views,
        view_vectors=unit(pixel_store.view_vectors()[:, 1:].reshape(48, -1)),
        dtype="float32",
    )
    assert not trained(calibration, pixel_store, pixel_store)
    assert trained(255 - calibration, pixel_store, pixel_store)
    assert trained(calibration, other, pixel_store)
    assert trained(calibration, pixel_store, other)


def test_photos_that_are_searched_with_are_not_trained_on(photos: Path, pixel_store: FeatureStore) -> None:
    asked = Tune(1, find_images(photos), pixel_store)
    held_out = frozenset(pixel_store.items.ids[:4])
    data = tuning._training_set(asked, pixel_store, held_out, config())
    assert len(data.images) == 20 and not held_out & set(data.images.ids)
    other = tuning._training_set(asked, pixel_store, held_out, config(held_out_by="photos"))
    assert other.held_out.tolist() != data.held_out.tolist(), "held out as the run did"
    views = [tuning._training_set(asked, pixel_store, held_out, config(views=v)).views.count for v in (None, 0, 1, 9)]
    assert views == [2, 0, 1, 2], "as many as the run had, where there are as many"


def trial(losses: np.ndarray) -> ExportTrial:
    mean = float(losses.mean())
    return ExportTrial(Precision.W8A8, STANDARD, 1, mean, mean, mean, 0.9, "f", losses=tuple(losses.tolist()))


def test_a_gain_is_one_that_the_photos_show_or_that_keeps_the_limits() -> None:
    """A mean that is lower by chance is no gain; the mean of the noise is 0.01 below 0."""
    random = np.random.default_rng(1)
    noise = random.normal(0, 0.2, 60)
    noise += -0.01 - noise.mean()
    before = trial(random.normal(0.3, 0.1, 60))
    start = np.array(before.losses)
    by_chance, clearly, worse = (trial(start + change) for change in (noise, 0.1 * noise - 0.05, 0.05 - noise))
    limits = Objectives(0.9)
    assert by_chance.loss < before.loss and not limits.gained(before, by_chance)[0]
    gained, words = limits.gained(before, clearly)
    assert gained and words == "the loss changes by -5.10% [-5.55%, -4.67%] over 60 photos"
    assert not limits.gained(before, worse)[0]
    between = Objectives((before.loss + by_chance.loss) / 2)
    assert between.gained(before, by_chance)[0], "missed before, kept after"
    assert not between.gained(by_chance, before)[0]


@pytest.mark.parametrize(("helps", "kept"), [(True, True), (False, False)])
def test_what_was_tuned_is_kept_only_if_less_is_lost(
    made: Path,
    photos: Path,
    pixel_store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    helps: bool,
    kept: bool,
) -> None:
    """The tuned file is a real one; what it is said to lose is set, for a net of noise may learn or not."""
    own = tmp_path / "run"
    shutil.copytree(made, own)
    more = tmp_path / "more"
    more.mkdir()
    random = np.random.default_rng(3)
    for number in range(12):
        Image.fromarray(random.integers(0, 255, (60, 80, 3), np.uint8)).save(more / f"noise-{number}.png")
    from doubles import PixelGallery

    from edgecsd.gallery.extract import extract

    features = extract(find_images(more), PixelGallery(), tmp_path / "more.features")
    real = attempts.measure

    def told(*arguments: Any) -> ExportTrial:
        trial = real(*arguments)
        loss = (-0.5 if helps else 0.29) if trial.tuned else 0.3
        spread = np.where(np.arange(len(trial.losses)) % 2, 0.2, -0.2) * bool(trial.tuned)
        return replace(trial, loss=loss, losses=tuple((loss + spread).tolist()))

    monkeypatch.setattr(attempts, "measure", told)
    result = search_precision(
        own,
        "onnx",
        find_images(photos),
        pixel_store.path,
        calibration_count=8,
        objectives=Objectives(0.9),
        tune_steps=2,
        tune_images=find_images(more),
        tune_features=features.path,
    )
    assert [bool(trial.tuned) for trial in result.trials] == [False, True]
    assert bool(result.chosen.tuned) is kept
    lines = [json.loads(line) for line in (result.folder / search.TRIALS).read_text().splitlines()]
    assert [line["tuned"] for line in lines[1:]] == ["", result.trials[1].tuned]
    digest = read_metadata(result.export.path).weights_digest
    assert (digest != read_config(own).weights_digest) is kept
    assert digest == read_config(result.export.path.parent.parent).weights_digest
    again = ["--out", str(tmp_path / "again.onnx"), "--no-golden"]
    done = CliRunner().invoke(app, [*shlex.split(result.again)[1:], *again])
    assert done.exit_code == 0 and "warning: not the file" not in done.output
    assert sha256_file(tmp_path / "again.onnx") == result.export.sha256
    if helps:  # the command's golden pack is compared with the tuned weights
        searched = [
            "precision",
            own,
            "--target",
            "onnx",
            "--calibration",
            photos,
            "--gallery",
            pixel_store.path,
            "--calibration-count",
            8,
            "--max-loss",
            "90%",
            "--tune",
            2,
            "--tune-images",
            more,
            "--tune-features",
            features.path,
            "--overwrite",
        ]
        made_again = CliRunner().invoke(app, list(map(str, searched)))
        assert made_again.exit_code == 0 and f"wrote {result.export.path}" in made_again.output
        assert result.export.path.with_name(f"{result.export.path.name}.golden").is_dir()
        # the recipe alone is of the tuned weights and of those photos
        other = ["export", str(own), "--recipe", str(result.folder / "recipe.toml"), "--calibration", str(photos)]
        told = CliRunner().invoke(app, [*other, *again, "--overwrite"]).output.replace("\n", "")
        assert f"found with other weights, those in {result.export.path.parent.parent}" in told
        assert "other photos for the ranges: --calibration" in told and "--calibration-count 8 --seed 0" in told


def test_the_option(
    made: Path, photos: Path, pixel_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--tune STEPS reaches the training with its photos and features; without STEPS they are refused."""
    own = tmp_path / "run"
    shutil.copytree(made, own)
    asked: list[Tune] = []

    def remember(run: Path, folder: Path, tune: Tune, *rest: Any) -> Path:
        asked.append(tune)
        return Path(shutil.copytree(run, folder, ignore=shutil.ignore_patterns("exports")))  # the folder lies in there

    monkeypatch.setattr(search, "tune", remember)
    base = [
        "precision",
        str(own),
        "--target",
        "onnx",
        "--calibration",
        str(photos),
        "--gallery",
        str(pixel_store.path),
        "--calibration-count",
        "8",
        "--max-loss",
        "90%",
    ]
    more = ["--tune-images", str(photos), "--tune-features", str(pixel_store.path)]
    done = CliRunner().invoke(app, [*base, "--tune", "3", *more, "--json"])
    assert done.exit_code == 0, done.output
    assert [tune.steps for tune in asked] == [3] and asked[0].images.ids == find_images(photos).ids
    assert asked[0].features.path == pixel_store.path
    trials = json.loads(done.stdout)["trials"]
    assert [trial["tuned"][:8] for trial in trials] == ["", "tuned-3-"] and trials[1]["loss"] == trials[0]["loss"]
    refused = CliRunner().invoke(app, [*base, *more])
    assert isinstance(refused.exception, BadInputError)
    assert str(refused.exception) == "`tune_images` and `tune_features` go with `tune` STEPS"
    assert CliRunner().invoke(app, [*base, "--tune", "0"]).exit_code == 2


def test_errors(made: Path, photos: Path, pixel_store: FeatureStore, calibration: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="`tune` 0: 1 step or more"):
        tuned(made, tmp_path / "a", photos, pixel_store, calibration, 0)
    bare = shutil.copytree(made, tmp_path / "bare")
    (bare / "run.json").unlink()
    with pytest.raises(BadInputError, match=r"run\.json, which holds its loss, is missing"):
        tuned(bare, tmp_path / "a", photos, pixel_store, calibration, 1)


def test_rounds() -> None:
    assert [rounds_of(*given) for given in ((300, 90), (300, 20), (7, 90), (51, 90))] == [
        (50, 6),
        (20, 15),
        (7, 1),
        (26, 2),
    ]
