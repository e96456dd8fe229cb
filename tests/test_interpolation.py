"""Weights between a stage's start and its end: which are kept, and that a run keeps them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from distillations import config, run
from numpy.typing import NDArray
from torch import Tensor

from edgecsd.distill import DistillResult
from edgecsd.features import FeatureStore
from edgecsd.interpolation import SHARES, State, best_between, interpolated
from edgecsd.progress import Silent
from edgecsd.query_models import load_query_model

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


@pytest.mark.parametrize("peak", [0.7, 0.8, 1.0])
def test_what_retrieves_best_is_kept(peak: float) -> None:
    """Where every photo says the same, any loss is a measurable one."""
    listener = Listener()

    def judge(state: State) -> NDArray[np.float64]:
        return np.full(5, 0.6 - abs(where(state) - peak))

    assert best_between(START, END, judge, listener) == peak
    assert listener.heard == [
        f"kept {peak:.1f} of the way from this stage's start to its end: held-out overlap 0.6000 "
        f"(all of it {peak - 0.4:.4f})"
    ]


def test_the_most_training_that_is_not_measurably_worse() -> None:
    """Four photos that lose different amounts: the standard error of their mean loss is 0.289 a unit of the way."""

    def judge(loss: float, state: State) -> NDArray[np.float64]:
        return 0.6 - (loss + np.array([0.5, -0.5, 0.5, -0.5])) * (where(state) - 0.7)

    assert best_between(START, END, partial(judge, 0.3)) == 0.7
    assert best_between(START, END, partial(judge, 0.2)) == 1.0


def test_of_equals_the_most_training() -> None:
    seen: list[float] = []

    def judge(state: State) -> NDArray[np.float64]:
        seen.append(where(state))
        return np.array([0.4, 0.6])

    assert best_between(START, END, judge) == 1.0
    assert seen == pytest.approx(list(SHARES))


def test_where_nothing_was_trained_nobody_is_asked() -> None:
    listener = Listener()
    assert best_between(START, START, lambda state: pytest.fail("judged"), listener) == 1.0
    assert not listener.heard


class Best:
    """A Selection by the mean alone: of a handful of photos the real one can hardly call any loss measurable."""

    def __init__(self) -> None:
        self.best = -1.0

    def takes(self, overlaps: NDArray[np.float64]) -> bool:
        taken = bool(overlaps.mean() > self.best)
        self.best = max(self.best, float(overlaps.mean()))
        return taken


@pytest.fixture(scope="module")
def runs(
    photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory
) -> dict[bool, tuple[DistillResult, Listener]]:
    """The same settings with interpolation and without; rates that lead far away, so that the way back matters."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgecsd.interpolation.Selection", Best)
        for interpolate in (True, False):
            settings, listener = config(head_lr=3e-2, projection_lr=1e-2, interpolate=interpolate), Listener()
            out = folder / str(interpolate)
            found[interpolate] = run(photos, pixel_store.path, out, config=settings, reporter=listener), listener
    return found


def head(result: DistillResult) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(result.path / "cache" / "head.safetensors")


def test_a_run_says_how_far_it_went(runs: dict[bool, tuple[DistillResult, Listener]]) -> None:
    told = [[text for text in listener.heard if "of the way" in text] for _, listener in runs.values()]
    assert [len(texts) for texts in told] == [2, 0]  # the head's stage and the network's


def test_the_head_is_on_the_line(
    runs: dict[bool, tuple[DistillResult, Listener]], photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    """The head of the run without interpolation is the end, the start is what no step at all leaves."""
    (result, listener), (plain, _) = runs[True], runs[False]
    share = float(next(text for text in listener.heard if "of the way" in text).split()[1])
    start = run(photos, pixel_store.path, tmp_path / "run", config=config(head_lr=1e-12, epochs=0))
    expected = interpolated(head(start), head(plain), share)
    assert share < 1  # of these rates
    assert torch.allclose(head(result)["projection.weight"], expected["projection.weight"], atol=1e-5)


def test_the_stage_tells_of_what_was_kept(runs: dict[bool, tuple[DistillResult, Listener]]) -> None:
    result, listener = runs[True]
    told = [text for text in listener.heard if "of the way" in text]
    for stage, text in zip(result.stages[1:], told, strict=True):
        assert f"held-out overlap {stage.overlap:.4f}" in text
    assert load_query_model(result.path).training is False


def test_a_random_start_is_not_gone_back_to(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    listener = Listener()
    settings = config(init="random", epochs=0)
    run(photos, pixel_store.path, tmp_path / "run", config=settings, reporter=listener)
    assert not [text for text in listener.heard if "of the way" in text]
