"""search_precision: size and CPU time are limits too."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from searches import few_trials, searched

from edgecsd.features.store import FeatureStore
from edgecsd.precision_search import attempts, search
from edgecsd.precision_search.results import NothingFitsError
from edgecsd.quantisation.precisions import STANDARD, Precision


def test_the_size_is_a_limit_too(
    made: Path, photos: Path, pixel_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps retrieval and is too large is not taken; the share is of the fp32 file, which is tried for it."""
    few_trials(monkeypatch)
    free = searched(made, photos, pixel_store, max_loss=0.89)
    assert free.chosen.precision is Precision.W8A8 and len(free.trials) == 1
    share = searched(made, photos, pixel_store, max_loss=0.89, max_size_share=0.9)
    assert [trial.precision for trial in share.trials] == [Precision.FP32, Precision.W8A8]
    assert share.chosen == replace(free.chosen, file=share.chosen.file)
    whole = share.trials[0]
    assert whole.fits(0.89) and share.objectives.max_bytes == int(0.9 * whole.size_bytes)
    with pytest.raises(NothingFitsError, match=r"is at most .* MB; the nearest is .* MB, limit") as failed:
        searched(
            made, photos, pixel_store, max_loss=0.89, max_bytes=free.chosen.size_bytes // 2
        )  # other w8a8 files may be a few bytes less
    given = failed.value.searched
    assert given.trials and all(given.objectives.lacks(trial) for trial in given.trials) and not given.layers
    assert [t.how for t in given.trials if t.precision is Precision.W8A8] == [STANDARD], "others are as large"
    assert not list(given.folder.glob("*.onnx"))


def test_cpu_time_is_measured_and_is_a_limit(
    made: Path, photos: Path, pixel_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(attempts.interleaved_ratio, blocks=3, runs=2, warmup_seconds=0.02)
    monkeypatch.setattr(attempts, "interleaved_ratio", quick)
    few_trials(monkeypatch)
    result = searched(made, photos, pixel_store, max_loss=0.88, max_cpu_ratio=1000.0)
    whole, eight = result.trials
    assert whole.precision is Precision.FP32 and whole.cpu_ratio == 1
    assert result.chosen.cpu_ratio == eight.cpu_ratio and eight.cpu_ratio is not None
    assert 0 < (eight.cpu_low or 0) <= eight.cpu_ratio <= (eight.cpu_high or 0)
    lines = [json.loads(line) for line in (result.folder / search.TRIALS).read_text().splitlines()]
    assert [line["cpu_ratio"] for line in lines[1:] if line["cpu_ratio"] is not None] == [1.0, eight.cpu_ratio]
    monkeypatch.setattr(search._Search, "_recipes", lambda _: iter([STANDARD]))
    with pytest.raises(NothingFitsError) as failed:  # the trials are taken from the log, and more are measured
        searched(made, photos, pixel_store, max_loss=0.88, max_cpu_ratio=1e-6, max_bytes=1)
    given = failed.value.searched
    assert eight in given.trials and all(any("CPU" in told for told in given.objectives.lacks(t)) for t in given.trials)
