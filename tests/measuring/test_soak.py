"""Soak: steps are found where they are and not where they are not; a really throttled process; figures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgecsd.cli import app
from edgecsd.errors import BadInputError
from edgecsd.measuring.plots import plot_rows
from edgecsd.measuring.schema import BenchProtocol, BenchRow, LatencyFigures, Repeat, Status
from edgecsd.measuring.soak import change_point, in_words, soak_of
from edgecsd.report.bench_figures import front


def levels(seed: int, *parts: tuple[int, float], scatter: float = 0.02) -> np.ndarray:
    random = np.random.default_rng(seed)
    flat = np.concatenate([np.full(count, level) for count, level in parts])
    return np.asarray(flat * (1 + scatter * random.normal(size=len(flat))))


def test_a_step_is_found_where_it_is() -> None:
    for seed in range(20):
        found = change_point(levels(seed, (25, 10.0), (35, 12.0)))
        assert found is not None and abs(found - 25) <= 1
        late = change_point(levels(seed, (55, 10.0), (5, 15.0)))
        assert late is not None and abs(late - 55) <= 1


@pytest.mark.parametrize("scatter", [0.0, 0.01, 0.1])
def test_no_step_where_there_is_none(scatter: float) -> None:
    for seed in range(30):
        assert change_point(levels(seed, (60, 10.0), scatter=scatter)) is None


def test_what_is_no_throttling() -> None:
    assert change_point(levels(0, (30, 12.0), (30, 10.0))) is None  # it became faster
    assert change_point(levels(0, (30, 10.0), (30, 10.3), scatter=0.001)) is None  # by less than 5 %
    spikes = levels(0, (60, 10.0))
    spikes[[10, 30, 50]] *= 3
    assert change_point(spikes) is None
    assert change_point(levels(0, (3, 10.0), (4, 20.0))) is None  # too few windows


def row(wall_ms: np.ndarray, cpu_ms: np.ndarray, name: str = "x.onnx", cosine: float = 1.0) -> BenchRow:
    def ns(values: np.ndarray) -> tuple[int, ...]:
        return tuple(int(1e6 * value) for value in values)

    figures = LatencyFigures.model_construct(p50_ms=float(np.median(wall_ms)), p90_ms=float(np.percentile(wall_ms, 90)))
    repeat = Repeat.model_construct(wall_ns=ns(wall_ms), cpu_ns=ns(cpu_ms), figures=figures)
    return BenchRow.model_construct(
        file=name,
        threads=1,
        status=Status.OK,
        provenance="measured on a test",
        figures=figures,
        repeats=(repeat,),
        parity=None,
        neighbours=None,
        protocol=BenchProtocol(name="custom", min_runs=1, min_seconds=1, repeats=1),
    )


def test_onset_and_cause() -> None:
    cool, hot = np.full(1000, 10.0), np.full(1000, 13.0)  # 10 s, then 13 s
    wall = np.concatenate([cool, hot])
    throttled = soak_of(row(wall, wall), 1.0)
    assert throttled.onset is not None and abs(throttled.onset - 10) <= 1
    assert throttled.slowdown == pytest.approx(1.3) and throttled.cpu_slowdown == pytest.approx(1.3)
    assert "lower clock" in throttled.cause and len(throttled.windows) == 23
    assert throttled.windows[3].runs == 100 and throttled.windows[3].p50_ms == 10
    crowded = soak_of(row(wall, np.full(2000, 10.0)), 1.0)
    assert crowded.cpu_slowdown == 1 and "another program or a quota" in crowded.cause
    steady = soak_of(row(cool, cool), 1.0)
    assert steady.onset is None and steady.cause == ""
    lines = in_words([("a", throttled), ("b", steady)])
    assert "10.00 ms until 0.2 minutes, then 13.00 ms (1.30 times)" in lines[0] and "no slowing down" in lines[1]
    with pytest.raises(BadInputError, match="5 windows of 2 s are too few"):
        soak_of(row(cool, cool), 2.0)


WORK = """
import sys, time
until = time.monotonic() + float(sys.argv[1])
while time.monotonic() < until:
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    sum(range(300_000))
    print(time.perf_counter_ns() - wall, time.process_time_ns() - cpu, flush=True)
"""


@pytest.mark.slow
def test_a_process_that_is_really_held_back() -> None:
    """Stopped and let go on in turns from the middle on, as a quota does."""
    process = subprocess.Popen([sys.executable, "-c", WORK, "7"], stdout=subprocess.PIPE, text=True)

    def hold_back() -> None:
        time.sleep(3.5)
        with suppress(ProcessLookupError):  # it ended
            while True:
                os.kill(process.pid, signal.SIGSTOP)
                time.sleep(0.01)
                os.kill(process.pid, signal.SIGCONT)
                time.sleep(0.002)

    holding = threading.Thread(target=hold_back)
    holding.start()
    said, _ = process.communicate(timeout=60)
    holding.join()
    times = np.array([line.split() for line in said.splitlines()], np.float64) / 1e6
    found = soak_of(row(times[:, 0], times[:, 1]), 0.35)
    assert found.onset is not None and 2.4 <= found.onset <= 4.6
    assert found.slowdown > 1.1 and found.cpu_slowdown < 1 + 0.5 * (found.slowdown - 1)
    assert "another program or a quota" in found.cause


def test_the_front_is_what_nothing_else_beats() -> None:
    assert front([(3.0, 0.9), (1.0, 0.8), (2.0, 0.7), (4.0, 0.95), (3.0, 0.85)]) == [1, 0, 3]


def test_figures_are_written(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    wall = 10 + random.gamma(2, 0.3, 2000)
    rows = [row(wall, wall, "a.onnx"), row(wall / 2, wall / 2, "b.onnx")]
    written = plot_rows(rows, tmp_path / "figures", [("a", soak_of(rows[0], 1.0))])
    assert [path.name for path in written] == ["distribution.png", "distribution.svg", "soak.png", "soak.svg"]
    assert all(path.stat().st_size > 3000 for path in written)


def test_a_soak_takes_minutes() -> None:
    done = CliRunner().invoke(app, ["bench", "soak", "x.onnx", "--minutes", "0"])
    assert isinstance(done.exception, BadInputError) and "minutes above 0" in str(done.exception)
