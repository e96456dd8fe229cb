"""distill, end to end on a tiny network: stages, what the run folder holds, and killed runs that are gone on with."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from distillations import config, run, training_set
from doubles import PixelGallery
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from edgecsd.errors import BadInputError
from edgecsd.features.mapped import FlatViews, chosen_views
from edgecsd.features.store import FeatureStore
from edgecsd.gallery.extract import extract
from edgecsd.models.query import load_query_model
from edgecsd.photos.finding import find_images
from edgecsd.progress import Silent
from edgecsd.training.anchors.making import make_anchors
from edgecsd.training.closed_form import STRENGTHS, ClosedForms
from edgecsd.training.network_stage import NetworkTraining
from edgecsd.training.objective import Objective
from edgecsd.training.run_folder import DistillResult

PROGRAM = Path(__file__).parents[1] / "distillations.py"


class Listener(Silent):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def message(self, text: str) -> None:
        self.heard.append(text)


@pytest.fixture(scope="module", autouse=True)
def threads_as_before() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(photos: Path, pixel_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> DistillResult:
    """An uninterrupted run."""
    return run(photos, pixel_store.path, tmp_path_factory.mktemp("whole") / "run")


def records(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def scalars(folder: Path, stage: str, tag: str) -> dict[int, float]:
    events = EventAccumulator(str(folder / "tensorboard" / stage))
    events.Reload()
    values = {}
    for event in events.Scalars(tag):
        assert event.step not in values, "TensorBoard shows this step twice"
        values[event.step] = event.value
    return values


def test_stages(whole: DistillResult) -> None:
    assert [stage.name for stage in whole.stages] == ["closed-form start", "head", "network"]
    assert all(0 <= stage.overlap <= 1 and -1 <= stage.cosine <= 1 for stage in whole.stages)


def test_the_run_folder_is_complete(whole: DistillResult, pixel_store: FeatureStore) -> None:
    found = (str(file.relative_to(whole.path)) for file in whole.path.rglob("*") if file.is_file())
    names = {re.sub(r"-[0-9a-f]{16}", "-KEY", name) for name in found}
    events = {name for name in names if name.startswith("tensorboard/")}
    assert names - events == {
        "run.json",
        "metrics.jsonl",
        "result.json",
        "query_model.safetensors",
        "query_model.json",
        "checkpoints/last.pt",
        "cache/pooled-KEY-2.npy",
        "cache/head.safetensors",
        *(f"cache/anchors-KEY/{name}" for name in ("anchors.json", "ids.npy", "similarities.npy")),
        "closed_form/query_model.safetensors",
        "closed_form/query_model.json",
    }
    assert {Path(name).parent.name for name in events} == {"head", "network"}
    started = json.loads((whole.path / "run.json").read_text())
    assert started["config"] == config().model_dump(mode="json") and started["schema_version"] == 1
    assert started["space"]["gallery_model"] == "double:pixels-7" and started["versions"]["torch"] == torch.__version__
    model = load_query_model(whole.path)
    assert model.config.space == pixel_store.space and model.config.preprocess.size == 48
    state = torch.load(whole.path / "checkpoints" / "last.pt", weights_only=True)
    assert state["step"] == 8  # 16 to 19 training images in batches of 4, two epochs


def test_metrics(whole: DistillResult) -> None:
    head = [record for record in records(whole.path) if record["stage"] == "head"]
    network = [record for record in records(whole.path) if record["stage"] == "network"]
    assert [record["step"] for record in head] == list(range(13))
    assert [record["step"] for record in network] == [0, 4, 8]
    assert head[0]["loss"] is None and network[0]["loss"] is None
    assert all(isinstance(record["loss"], float) for record in head[1:] + network[1:])
    for stage, told in zip(whole.stages[1:], (head, network), strict=True):
        # That of weights that were kept, or of those on the way to them (test_interpolation.py)
        assert stage.overlap >= min(record["held_out_overlap"] for record in told)
    for stage, steps in (("head", 12), ("network", 8)):
        assert list(scalars(whole.path, stage, "loss")) == list(range(1, steps + 1))
        rates = scalars(whole.path, stage, "learning_rate")
        assert max(rates.values()) == pytest.approx(1e-3)
        told = {
            record["step"]: record["held_out_overlap"] for record in records(whole.path) if record["stage"] == stage
        }
        assert scalars(whole.path, stage, "held_out_overlap") == pytest.approx(told)


def test_the_closed_form_is_chosen_by_retrieval(whole: DistillResult, photos: Path, pixel_store: FeatureStore) -> None:
    data = training_set(photos, pixel_store)
    (file,) = (whole.path / "cache").glob("pooled-*.npy")
    pooled = np.load(file)
    assert pooled.shape[:2] == (24, 3)
    inputs = pooled[data.train].reshape(-1, pooled.shape[2])
    forms = ClosedForms(inputs, data.features[data.train].reshape(len(inputs), -1))
    candidates = [forms.procrustes(), *(forms.ridge(strength) for strength in STRENGTHS)]
    found = [data.held_out_overlap(form(pooled[data.held_out, 0]), 5) for form in candidates]
    assert whole.stages[0].overlap == pytest.approx(max(found))


def test_embeddings_of_the_saved_model_are_those_that_were_measured(
    whole: DistillResult, photos: Path, pixel_store: FeatureStore
) -> None:
    data = training_set(photos, pixel_store)
    model = load_query_model(whole.path)
    from edgecsd.photos.decoding import read_image

    pixels = [model.config.preprocess.pixels(read_image(data.images.path(p))[0]) for p in data.held_out]
    assert data.held_out_overlap(model.embed(np.stack(pixels)), 5) == whole.stages[-1].overlap


@pytest.mark.parametrize("stage", ["pooled", "head", "network"])
def test_a_killed_run_ends_with_the_same_weights(
    stage: str, whole: DistillResult, photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    killed = warm.program(PROGRAM, [photos, pixel_store.path, out, stage])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (out / "query_model.json").exists()
    with pytest.raises(BadInputError, match="its training did not end: run distill again to go on"):
        load_query_model(out)
    listener = Listener()
    result = run(photos, pixel_store.path, out, resume=True, reporter=listener)
    expected = {
        "pooled": "going on: 12 of 24 images were done",
        "head": "head: ",
        "network": "going on from step 4 of 8",
    }
    assert any(text.startswith(expected[stage]) for text in listener.heard), listener.heard
    for name in ("query_model.safetensors", "query_model.json", "result.json", "run.json"):
        assert (out / name).read_bytes() == (whole.path / name).read_bytes(), name
    assert result.stages == whole.stages
    assert records(out) == records(whole.path)  # each record once, though some steps were trained twice
    for each in ("head", "network"):
        assert scalars(out, each, "loss") == scalars(whole.path, each, "loss")
    ended, expected_end = (
        torch.load(path / "checkpoints" / "last.pt", weights_only=True) for path in (out, whole.path)
    )
    assert all(torch.equal(ended["model"][name], tensor) for name, tensor in expected_end["model"].items())
    start = load_file(whole.path / "closed_form" / "query_model.safetensors")
    moved = [name for name, tensor in start.items() if not torch.equal(tensor, expected_end["model"][name])]
    assert ended["step"] == 8 and len(moved) > 20  # the network did train


def test_a_whole_run_is_not_made_again(whole: DistillResult, photos: Path, pixel_store: FeatureStore) -> None:
    before = {file: file.stat().st_mtime_ns for file in whole.path.rglob("*")}
    listener = Listener()
    assert run(photos, pixel_store.path, whole.path, reporter=listener) == whole
    assert listener.heard == [f"{whole.path} is already whole: nothing to do"]
    assert {file: file.stat().st_mtime_ns for file in whole.path.rglob("*")} == before


def test_a_run_of_other_settings_is_refused(whole: DistillResult, photos: Path, pixel_store: FeatureStore) -> None:
    with pytest.raises(BadInputError, match=r"\(k: 12 there, 10 now, seed: 5 there, 6 now\); choose another `out`"):
        run(photos, pixel_store.path, whole.path, config=config(k=10, seed=6))
    with pytest.raises(BadInputError, match=r"other settings or data \(images\)"):
        run(find_images(photos).subset(range(23)), pixel_store.path, whole.path)  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="`resume` and `overwrite`"):
        run(photos, pixel_store.path, whole.path, resume=True, overwrite=True)
    assert load_query_model(whole.path)


def test_changed_photos_are_noticed(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    ids = find_images(folder).ids
    shutil.copy(folder / ids[3], folder / ids[1])
    with pytest.raises(BadInputError, match=rf"{ids[1]}: changed since its features were extracted \(1 such images\)"):
        run(folder, pixel_store.path, tmp_path / "run")
    (folder / ids[1]).write_bytes(b"nonsense")
    with pytest.raises(BadInputError, match=rf"{ids[1]}: cannot be decoded.*could be read when its features were"):
        run(folder, pixel_store.path, tmp_path / "run")
    shutil.copy(photos / ids[1], folder / ids[1])
    assert run(folder, pixel_store.path, tmp_path / "run", config=config(), resume=True).stages  # mended: it goes on


def test_photos_that_change_while_the_network_trains(
    photos: Path, pixel_store: FeatureStore, whole: DistillResult, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    out = Path(shutil.copytree(whole.path, tmp_path / "run"))
    for name in ("result.json", "query_model.json"):
        (out / name).unlink()
    shutil.rmtree(out / "checkpoints")
    for item in find_images(folder).ids:
        (folder / item).write_bytes((folder / item).read_bytes() + b" ")
    with pytest.raises(BadInputError, match="changed since its features were extracted; extract again"):
        run(folder, pixel_store.path, out)


def test_fewer_anchors_than_asked_for_and_what_to_know_about_them(
    photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    listener = Listener()
    settings = config(k=512, tau_q=1.0, head_steps=2, epochs=0, anchor_views=0)
    run(photos, pixel_store.path, tmp_path / "many", config=settings, reporter=listener)
    text = "\n".join(listener.heard)
    assert "the gallery offers only 23 anchors an image; 512 were asked for" in text
    assert "dimensions: along" not in text  # 23 anchors, 16 dimensions
    assert text.count("`tau_q` 1 and `tau_g` 0.1 differ: the best query is not the gallery feature, far from it") == 1
    listener = Listener()
    run(photos, pixel_store.path, tmp_path / "few", config=config(head_steps=2, epochs=0), reporter=listener)
    text = "\n".join(listener.heard)
    assert text.count("note: 12 anchors < 16 dimensions: along") == 1
    assert "--tau-q" not in text


def test_random_start_in_brain_floats(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    settings = config(init="random", precision="bf16-mixed", epochs=1, head_steps=4, freeze_norm=False, pooling="gem")
    result = run(photos, pixel_store.path, tmp_path / "run", config=settings)
    assert [stage.name for stage in result.stages] == ["random start", "head", "network"]
    losses = [r["loss"] for r in records(tmp_path / "run") if r["loss"] is not None]
    assert losses and np.isfinite(losses).all()  # type: ignore[arg-type]
    state = load_file(tmp_path / "run" / "query_model.safetensors")
    assert all(tensor.dtype != torch.bfloat16 and tensor.isfinite().all() for tensor in state.values())


def test_the_network_is_shown_the_views_whose_features_are_cached(
    photos: Path, pixel_store: FeatureStore, tmp_path: Path
) -> None:
    """With rates of 0 nothing moves, and each loss must be that of the pooled features of the same images and views."""
    settings = config(backbone_lr=0.0, projection_lr=0.0, head_steps=0, epochs=2, anchor_views=0)
    out = tmp_path / "run"
    run(photos, pixel_store.path, out, config=settings)
    data = training_set(photos, pixel_store)
    (file,) = (out / "cache").glob("pooled-*.npy")
    pooled = torch.from_numpy(np.load(file))
    model, features = load_query_model(out), chosen_views(data.features, data.train)
    anchors = make_anchors(
        FlatViews(features, np.arange(len(features))),
        data.gallery,
        12,
        out=tmp_path / "anchors",
        own_rows=[data.own_rows[t] for t in data.train for _ in range(3)],
    )
    objective = Objective(features, settings, anchors)
    training = NetworkTraining(model, data, objective, tmp_path, workers=1)
    expected, shown = [], set()
    for epoch in range(2):
        order, views = training.epoch_plan(epoch)
        for start in range(0, training.steps_per_epoch * 4, 4):
            images = order[start : start + 4]
            shown |= set(zip(images.tolist(), views[images].tolist(), strict=True))
            with torch.no_grad():
                embeddings = model.project(pooled[data.train[images], views[images]])
            expected.append(objective.loss(embeddings, images, views[images]).item())
    assert len(shown) == 2 * training.steps_per_epoch * 4  # in the second epoch no image has the view of the first
    np.testing.assert_allclose(list(scalars(out, "network", "loss").values()), expected, rtol=1e-3, atol=1e-5)


def test_a_batch_larger_than_the_training_set(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    settings = config(batch_size=64, head_batch_size=64, epochs=2, head_steps=0)
    result = run(photos, pixel_store.path, tmp_path / "run", config=settings)
    assert [stage.name for stage in result.stages] == ["closed-form start", "network"]
    assert [record["step"] for record in records(tmp_path / "run")] == [0, 1, 2]


def test_photos_without_features_are_left_out_and_counted(photos: Path, tmp_path: Path) -> None:
    store = extract(find_images(photos).subset(range(4, 24)), PixelGallery(), tmp_path / "store")
    listener = Listener()
    settings = config(epochs=0, head_steps=0)
    run(photos, store.path, tmp_path / "run", config=settings, reporter=listener)
    assert "4 of 24 images have no cached features and are left out" in listener.heard
    assert json.loads((tmp_path / "run" / "run.json").read_text())["images"]["count"] == 20


def test_the_query_model_learns(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    """Two dozen photos teach nothing of others; the loss on those that are trained on must fall all the same."""
    settings = config(init="random", epochs=0, head_steps=150, head_lr=1e-2, k=20)
    run(photos, pixel_store.path, tmp_path / "run", config=settings)
    losses = list(scalars(tmp_path / "run", "head", "loss").values())
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) / 4
