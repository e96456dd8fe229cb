"""metrics.jsonl and TensorBoard hold each record once, whatever a killed process left behind."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from edgecsd.training.log import TrainingLog, read_records


def write(folder: Path, stage: str, steps: range, *, last_step: int = -1) -> None:
    with closing(TrainingLog(folder, stage, last_step=last_step)) as log:
        for step in steps:
            log.scalars(step, loss=step / 10, learning_rate=0.5)
            log.record(step, loss=step / 10, held_out_overlap=step / 100)


def steps_shown(folder: Path, stage: str, tag: str) -> list[int]:
    events = EventAccumulator(str(folder / "tensorboard" / stage))
    events.Reload()
    return [event.step for event in events.Scalars(tag)]


def test_what_came_after_the_checkpoint_is_forgotten(tmp_path: Path) -> None:
    write(tmp_path, "head", range(3))
    write(tmp_path, "network", range(6))
    with open(tmp_path / "metrics.jsonl", "a") as handle:
        handle.write('{"stage": "network", "step": 6, "lo')  # the process was killed here
    write(tmp_path, "network", range(4, 8), last_step=3)
    records = read_records(tmp_path / "metrics.jsonl")
    assert [(r["stage"], r["step"]) for r in records] == [("head", s) for s in range(3)] + [
        ("network", s) for s in range(8)
    ]
    assert records[4] == {"stage": "network", "step": 1, "loss": 0.1, "held_out_overlap": 0.01}
    for tag in ("loss", "learning_rate", "held_out_overlap"):
        assert steps_shown(tmp_path, "network", tag) == list(range(8))
        assert steps_shown(tmp_path, "head", tag) == list(range(3))


def test_a_stage_that_starts_anew_forgets_itself_alone(tmp_path: Path) -> None:
    write(tmp_path, "head", range(5))
    write(tmp_path, "network", range(2))
    write(tmp_path, "head", range(3))
    records = read_records(tmp_path / "metrics.jsonl")
    assert sorted((r["stage"], r["step"]) for r in records) == [("head", s) for s in range(3)] + [
        ("network", s) for s in range(2)
    ]
    assert steps_shown(tmp_path, "head", "loss") == [0, 1, 2] and steps_shown(tmp_path, "network", "loss") == [0, 1]
