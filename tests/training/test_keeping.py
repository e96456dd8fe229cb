"""Weights between a stage's start and its end: which are kept, and that a run keeps them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distillations import config, run
from numpy.typing import NDArray
from torch import Tensor

from edgecsd.features.store import FeatureStore
from edgecsd.models.query import load_query_model
from edgecsd.progress import Silent
from edgecsd.training.choices import HeldOutBy
from edgecsd.training.head_training import BEST_CLOSED_FORM, STAGE_START
from edgecsd.training.keeping import (
    MANY,
    Kept,
    Selection,
    State,
    best_between,
    head_shares,
    interpolated,
    least_of_a_head,
)
from edgecsd.training.run_folder import DistillResult
from edgecsd.training.training_set import TrainingSet

KINDS, PHOTOS = HeldOutBy.KINDS, HeldOutBy.PHOTOS
START = {"weight": torch.tensor([[1.0, -2.0], [0.1, 4.0]]), "seen": torch.tensor(3)}
END = {"weight": torch.tensor([[2.0, 2.0], [0.3, 4.0]]), "seen": torch.tensor(9)}


class Listener(Silent):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def message(self, text: str) -> None:
        self.heard.append(text)


def test_the_ends_are_the_weights_themselves() -> None:
    for share, whole in ((0.0, START), (1.0, END)):
        found = interpolated(START, END, share)
        assert torch.equal(found["weight"], whole["weight"])
        assert found["weight"].data_ptr() != whole["weight"].data_ptr()  # a copy


def test_between_them_it_is_the_straight_line() -> None:
    found = interpolated(START, END, 0.7)
    slow = [[a + 0.7 * (b - a) for a, b in zip(*rows, strict=True)] for rows in zip(*lists("weight"), strict=True)]
    assert torch.allclose(found["weight"], torch.tensor(slow))
    assert found["seen"] == 9  # a counter is no point on a line


def lists(name: str) -> tuple[list[list[float]], list[list[float]]]:
    return START[name].tolist(), END[name].tolist()


def where(state: State) -> float:
    """How far from the start to the end the weights are."""
    return float(state["weight"][0, 0] - 1)


def share_kept(judge: Callable[[State], NDArray[np.float64]], by: HeldOutBy) -> float:
    found = best_between(START, END, head_shares(by), judge, by)
    assert found is not None
    return found.share


@pytest.mark.parametrize(
    ("by", "peak"),
    [(KINDS, 0.0), (KINDS, 0.7), (KINDS, 0.8), (KINDS, 1.0), (PHOTOS, 0.0), (PHOTOS, 0.2), (PHOTOS, 1.0)],
)
def test_what_retrieves_best_is_kept(by: HeldOutBy, peak: float) -> None:
    """Where every photo says the same, any loss is a measurable one."""

    def judge(state: State) -> NDArray[np.float64]:
        return np.full(5, 1 - abs(where(state) - peak))

    found = best_between(START, END, head_shares(by), judge, by)
    assert found is not None and found.share == peak
    kept = f"{peak:.1f} of the way from this stage's start to the end" if peak else "this stage's start"
    assert found.in_words == f"kept {kept}: held-out overlap 1.0000 (start {1 - peak:.4f}, end {peak:.4f})"


def test_the_most_training_that_is_not_measurably_worse() -> None:
    """Four photos that lose different amounts: the standard error of their mean loss is 0.289 a unit of the way."""

    def judge(loss: float, state: State) -> NDArray[np.float64]:
        return 0.6 - (loss + np.array([0.5, -0.5, 0.5, -0.5])) * where(state)

    assert share_kept(partial(judge, 0.3), KINDS) == 0.0
    assert share_kept(partial(judge, 0.2), KINDS) == 1.0


def test_of_single_photos_the_best_however_small_the_difference() -> None:
    def judge(state: State) -> NDArray[np.float64]:
        return 0.6 - (0.01 + np.array([0.5, -0.5, 0.5, -0.5])) * abs(where(state) - 0.4)

    assert share_kept(judge, PHOTOS) == pytest.approx(0.4)


@pytest.mark.parametrize("by", HeldOutBy)
def test_of_equals_the_most_training(by: HeldOutBy) -> None:
    seen: list[float] = []

    def judge(state: State) -> NDArray[np.float64]:
        seen.append(where(state))
        return np.array([0.4, 0.6])

    assert share_kept(judge, by) == 1.0
    assert seen == pytest.approx(list(head_shares(by)))


def test_few_photos_of_kinds_take_a_head_back_a_little_only() -> None:
    assert least_of_a_head(KINDS, 40) == 0.9 and least_of_a_head(KINDS, MANY) == least_of_a_head(PHOTOS, 40) == 0
    for peak, kept in ((0.0, 0.0), (0.7, 0.9), (0.8, 0.9), (1.0, 1.0)):
        asked: list[float] = []

        def judge(state: State, peak: float = peak, asked: list[float] = asked) -> NDArray[np.float64]:
            asked.append(where(state))
            return np.full(5, 1 - abs(where(state) - peak))

        found = best_between(START, END, head_shares(KINDS), judge, KINDS, least=0.9)
        assert found is not None and found.share == kept, "0.7 of the way tells whether training is worth anything"
        assert found.overlap == pytest.approx(1 - abs(kept - peak)) and asked == pytest.approx([0, 0.7, 0.8, 0.9, 1])


def test_where_nothing_was_trained_nobody_is_asked() -> None:
    assert best_between(START, START, head_shares(KINDS), lambda state: pytest.fail("judged"), KINDS) is None


class FirstTwo:
    """A Selection that takes its start and the first step away from it, whatever they are worth."""

    def __init__(self, by: HeldOutBy) -> None:
        self.asked = 0

    def takes(self, overlaps: NDArray[np.float64]) -> bool:
        self.asked += 1
        return self.asked <= 2


class All(Selection):
    """A Selection that takes whatever comes."""

    def takes(self, overlaps: NDArray[np.float64]) -> bool:
        self.best = overlaps
        return True


@pytest.fixture(scope="module")
def runs(
    photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory
) -> dict[bool, tuple[DistillResult, Listener]]:
    """The same settings with interpolation, and without to the end of each stage."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgecsd.training.keeping.Selection", FirstTwo)
        patch.setattr("edgecsd.training.head_training.Selection", All)
        for interpolate in (True, False):
            settings, listener = config(head_lr=3e-2, projection_lr=1e-2, interpolate=interpolate), Listener()
            out = folder / str(interpolate)
            found[interpolate] = run(photos, pixel_store.path, out, config=settings, reporter=listener), listener
    return found


def head(result: DistillResult) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(result.path / "cache" / "head.safetensors")


def told(listener: Listener) -> list[str]:
    return [text for text in listener.heard if text.startswith("kept ")]


def test_a_run_says_how_far_it_went(runs: dict[bool, tuple[DistillResult, Listener]]) -> None:
    shares = [[text.split()[1] for text in told(listener)] for _, listener in runs.values()]
    assert shares == [["0.9", "0.2"], []]  # of the head's stage and of the network's


def test_the_head_is_on_the_line(
    runs: dict[bool, tuple[DistillResult, Listener]], photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    """The head of the run without interpolation is the end, the start is what no step at all leaves."""
    start = run(photos, pixel_store.path, tmp_path / "run", config=config(head_lr=1e-12, epochs=0))
    expected = interpolated(head(start), head(runs[False][0]), 0.9)
    found = head(runs[True][0])
    assert torch.allclose(found["projection.weight"], expected["projection.weight"], atol=1e-5)
    assert not torch.allclose(found["projection.weight"], head(start)["projection.weight"], atol=1e-3)


@pytest.mark.parametrize("wanted", [STAGE_START, BEST_CLOSED_FORM])
def test_single_photos_choose_between_two_lines(
    wanted: str, photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    """From the rotation, which training begins with, and from the best closed form, to one and the same end."""
    by_photos: dict[str, Any] = {"head_lr": 3e-2, "epochs": 0, "held_out_by": "photos"}
    listener, found = Listener(), {}

    def chosen(*arguments: Any, named: str, least: float) -> Kept:
        return Kept(0.2, named, float(named == wanted), 0.0, 0.0)

    others: dict[str, dict[str, Any]] = {
        "kept": {},
        "end": {"select": False},
        STAGE_START: {"select": False, "head_lr": 1e-12},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgecsd.training.head_training.best_between", chosen)
        rising = count()  # the last that is asked for is the best: a ridge
        patch.setattr(TrainingSet, "held_out_overlap", lambda *arguments: float(next(rising)))
        for name, more in others.items():
            settings = config(**by_photos | more)
            result = run(photos, pixel_store.path, tmp_path / name, config=settings, reporter=listener)
            found[name] = head(result)["projection.weight"]
    found[BEST_CLOSED_FORM] = load_query_model(result.path / "closed_form").head_state()["projection.weight"]
    assert torch.allclose(found["kept"], found[wanted].lerp(found["end"], 0.2), atol=1e-5)
    assert not torch.allclose(found[BEST_CLOSED_FORM], found[STAGE_START], atol=1e-3)
    (line,) = told(listener)
    assert line.startswith(f"kept 0.2 of the way from {wanted} to the end: held-out overlap 1.0000 ")


def test_the_network_is_on_the_line(runs: dict[bool, tuple[DistillResult, Listener]]) -> None:
    """From the head's weights to the last ones of its own stage, whichever epoch retrieved best."""
    result, _ = runs[True]
    end = torch.load(result.path / "checkpoints" / "last.pt", weights_only=True)["model"]
    found, start = load_query_model(result.path).state_dict(), head(result)
    for name in ("projection.weight", "projection.bias"):
        assert torch.allclose(found[name], start[name].lerp(end[name], 0.2), atol=1e-6)
        assert not torch.allclose(found[name], start[name], atol=1e-6)


def test_without_selection_the_last_weights_are_kept(
    runs: dict[bool, tuple[DistillResult, Listener]], photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    """Of both stages, whatever held-out photos say: those of the run whose Selection took everything."""
    settings, listener = config(head_lr=3e-2, projection_lr=1e-2, select=False), Listener()
    result = run(photos, pixel_store.path, tmp_path / "run", config=settings, reporter=listener)
    assert torch.equal(head(result)["projection.weight"], head(runs[False][0])["projection.weight"])
    end = torch.load(result.path / "checkpoints" / "last.pt", weights_only=True)["model"]
    found = load_query_model(result.path).state_dict()
    assert all(torch.equal(tensor, end[name]) for name, tensor in found.items() if tensor.is_floating_point())
    assert not told(listener)


def test_the_stage_tells_of_what_was_kept(runs: dict[bool, tuple[DistillResult, Listener]]) -> None:
    result, listener = runs[True]
    for stage, text in zip(result.stages[1:], told(listener), strict=True):
        assert f"held-out overlap {stage.overlap:.4f}" in text
    assert load_query_model(result.path).training is False


def test_a_random_start_is_not_gone_back_to(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    listener = Listener()
    settings = config(init="random", epochs=0)
    run(photos, pixel_store.path, tmp_path / "run", config=settings, reporter=listener)
    assert not told(listener)
