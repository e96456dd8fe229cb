"""distill under torchrun: two processes learn what one learns, also after one of them was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import distillations
import numpy as np
import pytest
from safetensors.numpy import load_file

from edgecsd.distributed import Ranks
from edgecsd.errors import BadInputError
from edgecsd.features.store import FeatureStore
from edgecsd.training.choices import Loss
from edgecsd.training.distill import _require_shareable


def torchrun(photos: Path, store: Path, out: Path, dies: str = "never") -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = [distillations.__file__, str(photos), str(store), str(out), dies]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, *program], env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def records(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(photos: Path, pixel_store: FeatureStore, tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    distillations.run(photos, pixel_store.path, alone)
    broken = torchrun(photos, pixel_store.path, shared, dies="network")
    assert broken.returncode != 0 and not (shared / "query_model.json").exists()
    assert (shared / "checkpoints" / "last.pt").is_file()
    again = torchrun(photos, pixel_store.path, shared)
    assert again.returncode == 0, again.stderr
    for one, two in zip(records(alone), records(shared), strict=True):
        assert (one["stage"], one["step"]) == (two["stage"], two["step"])
        assert two["held_out_overlap"] == pytest.approx(one["held_out_overlap"], abs=1e-6)
        assert one["loss"] == two["loss"] or two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    ours, theirs = load_file(shared / "query_model.safetensors"), load_file(alone / "query_model.safetensors")
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours[name], tensor, atol=2e-4, err_msg=name)
    left = {each.relative_to(shared).parts[0] for each in shared.rglob("*")}
    assert left == {each.relative_to(alone).parts[0] for each in alone.rglob("*")}
    assert not list(shared.rglob("*.tmp*")) and not list(shared.rglob("*.partial"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 5}, "2 processes cannot share it evenly"),
        ({"loss": Loss.RAML}, "one process only"),
        ({"freeze_norm": False}, "freeze_norm"),
    ],
)
def test_what_several_processes_cannot_do_alike(changes: dict[str, object], message: str) -> None:
    _require_shareable(distillations.config(**changes), Ranks())
    with pytest.raises(BadInputError, match=message):
        _require_shareable(distillations.config(**changes), Ranks(0, 2))
