"""The settings of distill that change what is learnt: losses, anchors, heads, views, moving average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distillations import config, run, training_set
from numpy.typing import NDArray
from safetensors.torch import load_file

from edgecsd.errors import BadInputError
from edgecsd.features.store import FeatureStore
from edgecsd.models.query import load_query_model
from edgecsd.progress import Advance, Silent
from edgecsd.training.choices import ANCHORED_LOSSES, AnchorKind, HeldOutBy, Loss
from edgecsd.training.head_stage import HeadStage
from edgecsd.training.keeping import Selection
from edgecsd.training.log import read_records
from edgecsd.training.network_stage import NetworkTraining
from edgecsd.training.training_set import TrainingSet


class Listener(Silent):
    """Remembers the names of the tasks, and the messages."""

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.heard: list[str] = []

    def message(self, text: str) -> None:
        self.heard.append(text)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        self.tasks.append(name)
        with super().task(name, total, done) as advance:
            yield advance


class TakesAll:
    """A Selection that takes the latest weights, whatever they reach."""

    def __init__(self, by: HeldOutBy, best: NDArray[np.float64] | None = None, *, everything: bool = False) -> None:
        self.best = best

    def takes(self, overlaps: NDArray[np.float64]) -> bool:
        self.best = overlaps
        return True


@pytest.fixture(scope="module", autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("loss", list(Loss))
def test_every_loss_trains_head_and_network(
    loss: Loss, photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    settings = config(loss=loss, head_steps=4, epochs=1, sub_spaces=4, centroids=4, order="both")
    result = run(photos, pixel_store.path, tmp_path / "run", config=settings)
    assert [stage.name for stage in result.stages] == ["closed-form start", "head", "network"]
    losses = [
        record["loss"] for record in read_records(tmp_path / "run" / "metrics.jsonl") if record["loss"] is not None
    ]
    assert losses and np.isfinite(losses).all()  # type: ignore[arg-type]
    assert bool(list((tmp_path / "run" / "cache").glob("anchors-*"))) == (loss in ANCHORED_LOSSES)


@pytest.mark.parametrize("kind", list(AnchorKind))
def test_every_kind_of_anchors(kind: AnchorKind, photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    settings = config(anchors=kind, k=6, head_steps=4, epochs=0)
    run(photos, pixel_store.path, tmp_path / "run", config=settings)
    (folder,) = (tmp_path / "run" / "cache").glob("anchors-*")
    assert np.load(folder / "similarities.npy").shape[1] == 6


def test_a_head_with_a_bottleneck_and_learnt_pooling(
    photos: Path, pixel_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecsd.training.head_training.Selection", TakesAll)
    settings = config(projection="bottleneck", pooling="gem+average", learn_gem_p=True, head_lr=1e-2, interpolate=False)
    result = run(photos, pixel_store.path, tmp_path / "run", config=settings)
    assert [stage.name for stage in result.stages] == ["closed-form start", "head", "network"]
    (file,) = (tmp_path / "run" / "cache").glob("pooled-*.npy")
    assert np.load(file).dtype == np.float16
    model = load_query_model(tmp_path / "run")
    assert model.config.gem_p != 3.0 and isinstance(model.pool.power, float)
    start = load_query_model(tmp_path / "run" / "closed_form")
    assert model.bottleneck is not None and start.bottleneck is not None
    assert not torch.equal(model.bottleneck.weight, start.bottleneck.weight)


@pytest.mark.parametrize(("by", "other"), [("kinds", "photos"), ("photos", "kinds")])
def test_what_is_held_out_is_told_and_judges_every_stage(
    by: str, other: str, photos: Path, pixel_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head, way of the head, network, way of the network: each asks a Selection by the same held-out photos."""
    asked: list[str] = []

    class Recorded(Selection):
        def __init__(self, by: HeldOutBy, best: NDArray[np.float64] | None = None, *, everything: bool = False) -> None:
            asked.append(by)
            super().__init__(by, best, everything=everything)

    for module in ("head_training", "network_stage", "keeping"):
        monkeypatch.setattr(f"edgecsd.training.{module}.Selection", Recorded)
    learnt: list[TrainingSet] = []
    project = HeadStage.project_held_out

    def remember(self: HeadStage) -> NDArray[np.float32]:
        learnt.append(self.data)
        return project(self)

    monkeypatch.setattr(HeadStage, "project_held_out", remember)
    listener = Listener()
    settings = config(held_out_by=by, head_steps=4, head_lr=1e-2, epochs=1)
    run(photos, pixel_store.path, tmp_path / "run", config=settings, reporter=listener)
    assert asked == [by] * 4
    assert learnt[0].held_out.tolist() == training_set(photos, pixel_store, by).held_out.tolist()
    assert learnt[0].held_out.tolist() != training_set(photos, pixel_store, other).held_out.tolist()
    (told,) = (text for text in listener.heard if text.startswith("held out: 5 of 24 photos, "))
    assert f"`held_out_by` {other}" in told
    with pytest.raises(BadInputError, match=rf"held_out_by: {by} there, {other} now"):
        run(photos, pixel_store.path, tmp_path / "run", config=config(held_out_by=other, head_steps=4, epochs=1))


def test_no_projection_needs_as_many_channels_as_dimensions(
    photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match=r"`projection` none: test_eff\w+ gives \d+ pooled values .* has 16 dim"):
        run(photos, pixel_store.path, tmp_path / "run", config=config(projection="none"))
    assert not (tmp_path / "run").exists()


def test_fewer_views_and_a_cache_that_runs_share(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    shared, listener = tmp_path / "shared", Listener()
    whole = run(photos, pixel_store.path, tmp_path / "a", config=config(epochs=0), cache=shared)
    kept = sorted(shared.iterdir())
    settings = config(views=1, epochs=0)
    fewer = run(photos, pixel_store.path, tmp_path / "b", config=settings, cache=shared, reporter=listener)
    assert "pooled features" not in listener.tasks  # the first view is among the two that are there
    assert len(list(shared.iterdir())) == len(kept) + 1  # anchors of fewer vectors
    alone = run(photos, pixel_store.path, tmp_path / "c", config=settings)
    assert fewer.stages != whole.stages
    for one, other in zip(fewer.stages, alone.stages, strict=True):  # batches of other photos round otherwise
        assert (one.name, one.overlap) == (other.name, other.overlap)
        assert one.cosine == pytest.approx(other.cosine, abs=1e-5)
    with pytest.raises(BadInputError, match=r"`views` 3: .* has 2 cached views an image"):
        run(photos, pixel_store.path, tmp_path / "d", config=config(views=3))


def test_a_moving_average_is_what_is_validated_and_kept(
    photos: Path, pixel_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[dict[str, torch.Tensor]] = []
    step = NetworkTraining.train_step

    def remember(self: NetworkTraining, *arguments: Any) -> float:
        loss = step(self, *arguments)
        trained.append({name: value.clone() for name, value in self.model.state_dict().items()})
        return loss

    monkeypatch.setattr(NetworkTraining, "train_step", remember)
    monkeypatch.setattr("edgecsd.training.network_stage.Selection", TakesAll)
    settings = config(ema=0.5, head_steps=0, backbone_lr=1e-3, interpolate=False)
    start = run(photos, pixel_store.path, tmp_path / "start", config=config(head_steps=0, epochs=0))
    run(photos, pixel_store.path, tmp_path / "run", config=settings)
    name = "projection.weight"
    average = load_file(start.path / "query_model.safetensors")[name]
    for number, state in enumerate(trained, start=1):
        decay = min(0.5, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * state[name]
    kept = load_file(tmp_path / "run" / "query_model.safetensors")[name]
    assert torch.allclose(kept, average, atol=1e-6) and not torch.allclose(kept, trained[-1][name], atol=1e-6)


def test_a_batch_in_parts_is_the_same_step(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    whole, parts = ({"head_steps": 0, "batch_size": 6, "accumulate": number} for number in (1, 3))
    seen = []

    class Watched(NetworkTraining):
        """Notes how many images go through the network at once."""

        def _make_optimizer(self) -> torch.optim.Optimizer:
            self.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
            return super()._make_optimizer()

    for name, changes in (("whole", whole), ("parts", parts)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edgecsd.training.distill.NetworkTraining", Watched)
            run(photos, pixel_store.path, tmp_path / name, config=config(**changes))
    assert {2, 6} <= set(seen)
    losses = [
        [r["loss"] for r in read_records(tmp_path / name / "metrics.jsonl") if r["loss"] is not None]
        for name in ("whole", "parts")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    ours, theirs = (load_file(tmp_path / name / "query_model.safetensors") for name in ("parts", "whole"))
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours[name], tensor, atol=2e-4, err_msg=name)
