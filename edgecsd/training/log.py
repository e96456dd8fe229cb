"""What a run reports while it trains: metrics.jsonl, a record a validation, and TensorBoard events beside it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from edgecsd.errors import missing_extra
from edgecsd.files.whole import remove, replace_whole

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:
    raise missing_extra("tensorboard", "train") from None


class TrainingLog:
    """The records of one stage. Opened anew after a checkpoint, it first forgets what came after that step.

    RUN/metrics.jsonl        {"stage": ..., "step": ..., ...} a line, all stages in one file, each record once
    RUN/tensorboard/STAGE/   scalars; what an earlier process wrote after the checkpoint is purged
    """

    def __init__(self, folder: Path, stage: str, *, last_step: int = -1) -> None:
        """last_step: the checkpoint's; records up to and with it stay (-1: none)."""
        self._file, self._stage = folder / "metrics.jsonl", stage
        self._forget(last_step)
        events = folder / "tensorboard" / stage
        if last_step < 0:
            remove(events)
        _wait_for_a_later_name(events)
        self._writer = SummaryWriter(str(events), purge_step=last_step + 1)

    def _forget(self, last_step: int) -> None:
        if not self._file.is_file():
            return
        kept = [r for r in read_records(self._file) if r.get("stage") != self._stage or r.get("step", 0) <= last_step]
        with replace_whole(self._file) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))

    def scalars(self, step: int, **values: float) -> None:
        """TensorBoard only: what is known at every step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def record(self, step: int, *, loss: float | None, held_out_overlap: float) -> None:
        """A validation: one line of metrics.jsonl, and the overlap in TensorBoard, which has the loss of every step."""
        values = {"stage": self._stage, "step": step, "loss": loss, "held_out_overlap": held_out_overlap}
        with open(self._file, "a") as handle:
            handle.write(json.dumps(values) + "\n")
        self.scalars(step, held_out_overlap=held_out_overlap)
        self.flush()

    def flush(self) -> None:
        """Put everything reported so far on disk: a checkpoint must not be ahead of it."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class NoLog:
    """The log of a run's other processes: they report nothing."""

    def scalars(self, step: int, **values: float) -> None:
        del step, values

    def record(self, step: int, *, loss: float | None, held_out_overlap: float) -> None:
        del step, loss, held_out_overlap

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _wait_for_a_later_name(events: Path) -> None:
    """TensorBoard reads event files by name, where time stands in whole seconds; a purge must not come first."""
    newest = max((int(file.name.split(".")[3]) for file in events.glob("events.out.tfevents.*")), default=0)
    while int(time.time()) == newest:
        time.sleep(0.05)


def read_records(file: Path) -> list[dict[str, Any]]:
    """The whole records of a metrics.jsonl; the half of a line that a killed process left is no record."""
    records = []
    for line in file.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records
