"""The head fitted once more to all photos: with which weights, when, and when not."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from distillations import config, run, training_set
from safetensors.torch import load_file
from torch import Tensor

from edgecsd.errors import BadInputError
from edgecsd.features.store import FeatureStore
from edgecsd.models.query import load_query_model
from edgecsd.progress import Silent
from edgecsd.training import head_stage
from edgecsd.training.closed_form import ClosedForms, Projection
from edgecsd.training.head_training import BEST_CLOSED_FORM, HeadPlan, repeat_head
from edgecsd.training.keeping import Selection
from edgecsd.training.run_folder import DistillResult, read_result
from edgecsd.training.settings import make_config
from edgecsd.training.training_set import TrainingSet


class Listener(Silent):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def message(self, text: str) -> None:
        self.heard.append(text)


HEAD_ONLY = {"epochs": 0, "head_steps": 40, "head_lr": 3e-3, "interpolate": False}


@pytest.fixture(scope="module")
def data(photos: Path, pixel_store: FeatureStore) -> TrainingSet:
    return training_set(photos, pixel_store)


@pytest.fixture(scope="module")
def runs(
    photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory
) -> dict[bool, DistillResult]:
    """The same settings, the head fitted once more and not."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        refit: run(photos, pixel_store.path, folder / str(refit), config=config(**HEAD_ONLY, refit=refit))
        for refit in (True, False)
    }


def pooled(result: DistillResult) -> np.ndarray:
    (file,) = (result.path / "cache").glob("pooled-*.npy")
    return np.asarray(np.load(file))


def weights(result: DistillResult) -> dict[str, Tensor]:
    return load_file(result.path / "query_model.safetensors")


def cosines(result: DistillResult, data: TrainingSet) -> np.ndarray:
    """Of the held-out photos' embeddings and their gallery features."""
    inputs = torch.from_numpy(pooled(result)[data.held_out, 0])
    with torch.inference_mode():
        embeddings = load_query_model(result.path).project(inputs).numpy()
    return np.asarray((embeddings * data.own_features(data.held_out)).sum(1))


def test_held_out_photos_are_learnt_from(runs: dict[bool, DistillResult], data: TrainingSet) -> None:
    assert cosines(runs[True], data).mean() > cosines(runs[False], data).mean() + 0.05
    assert runs[True].refit == 24 and runs[False].refit is None
    assert runs[True].stages == runs[False].stages, "what was measured is of before"
    assert read_result(runs[True].path) == runs[True]


def test_the_head_that_was_selected_is_still_there(runs: dict[bool, DistillResult]) -> None:
    """And the backbone is the same: what is fitted stands behind it."""
    first, again = weights(runs[False]), weights(runs[True])
    head = load_file(runs[True].path / "cache" / "head.safetensors")
    assert torch.equal(head["projection.weight"], first["projection.weight"])
    assert not torch.allclose(again["projection.weight"], first["projection.weight"], atol=1e-3)
    assert all(torch.equal(again[name], first[name]) for name in first if name.startswith("backbone."))


def test_without_steps_it_is_the_closed_form_of_all_photos(
    photos: Path, pixel_store: FeatureStore, data: TrainingSet, tmp_path: Path
) -> None:
    result = run(photos, pixel_store.path, tmp_path / "run", config=config(epochs=0, head_steps=0, refit=True))
    every = pooled(result)

    def forms(images: np.ndarray) -> dict[str, Projection]:
        rows = every[images].reshape(-1, every.shape[2])
        closed = ClosedForms(rows, data.features[images].reshape(len(rows), -1))
        found = {"procrustes": closed.procrustes()}
        return found | {f"{strength}": closed.ridge(strength) for strength in head_stage.STRENGTHS}

    held_out = every[data.held_out, 0]
    overlaps = {name: data.held_out_overlap(form(held_out), 5) for name, form in forms(data.train).items()}
    best = max(overlaps, key=overlaps.__getitem__)
    expected = forms(np.arange(24))[best]
    np.testing.assert_allclose(weights(result)["projection.weight"].numpy(), expected.weight, rtol=1e-4, atol=1e-4)


def test_what_the_network_learnt_is_kept(
    runs: dict[bool, DistillResult], photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    """Its backbone, and its changes to the head, added to the one that is fitted to all photos."""
    found = {}
    for refit in (True, False):
        settings = config(**{**HEAD_ONLY, "epochs": 1, "projection_lr": 1e-2}, refit=refit)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edgecsd.training.network_stage.Selection.takes", takes_all)
            found[refit] = weights(run(photos, pixel_store.path, tmp_path / str(refit), config=settings))
    before, again = weights(runs[False]), weights(runs[True])
    for name, tensor in found[True].items():
        change = found[False][name] - before[name]
        assert torch.allclose(tensor.float(), (again[name] + change).float(), atol=1e-5)
        if name.startswith("backbone.") and tensor.ndim > 1:
            assert not torch.equal(tensor, before[name])
    assert not torch.allclose(found[False]["projection.weight"], before["projection.weight"], atol=1e-3)


def takes_all(self: Selection, overlaps: np.ndarray) -> bool:
    self.best = overlaps
    return True


def test_few_held_out_photos_are_not_worth_it(
    photos: Path, pixel_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_stage, "REFIT_ABOVE", 0.5)
    settings, listener = config(refit=True, epochs=0), Listener()
    assert run(photos, pixel_store.path, tmp_path / "run", config=settings, reporter=listener).refit is None
    assert [text for text in listener.heard if "photos were held out" in text], "who asks for it is told"


def test_an_interrupted_one_begins_again_and_ends_alike(
    runs: dict[bool, DistillResult],
    photos: Path,
    pixel_store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = config(**HEAD_ONLY, refit=True)

    def interrupted(*arguments: object, **named: object) -> None:
        repeat_head(*arguments, **named)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(head_stage, "repeat_head", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(photos, pixel_store.path, tmp_path / "run", config=settings)
    assert not (tmp_path / "run" / "query_model.json").exists()
    monkeypatch.setattr(head_stage, "train_head", lambda *arguments, **named: pytest.fail("trained twice"))
    result = run(photos, pixel_store.path, tmp_path / "run", config=settings)
    expected = weights(runs[True])
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(result).items())


def test_it_goes_as_far_as_held_out_photos_said(
    photos: Path, pixel_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of the steps, seven tenths of the way from the closed form of all photos to where they end."""
    heard: list[int] = []
    learning_rate = head_stage.repeat_head.__globals__["learning_rate_factor"]

    def counted(step: int, total: int, warmup: float) -> float:
        heard.append(step)
        return float(learning_rate(step, total, warmup))

    monkeypatch.setattr("edgecsd.training.head_training.learning_rate_factor", counted)
    found = []
    for number, plan in enumerate((HeadPlan(0.25, 0.7), HeadPlan(0.25, 1.0), HeadPlan(0.0, 1.0))):
        heard.clear()
        monkeypatch.setattr(head_stage, "train_head", lambda *arguments, plan=plan, **named: plan)
        result = run(photos, pixel_store.path, tmp_path / f"{number}", config=config(**HEAD_ONLY, refit=True))
        found.append(weights(result)["projection.weight"])
        assert heard == list(range(round(40 * plan.trained))) and result.refit == 24
    between, end, start = found
    assert not torch.allclose(end, start, atol=1e-3)
    assert torch.allclose(between, start.lerp(end, 0.7), atol=1e-6)


def test_the_way_that_was_chosen_is_gone_again(
    photos: Path, pixel_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the best closed form, of all photos now. Training itself begins at the rotation."""
    monkeypatch.setattr(head_stage, "STRENGTHS", (0.1,))
    rising = count()  # the last that is asked for is the best: the ridge
    monkeypatch.setattr(TrainingSet, "held_out_overlap", lambda *arguments: float(next(rising)))
    by_photos = {**HEAD_ONLY, "held_out_by": "photos", "interpolate": True}
    found: dict[str, Tensor] = {}
    plans = {"end": HeadPlan(1.0, 1.0), "between": HeadPlan(1.0, 0.4, BEST_CLOSED_FORM)}
    plans |= {"origin": HeadPlan(0.0, 0.0, BEST_CLOSED_FORM), "rotation": HeadPlan(0.0, 0.0)}
    for name, plan in plans.items():
        monkeypatch.setattr(head_stage, "train_head", lambda *arguments, plan=plan, **named: plan)
        result = run(photos, pixel_store.path, tmp_path / name, config=config(**by_photos, refit=True))
        found[name] = weights(result)["projection.weight"]
    rows = pooled(result).reshape(-1, pooled(result).shape[2])
    data = training_set(photos, pixel_store, "photos")
    ridge = ClosedForms(rows, data.features[np.arange(24)].reshape(len(rows), -1)).ridge(0.1)
    np.testing.assert_allclose(found["origin"].numpy(), ridge.weight, rtol=1e-4, atol=1e-4)
    assert torch.allclose(found["between"], found["origin"].lerp(found["end"], 0.4), atol=1e-5)
    assert not torch.allclose(found["rotation"], found["origin"], atol=1e-3)


def test_nothing_to_fit_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"`refit`: there is no head to fit again"):
        make_config(None, {"refit": True, "projection": "none", "query_model": "mobilenetv2_100"})
    assert make_config(None, {"projection": "none"}).refit  # the default is no request
