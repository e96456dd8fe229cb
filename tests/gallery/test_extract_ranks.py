"""extract under torchrun: every process makes its share, and the store is that of one process, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgecsd.distributed import Ranks, own_cores, ranks
from edgecsd.errors import BadInputError
from edgecsd.features.store import FeatureStore
from edgecsd.files.whole import sha256_file

FILES = ("features-00000-of-00001.npy", "views-00000-of-00001.npy", "items.parquet")
# 24 photos in eight parts; the model of one process may be killed at its n-th batch, as by kill -9.
PROGRAM = """
import os, signal, sys
import edgecsd.gallery.extract
from doubles import PixelGallery
from edgecsd.cli import main

class Mortal(PixelGallery):
    batches = 0
    def embed(self, pixels):
        self.batches += 1
        if os.environ.get("DIES") == os.environ["RANK"] and self.batches > 3:  # after its first part
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed(pixels)

edgecsd.gallery.extract.PART_ITEMS = 3
edgecsd.gallery.extract.load_gallery_model = lambda *args, **kwargs: Mortal()
sys.argv = ["edgecsd", "extract", *sys.argv[1:]]
main()
"""


def torchrun(processes: int, photos: Path, out: Path, dies: int | None = None) -> subprocess.CompletedProcess[str]:
    program = out.parent / "program.py"
    program.write_text(PROGRAM)
    tests = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": tests, "OMP_NUM_THREADS": "1", "DIES": "" if dies is None else str(dies)}
    given = [
        str(photos),
        "--gallery-model",
        "a:b",
        "--views",
        "2",
        "--seed",
        "3",
        "--batch-size",
        "4",
        "--out",
        str(out),
    ]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    return subprocess.run(
        [*launcher, str(program), *given], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_a_process_is_killed_and_others_go_on(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    out = tmp_path / "s"
    broken = torchrun(2, photos, out, dies=1)
    assert broken.returncode != 0 and not out.exists()
    kept = {part: part.stat().st_mtime_ns for part in (tmp_path / "s.partial").glob("part-*.npz")}
    assert 0 < len(kept) < 8
    again = torchrun(3, photos, out)
    assert again.returncode == 0, again.stderr
    assert f"going on: {3 * len(kept)} of 24 images were done" in again.stderr
    assert again.stdout.count("wrote ") == 1, "one process speaks for all"
    for name in FILES:
        assert sha256_file(out / name) == sha256_file(pixel_store.path / name)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["program.py", "s"]


def test_shares_are_disjoint_and_whole() -> None:
    shares = [Ranks(rank, 3).share(range(10)) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(10))
    assert Ranks(0, 3).first and not Ranks(1, 3).first
    Ranks().meet()  # nobody to wait for


@pytest.mark.parametrize(("rank", "count"), [("2", "2"), ("-1", "2"), ("x", "1")])
def test_an_environment_that_makes_no_sense(rank: str, count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", count)
    with pytest.raises(BadInputError, match="torchrun"):
        ranks()


def test_processes_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert own_cores() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "100")
    assert own_cores() == 1
