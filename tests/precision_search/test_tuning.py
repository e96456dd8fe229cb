"""--tune: rounding as the exported file rounds, gradients through it, a distillation that resumes, kept if it helps."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from distillations import config
from PIL import Image
from typer.testing import CliRunner

from edgecsd.backbones import to_input
from edgecsd.bias_correction import convolutions_in_order, hooked, rounded_weights
from edgecsd.cli import app
from edgecsd.errors import BadInputError
from edgecsd.exporting import export
from edgecsd.features import FeatureStore, write_store
from edgecsd.files import sha256_file
from edgecsd.gallery_vectors import unit
from edgecsd.head_kinds import ProjectionKind
from edgecsd.images import find_images
from edgecsd.precision_search import Objectives, Trial, attempts, search, search_precision, tuning
from edgecsd.precision_search.held_out import HeldOut
from edgecsd.precision_search.rounding import RoundedLayers, plain_state, rounded_values
from edgecsd.precision_search.sensitivity import input_ranges, layer_costs
from edgecsd.precision_search.tuning import Tune, rounds_of, tune
from edgecsd.progress import SILENT
from edgecsd.quantization import STANDARD, EightBit, Precision, synthetic_pixels
from edgecsd.query_models import QueryModel, create_query_model, load_query_model, read_config, save_query_model
from edgecsd.selection import Selection
from edgecsd.space import EmbeddingSpace
from edgecsd.targets.artifact import load_runner, read_metadata
from edgecsd.targets.deploy import DeployModel
from edgecsd.training import NetworkTraining

FEW = frozenset({0, 2})
SPACE = EmbeddingSpace(gallery_model="g", dim=64)


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


def test_ranges_are_those_of_all_that_a_layer_reads() -> None:
    """Not of some columns of the map: what lies at its edge counts, as in the exported files."""
    torch.manual_seed(3)
    deploy = DeployModel(create_query_model("test_efficientnet", SPACE, pretrained=False, size=96))
    pixels = synthetic_pixels(96, count=3)
    layers = convolutions_in_order(deploy, pixels[:1])
    read: dict[torch.nn.Conv2d, list[np.ndarray]] = {layer: [] for layer in layers}
    with hooked(layers, lambda layer, inputs: read[layer].append(inputs[0].numpy().ravel().astype(np.float64))):
        for photo in pixels:
            deploy(torch.from_numpy(photo[None]))
    everything, most = (input_ranges(deploy, layers, pixels, percentile) for percentile in (100.0, 99.0))
    for layer, parts in read.items():
        values = np.concatenate(parts)
        if len(values) < 5000:  # a gate's: between so few values percentiles are a matter of taste
            continue
        width = np.ptp(values) / 300
        for ends, rest in ((everything, 0.0), (most, 0.5)):
            low, high = np.percentile(values, (rest, 100 - rest))
            assert ends[layer] == pytest.approx((min(0.0, low), max(0.0, high)), abs=width)


def with_rounded(made: Path, calibration: np.ndarray, how: EightBit) -> tuple[QueryModel, RoundedLayers]:
    model = load_query_model(made)
    rounded = RoundedLayers(model, how, calibration)
    rounded.measure()
    return model, rounded


def test_the_layers_of_the_recipe_are_rounded_and_no_others(made: Path, calibration: np.ndarray) -> None:
    """FEW are one convolution whose weights are stored in 8 bit all the same, and a depthwise one, whose are not."""
    model, rounded = with_rounded(made, calibration, EightBit(float_convolutions=FEW))
    plain = load_query_model(made)
    everything = with_rounded(made, calibration, STANDARD)[1].names
    assert len(everything) - len(rounded.names) == len(FEW) and not any(".se." in name for name in everything)
    modules = dict(model.named_modules())
    left = set(everything) - set(rounded.names)
    assert set(rounded.stored) == {name for name in left if modules[name].groups == 1} != set()
    wholly = with_rounded(made, calibration, EightBit(float_convolutions=FEW, float_weights=True))[1]
    assert wholly.names == rounded.names and not wholly.stored
    assert any(".se." in name for name, _ in plain.backbone.named_modules()), "the network has gates"
    before, now = dict(plain.named_modules()), dict(model.named_modules())
    for name in everything:
        weight = before[name].weight
        wanted = rounded_weights(weight) if name in {*rounded.names, *rounded.stored} else weight
        assert torch.equal(now[name].weight, wanted), name
    for name, value in plain.state_dict().items():
        assert torch.equal(plain_state(model)[name], value), name


def test_a_bottleneck_is_rounded_as_in_its_file(
    calibration: np.ndarray, photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    """The last convolution stands behind the backbone: 8 bit in the file, and so for the tuning and the search."""
    torch.manual_seed(0)
    made = create_query_model(
        "test_efficientnet", pixel_store.space, pretrained=False, size=48, projection=ProjectionKind.BOTTLENECK
    )
    save_query_model(made, tmp_path / "run")
    model, rounded = with_rounded(tmp_path / "run", calibration, STANDARD)
    assert rounded.names[-1] == "bottleneck" and model.projection.weight.equal(made.projection.weight)
    file = export(
        tmp_path / "run", "onnx", "w8a8", out=tmp_path / "a.onnx", calibration=photos, calibration_count=8
    ).path  # fmt: skip
    nodes = onnx.load(str(file)).graph.node
    maker = {name: node.op_type for node in nodes for name in node.output}
    read = [maker[node.input[0]] for node in nodes if node.op_type == "Conv"]
    assert read.count("DequantizeLinear") == len(rounded.names) and read[-1] == "DequantizeLinear"

    rows = np.arange(16)
    images, contract = find_images(photos), made.config.preprocess
    pixels = np.stack([contract.pixels(images.read(position).image) for position in range(16)])
    judge = HeldOut(pixels, pixel_store.vectors()[:16], rows, pixel_store)
    judge.start_from(made)
    costs = layer_costs(DeployModel(made), calibration, judge, 99.99, SILENT, tmp_path / "layers.jsonl", {})
    assert (costs[-1].name, costs[-1].place, costs[-1].weights) == (
        "bottleneck", len(read) - 1, made.bottleneck.weight.numel()
    ) and costs[-1].cosine < 1  # fmt: skip
    floats = EightBit(float_convolutions=frozenset({costs[-1].place}), float_weights=True)
    assert "bottleneck" not in with_rounded(tmp_path / "run", calibration, floats)[1].names


@pytest.mark.parametrize(("how", "least"), [(STANDARD, 0.5), (EightBit(bias_correction=False), 0.85)])
def test_a_rounded_model_is_near_its_file(how: EightBit, least: float, photos: Path, tmp_path: Path) -> None:
    """Lite0 with its ImageNet weights: as far from torch as its file is, in the same direction, and nearer to the file.

    By chance two directions in 24 x 64 dimensions have a cosine of 0.00 +- 0.03. Measured on food photos: 0.65 with and
    0.94 without bias correction, which takes off what all photos have in common, and lengths of 1.06 and 0.95.
    """
    torch.manual_seed(0)
    run = tmp_path / "run"
    save_query_model(create_query_model("tf_efficientnet_lite0", SPACE, size=96), run)
    images, contract = find_images(photos), read_config(run).preprocess
    pixels = np.stack([contract.pixels(images.read(position).image) for position in range(24)])
    out = tmp_path / "a.onnx"
    file = export(run, "onnx", "w8a8", out=out, calibration=images, calibration_count=24, how=how).path
    model, _ = with_rounded(run, pixels, how)
    in_torch, in_file, emulated = (
        load_query_model(run).embed(pixels),
        load_runner(file).embed(pixels),
        model.embed(pixels),
    )
    error, ours = in_file - in_torch, emulated - in_torch
    alike = (error * ours).sum() / np.linalg.norm(error) / np.linalg.norm(ours)
    assert alike > least and 0.7 < np.linalg.norm(ours) / np.linalg.norm(error) < 1.4
    assert np.linalg.norm(in_file - emulated) < np.linalg.norm(error)


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
        tmp_path / "other", pixel_store.space, pixel_store.items, unit(pixel_store.vectors()[:, ::-1]),
        views=pixel_store.views, view_vectors=unit(pixel_store.view_vectors()[:, 1:].reshape(48, -1)), dtype="float32",
    )  # fmt: skip
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


def trial(losses: np.ndarray) -> Trial:
    mean = float(losses.mean())
    return Trial(Precision.W8A8, STANDARD, 1, mean, mean, mean, 0.9, "f", losses=tuple(losses.tolist()))


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
    real = attempts.measure

    def told(*arguments: Any) -> Trial:
        trial = real(*arguments)
        loss = (-0.5 if helps else 0.29) if trial.tuned else 0.3
        spread = np.where(np.arange(len(trial.losses)) % 2, 0.2, -0.2) * bool(trial.tuned)
        return replace(trial, loss=loss, losses=tuple((loss + spread).tolist()))

    monkeypatch.setattr(attempts, "measure", told)
    result = search_precision(
        own, "onnx", photos, pixel_store.path, calibration_count=8, objectives=Objectives(0.9), tune_steps=2,
        tune_images=more, tune_features=features.path,
    )  # fmt: skip
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
            "export", own, "--target", "onnx", "--precision", "auto", "--calibration", photos, "--gallery",
            pixel_store.path, "--calibration-count", 8, "--max-loss", "90%", "--tune", 2, "--tune-images", more,
            "--tune-features", features.path, "--overwrite",
        ]  # fmt: skip
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
        "export", str(own), "--target", "onnx", "--precision", "auto", "--calibration", str(photos), "--gallery",
        str(pixel_store.path), "--calibration-count", "8", "--max-loss", "90%",
    ]  # fmt: skip
    more = ["--tune-images", str(photos), "--tune-features", str(pixel_store.path)]
    done = CliRunner().invoke(app, [*base, "--tune", "3", *more, "--json"])
    assert done.exit_code == 0, done.output
    assert [tune.steps for tune in asked] == [3] and asked[0].images.ids == find_images(photos).ids
    assert asked[0].features.path == pixel_store.path
    trials = json.loads(done.stdout)["trials"]
    assert [trial["tuned"][:8] for trial in trials] == ["", "tuned-3-"] and trials[1]["loss"] == trials[0]["loss"]
    for wrong, said in (
        ([*base, *more], "--tune-images and --tune-features go with --tune STEPS"),
        (["export", str(own), "--target", "onnx", "--precision", "fp32", "--tune", "3"], "goes with --precision auto"),
    ):
        refused = CliRunner().invoke(app, wrong)
        assert isinstance(refused.exception, BadInputError) and said in str(refused.exception)
    assert CliRunner().invoke(app, [*base, "--tune", "0"]).exit_code == 2


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
