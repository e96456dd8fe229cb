"""One run at a time on one place; whoever holds it is named, and nothing is left of one that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgecsd.distributed import ALONE
from edgecsd.errors import BadInputError
from edgecsd.files.places import holding, holding_out, sharing
from edgecsd.progress import Silent

HOLDER = """
import sys, time
from pathlib import Path
from edgecsd.files.places import holding
with holding(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(place: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(place)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_is_refused_and_told_who_was_first(tmp_path: Path) -> None:
    place = tmp_path / "new folder" / "gallery.store"
    first = start_holder(place)
    try:
        told = rf"process {first.pid} of .*since 20\d\d-.*choose another `out`"
        with pytest.raises(BadInputError, match=told), holding(place):
            pass
        with holding(place.with_name("another.store")):
            pass
    finally:
        first.kill()
        first.communicate()


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    place = tmp_path / "run"
    first = start_holder(place)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert [each.name for each in tmp_path.iterdir()] == [".run.lock"]
    with holding(place):
        time.sleep(0)
    assert not list(tmp_path.iterdir())


def test_it_is_let_go_after_an_error_and_in_turn(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), holding(tmp_path / "x"):
        raise ZeroDivisionError
    for _ in range(3):
        with holding(tmp_path / "x"):
            assert (tmp_path / ".x.lock").is_file()
    assert not list(tmp_path.iterdir())


def test_threads_are_runs_too(tmp_path: Path) -> None:
    refused = pytest.raises(BadInputError, match=f"process {os.getpid()}")
    with holding(tmp_path / "x"), refused, holding(tmp_path / "x"):
        pass


def test_many_at_once_each_have_their_turn(tmp_path: Path) -> None:
    """Four processes count up a file to a hundred together, each trying until it gets the place."""
    program = """
import sys, time
from pathlib import Path
from edgecsd.errors import BadInputError
from edgecsd.files.places import holding
folder, left = Path(sys.argv[1]), 25
while left:
    try:
        with holding(folder / "place"):
            count = int((folder / "count").read_text())
            time.sleep(0.0005)
            (folder / "count").write_text(str(count + 1))
        left -= 1
    except BadInputError:
        time.sleep(0.0005)
"""
    (tmp_path / "count").write_text("0")
    started = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in started] == [0] * 4
    assert (tmp_path / "count").read_text() == "100"


def test_a_step_holds_its_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @holding_out
    def step(value: int, out: Path | None = None) -> int:
        if out is not None:
            with pytest.raises(BadInputError, match="writes there"), holding(out):
                pass
        return value + 1

    assert step(1, tmp_path / "x") == 2 and step(1, out=tmp_path / "x") == 2 and step(1) == 2
    with holding(tmp_path / "x"), pytest.raises(BadInputError, match="writes there"):
        step(1, tmp_path / "x")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with holding(tmp_path / "y"):  # by the first process of the same run
        assert step.__wrapped__(1) == 2 and step(1) == 2  # type: ignore[attr-defined]


def test_what_runs_share_is_waited_for(tmp_path: Path) -> None:
    place, said = tmp_path / "cache" / "pooled", list[str]()

    class Ear(Silent):
        def message(self, text: str) -> None:
            said.append(text)
            first.kill()

    first = start_holder(place)
    with sharing(place, ALONE, Ear()):
        assert len(said) == 1 and f"process {first.pid} of" in said[0] and said[0].endswith("waiting for it")
        with pytest.raises(BadInputError, match="writes there"), holding(place):
            pass
    first.communicate()


def test_a_place_may_be_given_without_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @holding_out
    def step(out: Path) -> tuple[Path, bool]:
        return out, out.with_name(f".{out.name}.lock").is_file()

    (tmp_path / "x" / "y").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "x")
    assert step(Path()) == (tmp_path / "x", True)
    assert step(out=Path("y/..")) == (tmp_path / "x", True)
    assert step(Path("y")) == (Path("y"), True)
    for root in (Path("/"), Path("/tmp/..")):
        with pytest.raises(BadInputError, match="the root of all folders"):
            step(root)
    with holding(Path()), pytest.raises(BadInputError, match="writes there"):
        step(tmp_path / "x")
