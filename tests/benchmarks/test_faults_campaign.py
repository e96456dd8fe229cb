"""The campaign of `make faults`, cut short: one step killed, one shard damaged; and it sees what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks" / "robustness"


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fault_steps import _write_store

    folder = tmp_path_factory.mktemp("faults") / "inputs"
    folder.mkdir()
    _write_store(folder, "gallery", [f"item-{row}" for row in range(6000)], np.random.default_rng(0))
    return folder


@pytest.mark.slow
def test_a_killed_step_ends_as_if_nothing_had_been(inputs: Path, tmp_path: Path) -> None:
    from fault_steps import STEPS
    from faults import campaign

    (step,) = (each for each in STEPS if each.name == "index")
    result = campaign(step, inputs, tmp_path, kills=2, seed=1)
    assert len(result.kills) == 2 and result.wrong == []
    assert result.undisturbed.changing == set() and "gallery.index/lists.ivfdata" in result.undisturbed.content


@pytest.mark.slow
def test_what_is_left_otherwise_is_told(inputs: Path, tmp_path: Path) -> None:
    """A step that keeps half a file where it was killed, and takes it for whole."""
    from fault_steps import Step, tree
    from faults import campaign

    program = (
        "import sys, time; from pathlib import Path; out = Path(sys.argv[1]) / 'result.txt'\n"
        "if not out.exists():\n"
        "    with open(out, 'w') as file:\n"
        "        for line in range(20):\n"
        "            print(line, file=file, flush=True); time.sleep(0.05)\n"
    )
    careless = Step("careless", lambda _, out: [sys.executable, "-c", program, str(out)], tree)
    result = campaign(careless, inputs, tmp_path, kills=2, seed=1)
    assert len(result.wrong) == len(result.kills) == 2 and "result.txt" in result.wrong[0]


@pytest.mark.slow
def test_a_damaged_and_a_lost_shard_are_named(inputs: Path, tmp_path: Path) -> None:
    import fault_cases
    from fault_cases import ended, lost_shard
    from fault_steps import edgecsd

    told = lost_shard(inputs, tmp_path)
    assert "features-00000-of-00001.npy: cannot be read" in told
    store = fault_cases.copied(inputs, tmp_path / "again", "gallery.store")
    shard = next(store.glob("features-*.npy"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    code, said = ended(edgecsd("index", store, "--out", tmp_path / "x.index"))
    assert code == 2 and shard.name in said and "its SHA-256 is" in said
    assert not (tmp_path / "x.index").exists()
