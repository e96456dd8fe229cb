"""Faults that are no kill: full disks, damaged and lost shards, clocks that jump, two runs on one place."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fault_steps import STEPS, edgecsd, tree

Case = Callable[[Path, Path], str]
BY_NAME = {step.name: step for step in STEPS}
# time.time and time_ns jump by the seconds in JUMP; what imports this first lives in another year.
JUMPING = """
import os, time
jump = float(os.environ.get("JUMP", "0"))
if jump:
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + jump
    time.time_ns = lambda: real_ns() + int(jump * 1e9)
"""


def ended(command: list[str], **more: str) -> tuple[int, str]:
    """Exit code and stderr."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    return done.returncode, done.stderr


def last(said: str) -> str:
    """The error line, without folders of this machine."""
    lines = [line for line in said.splitlines() if line.strip()]
    line = next((line for line in lines if "error: " in line), lines[-1] if lines else "nothing said")
    return re.sub(r"/\S*/", "", line.split("error: ")[-1]).replace("|", "/")[:300]


def require(condition: bool, what: str) -> None:
    """As assert, which python -O leaves out."""
    if not condition:
        raise AssertionError(what)


def copied(inputs: Path, folder: Path, name: str) -> Path:
    return Path(shutil.copytree(inputs / name, folder / name))


def damaged_shard(inputs: Path, folder: Path) -> str:
    """One bit of the gallery's first shard: each step that reads it names file and digest."""
    store = copied(inputs, folder, "gallery.store")
    shard = min(store.glob("features-*.npy"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    told = []
    for name in ("index", "mine", "push"):
        moved = folder / f"for-{name}"
        moved.mkdir()
        command = [
            str(store) if word == str(inputs / "gallery.store") else word for word in _command(name, inputs, moved)
        ]
        code, said = ended(command)
        require(code == 2 and shard.name in said and "SHA-256" in said, f"{name} ended with {code}: {last(said)}")
        told.append(f"{name}: {last(said)}")
    return "; ".join(told)


def lost_shard(inputs: Path, folder: Path) -> str:
    """The gallery's last shard is deleted between two steps."""
    store = copied(inputs, folder, "gallery.store")
    shard = max(store.glob("features-*.npy"))
    shard.unlink()
    code, said = ended(edgecsd("index", "build", store, "--out", folder / "gallery.index"))
    require(code == 2 and shard.name in said, f"ended with {code}: {last(said)}")
    require(not (folder / "gallery.index").exists(), "an index was written all the same")
    return last(said)


def full_disk(inputs: Path, folder: Path) -> str:
    """A file system of 4 MB (root), then room: the same command goes on."""
    told = []
    for name in ("index", "extract"):
        with small_disk(folder / name, "700k" if name == "extract" else "4m") as (place, grow):
            if place is None:
                return "not tried: mounting a small file system needs root"
            code, said = ended(_command(name, inputs, place))
            require(code == 2 and "No space left" in said, f"{name} ended with {code}: {last(said)}")
            told.append(f"{name}: {last(said)}")
            grow()
            code, said = ended(_command(name, inputs, place))
            require(code == 0, f"{name} with room ended with {code}: {last(said)}")
            again = folder / f"{name}-undisturbed"
            again.mkdir()
            ended(_command(name, inputs, again))
            require(_same(tree(place), tree(again)), f"{name} left something else than on a disk with room")
    return "; ".join(told) + "; with room the same command ends with the same files"


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[tuple[Path | None, Callable[[], None]]]:
    """A tmpfs and what makes it larger; None without root."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        yield None, lambda: None
        return
    try:
        yield place, lambda: subprocess.run(["mount", "-o", "remount,size=200m", str(place)], check=True) and None
    finally:
        subprocess.run(["umount", str(place)], check=False)


def jumping_clock(inputs: Path, folder: Path) -> str:
    """Killed in a run 400 days ahead, run again 400 days back."""
    (folder / "sitecustomize.py").write_text(JUMPING)
    day, told = 86_400, []
    for name in ("extract", "distill"):
        place, quiet = folder / name, folder / f"{name}-undisturbed"
        for each in (place, quiet):
            each.mkdir()
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _path(folder)}
        process = subprocess.Popen(
            _command(name, inputs, place),
            env={**variables, "JUMP": str(400 * day)},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not any(p for p in place.iterdir() if p.name[0] != ".") and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        code, said = ended(_command(name, inputs, place), JUMP=str(-400 * day), PYTHONPATH=_path(folder))
        require(code == 0, f"{name} ended with {code}: {last(said)}")
        ended(_command(name, inputs, quiet))
        require(_same(tree(place), tree(quiet)), f"{name} left something else than with a steady clock")
        told.append(name)
    return f"{' and '.join(told)}: the same files as with a steady clock"


def _path(folder: Path) -> str:
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))


def two_runs(inputs: Path, folder: Path) -> str:
    """The second run on the same place is refused and told of the first, which ends well."""
    command = _command("index", inputs, folder)
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(folder.glob(".*.lock")) and time.monotonic() < deadline:
        time.sleep(0.005)
    begun = time.monotonic()
    while time.monotonic() - begun < 60:
        code, said = ended([sys.executable, "-c", _SECOND, str(folder / "gallery.index")])
        if code == 2:
            break
        require(first.poll() is None, "the first run ended before the second one began")
    first.communicate()
    require(code == 2 and str(first.pid) in said, f"the second ended with {code}: {last(said)}")
    require(first.returncode == 0, f"the first ended with {first.returncode}")
    return re.sub(r"process \d+ of \S+ \(.*, since .*?\)", "process PID of MACHINE (COMMAND, since TIME)", last(said))


_SECOND = """
import sys
from pathlib import Path
from edgecsd.errors import EdgecsdError
from edgecsd.files.places import holding
try:
    with holding(Path(sys.argv[1])):
        pass
except EdgecsdError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def _command(name: str, inputs: Path, folder: Path) -> list[str]:
    return BY_NAME[name].command(inputs, folder)


def _same(one: dict[str, str], other: dict[str, str]) -> bool:
    """Where dates and folders may stand, only names are compared."""
    free = ("run.json", "metrics.jsonl", "checkpoints/", "manifest.json:/created")
    return one.keys() == other.keys() and all(
        value == other[name] or any(word in name for word in free) for name, value in one.items()
    )


CASES: dict[str, Case] = {
    "damaged shard": damaged_shard,
    "lost shard": lost_shard,
    "full disk": full_disk,
    "clock that jumps": jumping_clock,
    "two runs on one place": two_runs,
}
