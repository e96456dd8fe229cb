"""extract: a run that is killed, or whose disk is full, leaves nothing half-made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from doubles import PixelGallery

import edgecsd.gallery.extract
from edgecsd.errors import BadInputError
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import sha256_file
from edgecsd.gallery.extract import extract
from edgecsd.photos.finding import find_images
from edgecsd.progress import Silent


class Notes(Silent):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


WORKER = """
import sys
from pathlib import Path
import edgecsd.gallery.extract
from doubles import SlowGallery
from edgecsd.photos.finding import find_images
edgecsd.gallery.extract.PART_ITEMS = 4
photos, out = map(Path, sys.argv[1:])
edgecsd.gallery.extract.extract(find_images(photos), SlowGallery(), out, views=1, batch_size=4)
"""


def start(photos: Path, out: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", WORKER, str(photos), str(out)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_a_part(process: subprocess.Popen[str], out: Path) -> None:
    deadline = time.monotonic() + 60
    while not list(out.with_name(out.name + ".partial").glob("part-*.npz")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "ctrl-c"])
def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(
    photos: Path, tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "s"
    process = start(photos, out)
    wait_for_a_part(process, out)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -number, errors
    assert not out.exists()
    with pytest.raises(BadInputError, match="no such feature store"):
        FeatureStore.open(out)
    with pytest.raises(BadInputError, match="not a feature store"):
        FeatureStore.open(tmp_path / "s.partial")
    finished = len(list((tmp_path / "s.partial").glob("part-*.npz")))
    assert 1 <= finished < 6

    monkeypatch.setattr(edgecsd.gallery.extract, "PART_ITEMS", 4)
    notes = Notes()
    extract(
        find_images(photos), PixelGallery(), out, views=1, reporter=notes
    )  # the same embeddings, without the waiting
    assert notes.lines[0].startswith(f"going on: {4 * finished} of 24 images")
    assert [p.name for p in tmp_path.iterdir()] == ["s"]

    extract(find_images(photos), PixelGallery(), tmp_path / "whole", views=1)
    assert sha256_file(out) == sha256_file(tmp_path / "whole")


def test_a_run_with_other_settings_does_not_take_over_the_parts(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    process = start(photos, out)
    wait_for_a_part(process, out)
    process.kill()
    process.communicate(timeout=60)
    store = extract(find_images(photos), PixelGallery(seed=8), out, views=1)
    extract(find_images(photos), PixelGallery(seed=8), tmp_path / "fresh", views=1)
    assert sha256_file(store.path) == sha256_file(tmp_path / "fresh")


LIMITED = """
import resource, signal, sys
from pathlib import Path
import edgecsd.gallery.extract
from doubles import PixelGallery
from edgecsd.gallery.extract import extract
from edgecsd.photos.finding import find_images
edgecsd.gallery.extract.PART_ITEMS = 4
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write over the limit then fails with OSError, as on a full disk
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    extract(find_images(Path(sys.argv[1])), PixelGallery(dim=64), Path(sys.argv[2]), views=1, dtype="float32")
except OSError as error:
    print("OSError", error.errno)
"""


@pytest.mark.parametrize(("limit", "parts"), [(100, 0), (2_000, 0), (5_000, 6), (1_000_000, 6)])
def test_a_full_disk_at_any_point_leaves_no_store(photos: Path, tmp_path: Path, limit: int, parts: int) -> None:
    """No file may grow beyond `limit` bytes: the settings, the first part or the vectors fail, or nothing does."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-B", "-c", LIMITED, str(photos), str(tmp_path / "s"), str(limit)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    if limit < 1_000_000:
        assert done.stdout.startswith("OSError")
        assert [p.name for p in tmp_path.iterdir()] == ["s.partial"]
        assert not list(tmp_path.rglob("*.tmp*"))
        assert len(list(tmp_path.rglob("part-*.npz"))) == parts
        extract(find_images(photos), PixelGallery(dim=64), tmp_path / "s", views=1, dtype="float32")
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    FeatureStore.open(tmp_path / "s", verify=True)
