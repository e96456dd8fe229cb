"""benchmarks/speed/serve.py, small: every request is answered, the batches are counted, memory is watched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "speed" / "serve.py"


def test_a_short_load_and_a_short_soak(tmp_path: Path) -> None:
    out = tmp_path / "serve.json"
    size = ["--rows", "400", "--dim", "16", "--rounds", "1", "--requests", "8", "--threads", "1"]
    command = [sys.executable, str(PROGRAM), *size, "--clients", "1", "--clients", "4", "--soak", "0.03"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    document, table = json.loads(out.read_text()), out.with_suffix(".md").read_text()
    assert done.stdout.strip() == table.strip()
    assert [load["clients"] for load in document["loads"]] == [1, 4]
    for load in document["loads"]:
        assert load["errors"] == 0 and load["ratio"] > 0 and load["p99_ms"] >= load["p50_ms"] > 0
        assert 1 <= load["mean_batch"] <= load["clients"] and load["server_rss_mb"] > 20
    soak = document["soak"]
    assert soak["clients"] == 64 and soak["errors"] == 0
    assert soak["requests"] >= 512 and soak["requests"] % 512 == 0, "whole rounds of eight requests a client"
    assert soak["highest_mb"] >= max(soak["first_third_mb"], soak["last_third_mb"]) > 20
    assert f"{soak['requests']:,} requests, 0 errors" in table


@pytest.mark.parametrize(
    ("calls", "vectors", "sizes"),
    [
        ({1: 2, 2: 0, 4: 0, 8: 2}, 16, [1, 1, 7, 7]),  # 8 clients whose batches go by turns
        ({1: 0, 2: 0, 4: 1, 8: 1}, 10, [4, 6]),
        ({1: 3, 2: 0, 4: 0, 8: 0}, 3, [1, 1, 1]),
    ],
)
def test_bare_faiss_gets_batches_of_the_services_sizes(
    calls: dict[int, int], vectors: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(PROGRAM.parent)
    assert import_module("service_load").sizes_of(calls, vectors) == sizes
